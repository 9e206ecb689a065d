"""Folding of batch norm: fewer layers, the same function."""

from __future__ import annotations

import pytest
import torch

from headstrong.folding import fold_batch_norm
from headstrong.models import ENCODERS, build_model

torch.set_num_threads(1)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_folding_batch_norm_keeps_the_function(encoder: str) -> None:
    model = build_model(encoder, "sn", 5, width=0.125, seed=2).train()
    with torch.no_grad():
        for _ in range(3):  # running statistics away from 0 and 1
            model(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
    model.eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norm(model, images[:1])
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    with torch.no_grad():
        for letter, output in model(images).items():
            torch.testing.assert_close(folded(images)[letter], output, rtol=1e-5, atol=1e-5 * float(output.abs().max()))


def test_a_batch_norm_after_an_activation_in_place_stays() -> None:
    class Activated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2)
            self.activation = torch.nn.ReLU(inplace=True)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"d": self.norm(self.activation(self.conv(images)))}

    model = Activated().eval()
    torch.nn.init.constant_(model.norm.running_mean, 0.5)
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norm(model, images[:1])
    torch.testing.assert_close(folded(images)["d"], model(images)["d"])


def test_a_batch_norm_without_a_convolution_before_it_stays() -> None:
    class Lonely(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(3)
            self.conv = torch.nn.Conv2d(3, 2, 1)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"d": self.conv(self.norm(images))}

    model = Lonely().eval()
    torch.nn.init.constant_(model.norm.running_mean, 0.5)
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    folded = fold_batch_norm(model, images)
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(images)["d"], model(images)["d"])


@pytest.mark.parametrize("encoder", [*ENCODERS, "resnet34", "mobilenet_v2"])
def test_constants_added_to_outputs_are_folded_into_the_last_convolutions(encoder: str) -> None:
    model = build_model(encoder, "sn", 5, width=0.125, seed=2).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for letter, offset in (("s", torch.arange(5.0)), ("n", torch.tensor([3.0, -2.0, 1.0]))):
        model.get_buffer(f"offset_{letter}").copy_(offset.view(-1, 1, 1))
    folded = fold_batch_norm(model, images[:1])
    with torch.no_grad():
        added, plain = model(images), folded.outputs(folded.features(images)) if folded.layout is None else None
        found = folded(images)
    for letter, output in added.items():
        torch.testing.assert_close(found[letter], output, rtol=1e-4, atol=1e-5 * float(output.abs().max()))
        assert plain is None or torch.equal(plain[letter], folded.decoders[letter](folded.features(images)))
