"""Weights of published networks, counted from their descriptions layer by layer: no torch, no network built.

Ghamizi et al. (2022), supplement Table 1 (encoders of Standley et al. 2020 with a decoder per task), and the generators
of MTA, Table 7 (Poursaeed et al. 2018, with the encoder shared or not).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

CHANNELS = {"d": 1, "n": 3}  # outputs of the two tasks whose model the table's sizes are those of
RESNETS: dict[str, tuple[Sequence[int], int, int]] = {  # blocks by stage, width of the first stage, expansion
    "resnet18": ((2, 2, 2, 2), 64, 1),
    "resnet50": ((3, 4, 6, 3), 64, 4),
    "resnet152": ((3, 8, 36, 3), 64, 4),
    "wide_resnet50_2": ((3, 4, 6, 3), 128, 4),
}
UP = (256, 128, 64, 48, 32)  # widths of a decoder after each doubling of the size


def _convolution(size: int, ins: int, outs: int, *, bias: bool = False, norm: bool = True) -> int:
    """Weights of a convolution, with a batch normalisation (scale and shift) after it or a bias."""
    return size * size * ins * outs + 2 * outs * norm + outs * bias


def encoder_parameters(name: str) -> int:
    """Weights of a ResNet without its classifier; ValueError for one that is not in RESNETS."""
    if name not in RESNETS:
        raise ValueError(f"{name}: known are {', '.join(RESNETS)}")
    blocks, width, expansion = RESNETS[name]
    total, ins = _convolution(7, 3, 64), 64
    for stage, count in enumerate(blocks):
        inner, outs = width * 2**stage, 64 * 2**stage * expansion
        for block in range(count):
            if expansion == 1:
                total += _convolution(3, ins, inner) + _convolution(3, inner, outs)
            else:
                total += _convolution(1, ins, inner) + _convolution(3, inner, inner) + _convolution(1, inner, outs)
            if block == 0 and (ins != outs or stage > 0):
                total += _convolution(1, ins, outs)
            ins = outs
    return total


def decoder_parameters(features: int, channels: int) -> int:
    """Weights of one decoder: five transposed convolutions 2 x 2 and four 3 x 3 with batch normalisation, then 3 x 3.

    All have biases, those before a normalisation too.
    """
    widths = (features, *UP)
    total = sum(_convolution(2, ins, outs, bias=True) for ins, outs in pairwise(widths))
    total += sum(_convolution(3, width, width, bias=True) for width in UP[:-1])
    return total + _convolution(3, UP[-1], channels, bias=True, norm=False)


def two_task_parameters(encoder: str) -> int:
    """Weights of a model of z-depth and normals (CHANNELS); KeyError for an encoder that is not in RESNETS."""
    features = 512 * RESNETS[encoder][2]
    return encoder_parameters(encoder) + sum(decoder_parameters(features, outs) for outs in CHANNELS.values())


def generator_parameters(blocks: int, tasks: int, *, shared: bool, filters: int = 64) -> int:
    """Weights of generators for several tasks, batch normalised and without biases but in the last layer.

    shared: one encoder (down-sampling and residual blocks) for all tasks (MTA), or one for each (GAP).
    """
    wide = 4 * filters
    encoder = _convolution(7, 3, filters) + _convolution(3, filters, 2 * filters) + _convolution(3, 2 * filters, wide)
    encoder += 2 * blocks * _convolution(3, wide, wide)
    decoder = _convolution(3, wide, 2 * filters) + _convolution(3, 2 * filters, filters)
    decoder += _convolution(7, filters, 3, bias=True, norm=False)
    return encoder * (1 if shared else tasks) + decoder * tasks
