"""Trunks that tasks share in part: dilated ResNet-34 and MobileNetV2 in five coarse stages, copied by a layout.

The networks are those of TreeMTL (Zhang, Liu, Guan 2022), which DGBA attacks. `headstrong.layouts` says what a layout
is. A stage is computed once for all tasks of its block, and only if one of them is wanted.

Departures from the released networks: the pooling of ResNet-34's stem rounds its size down, not up, so that the stride
is 8 everywhere; and all copies of a stage start from the same weights, so that all layouts start as the same functions
and differ only in what they can learn apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from headstrong.layouts import Layout
from headstrong.models.blocks import BasicBlock
from headstrong.models.encoders import scaled

STRIDES = {"resnet34": 8, "mobilenet_v2": 32}

# Layers of each coarse stage, from and to: by residual block after the stem, and by torchvision's `features`. TreeMTL
# counts MobileNetV2's blocks more finely, each convolution of a block without shortcut on its own: its coarse points
# {0-6}, {7-17}, {18-22}, {23-30}, {31} are these.
STAGES = {
    "resnet34": ((0, 1), (1, 4), (4, 8), (8, 14), (14, 17)),
    "mobilenet_v2": ((0, 4), (4, 11), (11, 14), (14, 18), (18, 19)),
}

_RESNET34 = ((3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 1, 2), (3, 512, 1, 4))  # blocks, channels, first stride, dilation
# expansion, channels, blocks, first stride: table 2 of Sandler et al. (2018)
_MOBILENET = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip

Factory = Callable[[], nn.Module]


def build_stage(name: str, level: int, width: float = 1.0) -> nn.Sequential:
    """One coarse stage of a branched encoder's trunk, freshly initialised; level 0 is the one that sees the image.

    Convolutions start normal with standard deviation 0.01, as released; the batch norms behind them make their scale
    immaterial.
    """
    layers = _resnet34(width) if name == "resnet34" else _mobilenet(width)
    first, last = STAGES[name][level]
    stage = nn.Sequential(*(make() for make in layers[first:last]))
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
    return stage


def trunk_channels(name: str, width: float = 1.0) -> int:
    """Channels of the representation that a trunk gives."""
    return scaled({"resnet34": 512, "mobilenet_v2": 1280}[name], width)


class BranchedTrunk(nn.Module):
    """Copies of five stages, one for each block of a layout; `levels[level][letters]` is the one that letters share."""

    def __init__(self, stages: Sequence[nn.Module], layout: Layout, tasks: str) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleDict({"".join(tasks[task] for task in block): copy.deepcopy(stage) for block in partition})
            for stage, partition in zip(stages, layout, strict=True)
        )

    def forward(self, images: Tensor, tasks: str) -> dict[str, Tensor]:
        """Representations (B, channels, H / stride, W / stride) by letter of `tasks`; images (B, 3, H, W)."""
        found = dict.fromkeys(tasks, images)
        for level in self.levels:
            reached: dict[str, Tensor] = {}
            for block, stage in level.items():  # type: ignore[operator]
                wanted = [letter for letter in tasks if letter in block]
                if wanted:  # they have shared all stages so far, too: partitions only refine
                    reached |= dict.fromkeys(wanted, stage(found[wanted[0]]))
            found = reached
        return found


def _resnet34(width: float) -> list[Factory]:
    before = scaled(64, width)
    layers: list[Factory] = [lambda: _stem(scaled(64, width))]
    for position, (blocks, channels, stride, dilation) in enumerate(_RESNET34):
        after = scaled(channels, width)
        for index in range(blocks):
            # The released rule (stride, width or a dilation of 2 or 4) holds for the first block of a layer only.
            first = index == 0
            layers.append(_later(BasicBlock, before, after, stride if first else 1, dilation, first and position > 0))
            before = after
    return layers


def _stem(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def _mobilenet(width: float) -> list[Factory]:
    before = scaled(32, width)
    layers: list[Factory] = [_later(_convolution, 3, before, 3, 2)]
    for expansion, channels, blocks, stride in _MOBILENET:
        after = scaled(channels, width)
        for index in range(blocks):
            layers.append(_later(_inverted, before, after, stride if index == 0 else 1, expansion, index > 0))
            before = after
    layers.append(_later(_convolution, before, scaled(1280, width), 1, 1))
    return layers


def _convolution(before: int, after: int, kernel: int, stride: int) -> nn.Module:
    from torchvision.ops.misc import Conv2dNormActivation  # late, as below: the other encoders do without torchvision

    return Conv2dNormActivation(before, after, kernel, stride, activation_layer=nn.ReLU6)


def _inverted(before: int, after: int, stride: int, expansion: int, shortcut: bool) -> nn.Module:
    from torchvision.models.mobilenetv2 import InvertedResidual

    block = InvertedResidual(before, after, stride, expansion)
    block.use_res_connect = shortcut  # small widths round to equal channels where the network has no shortcut
    return block


def _later(make: Callable[..., nn.Module], *arguments: object) -> Factory:
    return lambda: make(*arguments)
