"""SegNet for several tasks at once, as MTA's victim DMTL: one network up to its heads.

Source: Badrinarayanan et al. (2017), "SegNet", in the form in which Liu et al. (2019) split it between tasks: an
encoder of thirteen 3x3 convolutions in five stages, each ended by a maximum pooling whose places are remembered, and a
decoder that mirrors it. With 13 classes, depth and normals it has 25.06 million parameters at width 1.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstrong.models.encoders import scaled

CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 3, 3, 3)
STRIDE = 32
Module = TypeVar("Module", bound=nn.Module)


class SegNet(nn.Module):
    """The shared part: images (B, 3, H, W) to `channels` maps of the same resolution."""

    stride = STRIDE

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        sizes = stage_channels(width)
        self.channels = sizes[0]
        before = (3, *sizes[:-1])
        self.down = nn.ModuleList(
            nn.ModuleList(_stage(first, size, count))
            for first, size, count in zip(before, sizes, CONVOLUTIONS, strict=True)
        )
        after = (sizes[0], *sizes[:-1])  # a decoder stage ends with the channels of the stage above
        self.up = nn.ModuleList(
            nn.ModuleList(_stage(size, last, count))
            for size, last, count in zip(sizes, after, CONVOLUTIONS, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H, W)."""
        return self.stages(x)[-1][1][-1]

    def stages(self, x: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """What goes into each of the ten stages, and what each of its convolutions gives; MTAN looks at them.

        x: (B, 3, H, W). The features of stage k of the five down, and those of the k-th last of the five up, are
        (B, C, H / 2^k, W / 2^k), k from 0.
        """
        seen: list[tuple[Tensor, list[Tensor]]] = []
        places: list[Tensor] = []
        for stage in self.down:
            found = _run(stage, x)
            seen.append((x, found))
            x, place = F.max_pool2d(found[-1], 2, return_indices=True)
            places.append(place)
        for stage, place in zip(reversed(self.up), reversed(places), strict=True):
            x = unpool(x, place)
            found = _run(stage, x)
            seen.append((x, found))
            x = found[-1]
        return seen


def _run(stage: nn.Module, x: Tensor) -> list[Tensor]:
    found = []
    for layer in stage.children():
        x = layer(x)
        found.append(x)
    return found


def stage_channels(width: float) -> tuple[int, ...]:
    """Channels of the five encoder stages."""
    return tuple(scaled(channels, width) for channels in CHANNELS)


def convolution(before: int, after: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _stage(before: int, after: int, count: int) -> list[nn.Module]:
    return [convolution(before if index == 0 else after, after) for index in range(count)]


def unpool(x: Tensor, places: Tensor) -> Tensor:
    """Undo a 2x2 pooling: (B, C, H, W) to (B, C, 2 H, 2 W), each value at its place, 0 elsewhere.

    torch's own has no deterministic kernel on CUDA; the places of one map are all different, so a scatter is exact.
    """
    batch, channels, height, width = x.shape
    flat = torch.zeros(batch, channels, 4 * height * width, dtype=x.dtype, device=x.device)
    return flat.scatter(2, places.flatten(2), x.flatten(2)).view(batch, channels, 2 * height, 2 * width)


def segnet_head(before: int, out: int) -> nn.Sequential:
    """A task's own layers: a 3x3 and a 1x1 convolution with nothing between them."""
    return nn.Sequential(nn.Conv2d(before, before, 3, padding=1), nn.Conv2d(before, out, 1))


def initialise_xavier(module: Module) -> Module:
    """MTAN's released initialisation, in place: convolutions Xavier normal, their offsets 0, batch norm 1 and 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return module
