"""Encoders: ResNet trunks and a small Xception, trained from scratch.

The networks are those of Standley et al. (2020), "Which Tasks Should Be Learned Together in Multi-task Learning?", as
Ghamizi et al. (2022) use them. An encoder maps (B, 3, H, W) to (B, channels, H / stride, W / stride).
"""

from __future__ import annotations

from torch import Tensor, nn

from headstrong.models.blocks import BasicBlock, Bottleneck

RESNETS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int], int]] = {
    # name: kind of block, blocks per stage, width of a bottleneck's inner layers (64: as wide as the stage)
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 64),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 128),
}
ENCODERS = (*RESNETS, "xception")


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8, at least 8. Width 1 changes nothing here."""
    return max(8, round(channels * width / 8) * 8)


class ResNetEncoder(nn.Module):
    """A ResNet without its pooling and classifier: `channels` maps at a 32nd of the resolution."""

    stride = 32

    def __init__(self, name: str, width: float = 1.0) -> None:
        super().__init__()
        block, counts, base_width = RESNETS[name]
        self.channels = scaled(64, width)
        self.stem = nn.Sequential(
            nn.Conv2d(3, self.channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        stages = []
        for position, count in enumerate(counts):
            planes = scaled(64 * 2**position, width)
            for index in range(count):
                stride = 2 if index == 0 and position > 0 else 1
                stages.append(self._block(block, planes, stride, base_width))
        self.blocks = nn.Sequential(*stages)

    def _block(self, block: type[BasicBlock | Bottleneck], planes: int, stride: int, base_width: int) -> nn.Module:
        before, after = self.channels, planes * block.expansion
        self.channels = after
        project = stride != 1 or before != after
        if issubclass(block, Bottleneck):
            return block(before, planes * base_width // 64, after, stride, project=project)
        return block(before, after, stride, project=project)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H/32, W/32)."""
        return self.blocks(self.stem(x))


def separable(before: int, after: int, kernel: int) -> nn.Sequential:
    """A depthwise convolution of the given kernel size, then a pointwise one; no biases, same resolution."""
    return nn.Sequential(
        nn.Conv2d(before, before, kernel, padding=kernel // 2, groups=before, bias=False),
        nn.Conv2d(before, after, 1, bias=False),
    )


class XceptionBlock(nn.Module):
    """Two separable convolutions beside a shortcut; with `stride` 2, both halve the resolution.

    The residual branch shrinks by a full 2x2 convolution, as in the published small network, not by pooling.
    """

    def __init__(self, before: int, after: int, stride: int = 1, first_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReLU()] if first_relu else []  # not in place: the shortcut reads the input too
        layers += [separable(before, after, 3), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        layers += [separable(after, after, 3), nn.BatchNorm2d(after)]
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            layers.append(nn.Conv2d(after, after, stride, stride=stride))
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))
        self.residual = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H/stride, W/stride)."""
        return self.residual(x) + self.shortcut(x)


class XceptionEncoder(nn.Module):
    """The small Xception of Standley et al.: 256 maps at a 16th of the resolution, 4,089,192 parameters at width 1."""

    stride = 16

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        stem1, stem2, first, second, body, self.channels = (scaled(c, width) for c in (24, 48, 96, 192, 512, 256))
        self.layers = nn.Sequential(
            nn.Conv2d(3, stem1, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(stem1),
            nn.ReLU(inplace=True),
            nn.Conv2d(stem1, stem2, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem2),
            nn.ReLU(inplace=True),
            XceptionBlock(stem2, first, stride=2, first_relu=False),
            XceptionBlock(first, second, stride=2),
            XceptionBlock(second, body, stride=2),
            *(XceptionBlock(body, body) for _ in range(4)),
            separable(body, self.channels, 3),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H/16, W/16)."""
        return self.layers(x)


def build_encoder(name: str, width: float = 1.0) -> ResNetEncoder | XceptionEncoder:
    """The encoder of that name; `.channels` and `.stride` describe its output."""
    return XceptionEncoder(width) if name == "xception" else ResNetEncoder(name, width)
