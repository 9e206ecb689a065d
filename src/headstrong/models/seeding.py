"""Weights that follow from a seed, part by part, whatever torch's own random state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from headstrong.seeds import derive_seed


@contextlib.contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Within it, torch draws from the seed derived from `parts` on the CPU; afterwards from where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(*parts))  # torch.manual_seed would seed GPUs too
        yield
