"""Decoders: from an encoder's representation back to the image's resolution, one per task.

Linear outputs, no skip connections to the encoder; source: Standley et al. (2020), as used by Ghamizi et al. (2022).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstrong.models.encoders import scaled, separable


def _activated(layer: nn.Module, channels: int) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def _up(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 2, stride=2)


class ResNetDecoder(nn.Sequential):
    """Five doublings, each followed by a 3x3 convolution, the last of which gives the output.

    (B, before, H/32, W/32) -> (B, out, H, W).
    """

    def __init__(self, before: int, out: int, width: float = 1.0) -> None:
        *widths, last = (scaled(c, width) for c in (256, 128, 64, 48, 32))
        layers: list[nn.Module] = []
        for bottom, top in itertools.pairwise([before, *widths]):
            layers += _activated(_up(bottom, top), top)
            layers += _activated(nn.Conv2d(top, top, 3, padding=1), top)
        layers += _activated(_up(widths[-1], last), last)
        super().__init__(*layers, nn.Conv2d(last, out, 3, padding=1))


class XceptionDecoder(nn.Module):
    """Four doublings with separable convolutions, and a bilinear side branch that joins before the output.

    At width 1: 115,808 parameters for one output channel and 48 more for each further one.
    """

    def __init__(self, before: int, out: int, width: float = 1.0) -> None:
        super().__init__()
        side, c96, c64, c32 = (scaled(c, width) for c in (16, 96, 64, 32))
        self.side = nn.Sequential(separable(before, side, 3), nn.BatchNorm2d(side))
        self.main = nn.Sequential(
            separable(before, c96, 3),
            nn.BatchNorm2d(c96),  # no ReLU here: the published network has none
            *_activated(_up(c96, c96), c96),
            *_activated(separable(c96, c64, 3), c64),
            *_activated(_up(c64, c64), c64),
            *_activated(separable(c64, c64, 5), c64),
            *_activated(_up(c64, c32), c32),
            *_activated(separable(c32, c32, 5), c32),
            _up(c32, c32),
            nn.BatchNorm2d(c32),
        )
        self.out = separable(c32 + side, out, 5)

    def forward(self, representation: Tensor) -> Tensor:
        """(B, before, H/16, W/16) -> (B, out, H, W)."""
        main = self.main(representation)
        side = F.interpolate(self.side(representation), size=main.shape[-2:], mode="bilinear", align_corners=False)
        return self.out(F.relu(torch.cat([main, side], dim=1)))


def build_decoder(encoder: str, before: int, out: int, width: float = 1.0) -> ResNetDecoder | XceptionDecoder:
    """The decoder that goes with an encoder: `before` channels in, `out` channels at the image's resolution."""
    kind = XceptionDecoder if encoder == "xception" else ResNetDecoder
    return kind(before, out, width)
