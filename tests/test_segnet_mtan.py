"""The dense networks that MTA attacks: SegNet shared up to its heads (DMTL), and MTAN."""

import pytest
import torch
from torch.nn import functional as F

from headstrong.errors import ConfigError
from headstrong.folding import fold_batch_norm
from headstrong.models import build_model, load_model, save_model, use_channels_last
from headstrong.models.segnet import unpool

torch.set_num_threads(1)
NETWORKS = ["segnet", "mtan"]


def small(encoder, tasks="sdn", **options):
    return build_model(encoder, tasks, 5, 0.125, **options)


def images(batch=2, size=(32, 64)):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        split, attentive, single = (
            build_model(encoder, tasks, 13) for encoder, tasks in (("segnet", "sdn"), ("mtan", "sdn"), ("segnet", "d"))
        )
    assert round(parameters(split) / 1e6, 2) == 25.06
    # Liu et al. (2019), table 1: MTAN has 1.77 times the parameters of a network for one task.
    assert round(parameters(attentive) / parameters(single), 2) == 1.77


@pytest.mark.parametrize("encoder", NETWORKS)
def test_every_task_answers_at_the_images_resolution(encoder):
    outputs = small(encoder)(images())
    assert {letter: tuple(output.shape) for letter, output in outputs.items()} == {
        "s": (2, 5, 32, 64), "d": (2, 1, 32, 64), "n": (2, 3, 32, 64),
    }  # fmt: skip


@pytest.mark.parametrize("encoder", NETWORKS)
def test_a_task_asked_for_alone_gives_what_it_gives_among_others(encoder):
    model = small(encoder).eval()
    alone = model(images(), "n")
    assert list(alone) == ["n"]
    assert torch.equal(alone["n"], model(images())["n"])


@pytest.mark.parametrize("encoder", NETWORKS)
def test_weights_follow_from_the_seed_part_by_part(encoder):
    pair, three, other = small(encoder, "sd"), small(encoder, "dns"), small(encoder, "sd", seed=1)
    for name, value in pair.state_dict().items():
        assert torch.equal(value, three.state_dict()[name])
    assert not torch.equal(next(pair.parameters()), next(other.parameters()))


def test_mtan_starts_from_dmtls_shared_network():
    shared = small("segnet").encoder.state_dict()
    inside = small("mtan").encoder.shared.state_dict()
    assert all(torch.equal(inside[name], value) for name, value in shared.items())


@pytest.mark.parametrize("encoder", NETWORKS)
def test_a_network_can_start_as_the_constant_predictor(encoder):
    model = small(encoder)
    model.start_from({"d": [2.5], "n": [0.1, 0.2, -0.3]})
    outputs = model(images())
    assert torch.equal(outputs["d"], torch.full_like(outputs["d"], 2.5))
    assert outputs["n"][0, :, 0, 0].tolist() == pytest.approx([0.1, 0.2, -0.3])
    assert torch.equal(outputs["s"], torch.zeros_like(outputs["s"]))


@pytest.mark.parametrize("encoder", NETWORKS)
def test_files_keep_the_function(encoder, tmp_path):
    model = small(encoder)
    for _ in range(3):
        model(images(4))  # running averages of its own
    model.eval()
    save_model(tmp_path / "model.safetensors", model, {"id": "x"})
    loaded = load_model(tmp_path / "model.safetensors")
    before, read = model(images()), loaded(images())
    for letter in "sdn":
        torch.testing.assert_close(read[letter], before[letter], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", NETWORKS)
def test_folding_leaves_them_as_they_are(encoder):
    """Where an image is plain, a pooling's largest is one of four equals, and rounding would decide which."""
    model = small(encoder)
    for _ in range(3):
        model(images(4))
    model.eval()
    grey = torch.full((1, 3, 32, 64), 0.5)
    folded = fold_batch_norm(model, grey)
    assert folded is not model
    for shown in (grey, images()):
        before, after = model(shown), folded(shown)
        assert all(torch.equal(before[letter], after[letter]) for letter in "sdn")


@pytest.mark.parametrize("encoder", NETWORKS)
def test_every_weight_learns_from_all_tasks_together(encoder):
    model = use_channels_last(small(encoder))
    sum((output * torch.randn_like(output)).sum() for output in model(images()).values()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("encoder", NETWORKS)
def test_bfloat16_goes_through(encoder):
    with torch.autocast("cpu", torch.bfloat16):
        outputs = small(encoder)(images())
    assert all(output.isfinite().all() for output in outputs.values())


@pytest.mark.parametrize("encoder", NETWORKS)
def test_a_size_that_cannot_be_halved_five_times_is_refused(encoder):
    with pytest.raises(ConfigError, match=f"48x64: {encoder} needs multiples of 32; change data.size"):
        small(encoder)(images(size=(48, 64)))


def test_attention_multiplies_the_features_it_selects_from():
    """A mask of zeros leaves nothing of the shared features: the representation is 0."""
    model = small("mtan").eval()
    with torch.no_grad():
        last = model.encoder.attention["d"].up[0][4]  # the batch norm before the last sigmoid
        last.weight.zero_()
        last.bias.fill_(-200.0)
    seen = model.encoder(2 * images() - 1, "dn")
    assert torch.equal(seen["d"], torch.zeros_like(seen["d"]))
    assert seen["n"].abs().max() > 0


def test_unpooling_is_torchs_with_its_gradient():
    pooled, places = F.max_pool2d(torch.randn(2, 4, 8, 6, dtype=torch.float64), 2, return_indices=True)
    pooled.requires_grad_()
    ours, theirs = unpool(pooled, places), F.max_unpool2d(pooled, places, 2)
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(ours)
    gradients = [torch.autograd.grad((maps * weight).sum(), pooled)[0] for maps in (ours, theirs)]
    assert torch.equal(*gradients)
