"""Batch norm folded into the convolutions before it: the same function, computed faster."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from headstrong.models import MultiTaskModel
from headstrong.models.segnet import SegNet

FOLDING_TOLERANCE = 1e-4  # relative; float rounding of a deep network stays an order of magnitude below


def fold_batch_norm(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a model in evaluation mode whose batch norms are folded into the convolutions before them.

    The same function up to float rounding, with fewer passes over memory. `example` is an image (1, 3, H, W) that is
    run through the model to see which convolution feeds which batch norm, and to check the result. Raises RuntimeError
    when the folded model answers otherwise.

    A SegNet comes back unfolded: it puts values back where a pooling found the largest of four, and where two of them
    are equal but for rounding, folding would move them.
    """
    model = copy.deepcopy(model).eval()
    if any(isinstance(part, SegNet) for part in model.modules()):
        return model
    before, pairs = _run_and_pair(model, example)
    places = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    for norm, conv in pairs.items():
        fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
        setattr(*places[conv], fused)
        setattr(*places[norm], nn.Identity())
    if isinstance(model, MultiTaskModel):
        _fold_constants(model)
    with torch.no_grad():
        after = model(example)
    for letter, output in before.items():
        off = float((after[letter] - output).abs().max())
        if off > FOLDING_TOLERANCE * max(1.0, float(output.abs().max())):
            raise RuntimeError(f"folding batch norm changed the output of task {letter!r} by {off}")
    return model


class _Folded(MultiTaskModel):
    """A model whose constants are in its decoders' own biases, not added to their outputs."""

    def _decoded(self, letter: str, features: Tensor) -> Tensor:
        found: Tensor = self.decoders[letter](features)
        return found


def _fold_constants(model: MultiTaskModel) -> None:
    """Add what `start_from` adds to the outputs to a last convolution instead: a pass less over each of them.

    In channels-last memory that addition costs as much as a convolution.
    """
    for letter in model.tasks:
        last = [layer for layer in model.decoders[letter].modules() if isinstance(layer, nn.Conv2d)][-1]
        constant = model.get_buffer(f"offset_{letter}").flatten()
        bias = torch.zeros_like(constant) if last.bias is None else last.bias.detach()
        last.bias = nn.Parameter(bias + constant)
    model.__class__ = _Folded


def frozen(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a model as attacks look at it: `fold_batch_norm`, weights without gradients, channels last in memory.

    example: an image (1, 3, H, W). Raises what `fold_batch_norm` raises.

    Measured on one CPU core, resnet18 at width 1/4 and 64x64: 1.5 times as many steps per second (benchmarks/notes.md).
    """
    folded = fold_batch_norm(model, example).requires_grad_(False)
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _run_and_pair(model: nn.Module, example: Tensor) -> tuple[dict[str, Tensor], dict[nn.BatchNorm2d, nn.Conv2d]]:
    """The model's outputs, and the convolution whose output each batch norm was given."""
    # By identity of the output, kept alive so that it is unique; with how often it was written to, since an activation
    # in place gives back the same tensor.
    feeders: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def remember(layer: Any, _: Any, output: Tensor) -> None:
        feeders[id(output)] = (layer, output, output._version)

    def match(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        conv, _, version = feeders.get(id(inputs[0]), (None, None, None))
        if conv is not None and inputs[0]._version == version:
            pairs[layer] = conv

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                hooks.callback(layer.register_forward_hook(remember).remove)
            elif isinstance(layer, nn.BatchNorm2d):
                hooks.callback(layer.register_forward_pre_hook(match).remove)
        return model(example), pairs
