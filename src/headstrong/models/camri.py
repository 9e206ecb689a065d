"""The network of the CAMRI paper's code for CIFAR-10, and the layer of cosines that its losses need.

Nishiyama et al., IJCNN 2022 (arXiv 2209.10920). All convolutions are 3 x 3 and keep the size; BN: batch normalisation.

    64, 64, BN, 64, pool, dropout | 128, 128, BN, 128, pool, dropout | 256, 256, BN, 256, 256, 256, BN | 512, 512, mean

The 512-wide feature that follows it, a linear layer and batch normalisation, is `Classifier`'s. Batch normalisation has
torch's momentum and epsilon here, the official code Keras's (0.99 and 0.001).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstrong.models.encoders import scaled

DROPOUT = 0.25
_NORM, _POOL = "norm", "pool"
_LAYERS: tuple[int | str, ...] = (
    64, 64, _NORM, 64, _POOL, 128, 128, _NORM, 128, _POOL, 256, 256, _NORM, 256, 256, 256, _NORM, 512, 512,
)  # fmt: skip


class CamriNetwork(nn.Sequential):
    """(B, 3, H, W) in [0, 1] to (B, channels), the means over the last maps; `width`: factor on every channel count."""

    def __init__(self, width: float = 1.0) -> None:
        layers: list[nn.Module] = []
        before = 3
        for kind in _LAYERS:
            if kind == _NORM:
                layers.append(nn.BatchNorm2d(before))
            elif kind == _POOL:
                layers += [nn.MaxPool2d(2), nn.Dropout(DROPOUT)]
            else:
                after = scaled(int(kind), width)
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
                before = after
        super().__init__(*layers)
        self.channels = before

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels)."""
        return super().forward(x).mean(dim=(2, 3))


class CosineLayer(nn.Module):
    """(B, F) to the cosines (B, C) of the angles between features and the weight vectors (C, F); no bias.

    Always in float32: an angle's derivative is large near 0, and bfloat16 has three digits.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> float32 (B, C), in [-1, 1] up to rounding; 0 for a feature of length 0."""
        if features.is_meta:  # a trial of shapes; torch has no autocast there
            return cosines(features, self.weight)
        with torch.autocast(features.device.type, enabled=False):
            return cosines(features, self.weight)


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """Cosines float32 (B, C) of the angles between features (B, F) and weight vectors (C, F); 0 of length 0."""
    return functional.linear(functional.normalize(features.float(), dim=1), functional.normalize(weight.float(), dim=1))
