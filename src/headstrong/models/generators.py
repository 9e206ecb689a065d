"""Networks that make perturbations: GAP's generator, and MTA's with one encoder for all tasks and a decoder for each.

Source: Poursaeed et al. (2018), "Generative Adversarial Perturbations", whose network is the ResNet generator of
Johnson et al. (2016); Guo et al. (2020), "Multi-Task Adversarial Attack", section 3.1, splits it behind its residual
blocks. With 64 filters and batch norm, MTA's Table 7 gives the numbers of parameters (in units of ten million).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstrong.models.aspp import SeededDropout
from headstrong.models.seeding import seeded
from headstrong.seeds import derive_seed

NORMALIZATIONS = ("batch", "instance")
ACTIVATIONS = ("relu", "selu")
STRIDE = 4
SPREAD = 0.02  # standard deviation of the initial weights
LARGEST_DROPOUT = 255 / 256

Normalize = Callable[[int], nn.Module]


class ReflectionPad(nn.Module):
    """Mirror the border `width` pixels outwards, the border itself once: reflection padding with equal bits everywhere.

    torch's has no deterministic gradient on CUDA (its documentation of `use_deterministic_algorithms`); there the image
    is put together from parts. On a CPU torch's is deterministic, and 2 to 4 times as fast as the parts.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H + 2 width, W + 2 width)."""
        return reflected(x, self.width) if x.is_cuda else F.pad(x, [self.width] * 4, mode="reflect")


def reflected(x: Tensor, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2 width, W + 2 width), mirrored by flips and concatenations: gradients are sums in a
    fixed order. H and W must exceed `width`."""
    x = torch.cat([x[:, :, 1 : width + 1].flip(2), x, x[:, :, -width - 1 : -1].flip(2)], dim=2)
    return torch.cat([x[..., 1 : width + 1].flip(3), x, x[..., -width - 1 : -1].flip(3)], dim=3)


class ResidualBlock(nn.Module):
    """x + F(x), F two 3x3 convolutions; nothing after the sum."""

    def __init__(self, channels: int, normalize: Normalize, bias: bool, dropout: nn.Module | None) -> None:
        super().__init__()
        middle = [] if dropout is None else [dropout]
        self.layers = nn.Sequential(
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            normalize(channels),
            nn.ReLU(inplace=True),
            *middle,
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            normalize(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.layers(x)


class Generators(nn.Module):
    """Generators of the perturbations of several tasks.

    shared=False: GAP, a whole generator per task. shared=True: MTA, one encoder (downsampling and residual blocks) and
    a decoder per task. running_statistics=False makes batch norm always use the statistics of its batch: of a universal
    generator's pattern, which never changes. `dropout` is the share that residual blocks leave out, to a 256th.

    `seed` decides the weights, part by part, whatever torch's own random state: each encoder and decoder by its place
    in `tasks`, which are names of any kind. So GAP's encoders start apart from one another; MTA's starts as GAP's first
    whatever the tasks, its decoders as GAP's; and for one task both methods are the same network with the same weights.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        shared: bool,
        filters: int = 64,
        blocks: int = 6,
        normalization: str = "batch",
        activation: str = "relu",
        dropout: float = 0.0,
        running_statistics: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tasks, self.shared = tuple(tasks), shared
        make = _Parts(filters, blocks, normalization, activation, dropout, running_statistics, seed)
        # Numbered, since a module's name may not hold a dot and a domain's may.
        self.encoders = nn.ModuleList(make.encoder(number) for number in range(1 if shared else len(self.tasks)))
        self.decoders = nn.ModuleList(make.decoder(number) for number in range(len(self.tasks)))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw perturbations (B_t, 3, H, W) in [-1, 1] by task, from inputs (B_t, 3, H, W), H and W multiples of 4.

        A shared encoder sees the batches of all tasks as one: batch norm's averages describe their mixture.
        """
        given = [inputs[task] for task in self.tasks]
        if self.shared:
            codes = self.encoders[0](torch.cat(given)).split([len(images) for images in given])
        else:
            codes = [encoder(images) for encoder, images in zip(self.encoders, given, strict=True)]
        return self._decoded(codes)

    def together(self, images: Tensor) -> dict[str, Tensor]:
        """The same for tasks that share their images (B, 3, H, W): a shared encoder runs once."""
        if not self.shared:
            return self(dict.fromkeys(self.tasks, images))
        return self._decoded([self.encoders[0](images)] * len(self.tasks))

    def _decoded(self, codes: Sequence[Tensor]) -> dict[str, Tensor]:
        made = [decoder(code) for decoder, code in zip(self.decoders, codes, strict=True)]
        return dict(zip(self.tasks, made, strict=True))


class _Parts:
    """Makes encoders and decoders, each from a seed of its own."""

    def __init__(
        self,
        filters: int,
        blocks: int,
        normalization: str,
        activation: str,
        dropout: float,
        running_statistics: bool,
        seed: int,
    ) -> None:
        self._n, self._blocks, self._dropout, self._seed = filters, blocks, dropout, seed
        self._bias = normalization == "instance"  # batch norm has an offset of its own

        def normalize(channels: int) -> nn.Module:
            if normalization == "instance":
                return nn.InstanceNorm2d(channels)
            return nn.BatchNorm2d(channels, track_running_stats=running_statistics)

        self._normalize: Normalize = normalize
        self._activate = nn.SELU if activation == "selu" else nn.ReLU

    def encoder(self, number: int) -> nn.Sequential:
        n, bias = self._n, self._bias
        with seeded(self._seed, "generator", "encoder", number):
            layers = [
                ReflectionPad(3),
                nn.Conv2d(3, n, 7, bias=bias),
                *self._after(n),
                nn.Conv2d(n, 2 * n, 3, stride=2, padding=1, bias=bias),
                *self._after(2 * n),
                nn.Conv2d(2 * n, 4 * n, 3, stride=2, padding=1, bias=bias),
                *self._after(4 * n),
                *(
                    ResidualBlock(4 * n, self._normalize, bias, self._drop(number, index))
                    for index in range(self._blocks)
                ),
            ]
            return _initialise(nn.Sequential(*layers))

    def decoder(self, number: int) -> nn.Sequential:
        n, bias = self._n, self._bias
        with seeded(self._seed, "generator", "decoder", number):
            return _initialise(
                nn.Sequential(
                    nn.ConvTranspose2d(4 * n, 2 * n, 3, stride=2, padding=1, output_padding=1, bias=bias),
                    *self._after(2 * n),
                    nn.ConvTranspose2d(2 * n, n, 3, stride=2, padding=1, output_padding=1, bias=bias),
                    *self._after(n),
                    ReflectionPad(3),
                    nn.Conv2d(n, 3, 7),
                    nn.Tanh(),
                )
            )

    def _after(self, channels: int) -> tuple[nn.Module, nn.Module]:
        return self._normalize(channels), self._activate(inplace=True)

    def _drop(self, number: int, index: int) -> nn.Module | None:
        if not self._dropout:
            return None
        share = min(self._dropout, LARGEST_DROPOUT)  # the dropout rounds to a 256th, and something has to pass
        return SeededDropout(derive_seed(self._seed, "dropout", number, index), share)


def count_parameters(module: nn.Module) -> int:
    """Numbers that training changes, buffers not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


def _initialise(part: nn.Sequential) -> nn.Sequential:
    """GAP's initialisation, in place, normal with standard deviation 0.02: convolutions about 0, batch norm about 1."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=SPREAD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=SPREAD)
            nn.init.zeros_(layer.bias)
    return part
