"""MTAN: a shared SegNet, and for each task an attention that selects from its features at every stage.

Source: Liu et al. (2019), "End-to-End Multi-Task Learning with Attention", section 3 and figure 2. A stage's mask comes
from what the task has selected so far and from an early layer of the shared stage, through two 1x1 convolutions, and is
multiplied with the stage's last layer. The 3x3 convolutions that carry a selection to the next stage are common to all
tasks, as in the released network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstrong.models.segnet import STRIDE, SegNet, convolution, stage_channels


class MTANTrunk(nn.Module):
    """Images to one representation (B, channels, H, W) per task."""

    stride = STRIDE

    def __init__(self, tasks: str, width: float = 1.0) -> None:
        super().__init__()
        self.shared = SegNet(width)
        self.channels = self.shared.channels
        sizes = stage_channels(width)
        after = (*sizes[1:], sizes[-1])  # an encoder's selection leaves with the channels of the stage below
        self.carry_down = nn.ModuleList(convolution(size, next_) for size, next_ in zip(sizes, after, strict=True))
        above = (sizes[0], *sizes[:-1])
        self.carry_up = nn.ModuleList(convolution(size, last) for size, last in zip(sizes, above, strict=True))
        self.attention = nn.ModuleDict({letter: _Attention(sizes) for letter in tasks})

    def forward(self, images: Tensor, tasks: str) -> dict[str, Tensor]:
        """Representations (B, channels, H, W) by letter of `tasks`; images (B, 3, H, W)."""
        stages = self.shared.stages(images)
        return {letter: self._selected(letter, stages) for letter in tasks}

    def _selected(self, letter: str, stages: list[tuple[Tensor, list[Tensor]]]) -> Tensor:
        own: Any = self.attention[letter]
        depth = len(self.carry_down)
        x = seen = stages[0][1][0]
        for level in range(depth):
            layers = stages[level][1]
            if level:
                seen = torch.cat([layers[0], x], dim=1)
            x = F.max_pool2d(self.carry_down[level](own.down[level](seen) * layers[-1]), 2)
        for level in reversed(range(depth)):
            given, layers = stages[2 * depth - 1 - level]
            x = self.carry_up[level](F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
            x = own.up[level](torch.cat([given, x], dim=1)) * layers[-1]
        return x


class _Attention(nn.Module):
    """The masks of one task, for the five stages down and the five up."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        before = (sizes[0], *(2 * size for size in sizes[1:]))
        self.down = nn.ModuleList(_mask(seen, size) for seen, size in zip(before, sizes, strict=True))
        above = (sizes[0], *sizes[:-1])
        self.up = nn.ModuleList(_mask(size + last, last) for size, last in zip(sizes, above, strict=True))


def _mask(before: int, after: int) -> nn.Sequential:
    """Two 1x1 convolutions with batch norm; a sigmoid at the end."""
    return nn.Sequential(
        nn.Conv2d(before, after, 1),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 1),
        nn.BatchNorm2d(after),
        nn.Sigmoid(),
    )
