"""Heads of branched networks: atrous spatial pyramids, as DeepLab has them, with dropout that can be resumed.

Source: TreeMTL's and DGBA's released networks. Two departures. The output is upsampled to the image's size, bilinearly,
where TreeMTL compares at the head's own resolution: all models here answer at the resolution of their targets.
Dropout draws from seeds of its own and not from torch's random state, so that a resumed training has the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstrong.models.encoders import scaled
from headstrong.seeds import derive_seed

RATES = (6, 12, 18, 24)
HIDDEN = 1024


class SeededDropout(nn.Module):
    """Dropout, in training only: of one half, each number becomes 0 or twice itself, with equal chance. Another `share`
    is rounded to a 256th.

    The mask of a call follows from the seed and the number of calls before it; both are part of the state dict. One
    generator on the activations' device makes it, so the bits depend on the kind of device, as all of a training's do.
    Measured on one CPU core, 16x256x8x8 numbers, channels last, forward and backward: 0.4 ms; torch's dropout 3.8 ms.
    """

    def __init__(self, seed: int, share: float = 0.5) -> None:
        super().__init__()
        self.seed, self.calls, self.dropped = seed, 0, round(256 * share)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if not self.training:
            return x
        generator = torch.Generator(x.device).manual_seed(derive_seed(self.seed, self.calls))
        self.calls += 1
        # A draw gives eight bytes, each of which decides about one number.
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        draws = words.random_(-(2**63), None, generator=generator).view(torch.uint8)[: x.numel()]
        batch, channels, height, width = x.shape
        # Drawn in channels-last order, in which the training keeps its activations: the mask is the same for any other.
        draws = draws.view(batch, height, width, channels).permute(0, 3, 1, 2)
        if self.dropped == 128:
            return x * (draws & 2).to(x.dtype)
        return x * (draws >= self.dropped).to(x.dtype) * (256 / (256 - self.dropped))

    def get_extra_state(self) -> Tensor:
        """Seed and calls, int64 (2,): on the CPU whatever the device, so that no call waits for a GPU."""
        return torch.tensor([self.seed, self.calls], dtype=torch.int64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse of `get_extra_state`."""
        self.seed, self.calls = (int(number) for number in state)


class DilatedConvolution(nn.Conv2d):
    """A 3x3 convolution of the same resolution that leaves out what its padding multiplies by zero.

    Where the dilation reaches beyond the representation, only the middle of the kernel meets it. Such are three of four
    branches on ResNet-34 at 64x64 images: the same result, and a training step is 1.3 times as fast on a CPU.
    """

    def __init__(self, before: int, after: int, rate: int) -> None:
        super().__init__(before, after, 3, padding=rate, dilation=rate)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H, W)."""
        kernel, padding = self.weight, [self.rate, self.rate]
        for axis in (0, 1):
            if self.rate >= x.shape[2 + axis]:
                kernel, padding[axis] = kernel.narrow(2 + axis, 1, 1), 0
        return F.conv2d(x, kernel, self.bias, padding=padding, dilation=self.rate)


class ASPPHead(nn.Module):
    """The sum of four branches that look at the representation with dilations 6, 12, 18 and 24.

    A branch: 3x3 convolution, ReLU, dropout, 1x1 convolution, ReLU, dropout, 1x1 convolution; 1024 channels inside at
    width 1. All start as torch starts convolutions, which the released heads do too. `outputs` are the last ones.
    """

    def __init__(self, before: int, out: int, stride: int, width: float, seed: int) -> None:
        super().__init__()
        self.stride = stride
        hidden = scaled(HIDDEN, width)
        self.dropout = SeededDropout(seed)
        self.dilated = nn.ModuleList(DilatedConvolution(before, hidden, rate) for rate in RATES)
        self.inner = nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in RATES)
        self.outputs = nn.ModuleList(nn.Conv2d(hidden, out, 1) for _ in RATES)

    def forward(self, representation: Tensor) -> Tensor:
        """(B, before, H / stride, W / stride) -> (B, out, H, W)."""
        branches = zip(self.dilated, self.inner, self.outputs, strict=True)
        low = sum(
            output(self._activated(inner, self._activated(dilated, representation)))
            for dilated, inner, output in branches
        )
        return F.interpolate(low, scale_factor=self.stride, mode="bilinear", align_corners=False)

    def _activated(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.dropout(F.relu(layer(x), inplace=True))
