"""Residual blocks of ResNet (He et al. 2016), with dilation: torchvision's block of two convolutions refuses it.

They compute what torchvision's compute (tested), from parameters of the same names. Being without torchvision also
spares every job its import, a second and a half of the five that a job takes to start (benchmarks/notes.md).
"""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, both dilated by `dilation`, beside a shortcut, a 1x1 convolution if `project`."""

    expansion = 1

    def __init__(self, before: int, after: int, stride: int = 1, dilation: int = 1, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(before, after, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride). `x` is left as it is: other blocks may read it."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + self.downsample(x))


class Bottleneck(nn.Module):
    """A 1x1, a strided 3x3 and a 1x1 convolution beside a shortcut; `inner` channels between, `after` at the end."""

    expansion = 4

    def __init__(self, before: int, inner: int, after: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(before, after, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride). `x` is left as it is."""
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        return self.relu(self.bn3(self.conv3(inner)) + self.downsample(x))


def projection(before: int, after: int, stride: int) -> nn.Sequential:
    """The shortcut where the shape changes: a 1x1 convolution and a batch norm."""
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
