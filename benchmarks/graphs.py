"""A training step and a step of PGD as CUDA graphs: recorded once, replayed without Python in between.

Only a benchmark: the studies make their steps one by one. What is compared starts from the same weights or images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.attacking import plain_step
from benchmarks.scene import Scene
from headstrong.attacks.run import Losses
from headstrong.data.batches import Batch, Batches
from headstrong.data.cache import SplitFile
from headstrong.models import MultiTaskModel, build_model, use_channels_last
from headstrong.training import train_step

WARM_UP = 3  # steps before recording, on a stream of their own, as CUDA asks for


class RecordableStep:
    """A training step on one batch, with an optimiser that can be recorded, and what it started from."""

    def __init__(self, scene: Scene, batch: int) -> None:
        with SplitFile(scene.train_file) as split:
            model = build_model("resnet18", scene.tasks, len(split.classes), scene.width)
        self.job = scene.job
        self.model: MultiTaskModel = use_channels_last(model.to(scene.device)).train()
        capturable = scene.device != "cpu"
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=self.job.learning_rate, fused=True, capturable=capturable
        )
        served = Batches(scene.train_file, scene.tasks, scene.device)
        self.batch: Batch = served.get(torch.arange(batch) % served.count)
        self._start = copy.deepcopy(self.model.state_dict())

    def __call__(self) -> Tensor:
        return train_step(self.job, self.model, self.optimizer, self.batch, None)

    @torch.no_grad()
    def restart(self) -> None:
        """Weights and the optimiser's numbers as they were, in the same memory."""
        for name, value in self.model.state_dict().items():
            value.copy_(self._start[name])
        for state in self.optimizer.state.values():
            for number in state.values():
                if isinstance(number, Tensor):
                    number.zero_()


def recorded(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A replay of the work, and the tensor that it leaves its result in. Raises what CUDA raises where it cannot be."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()
    return graph.replay, result


def losses_of_steps(
    step: RecordableStep, replay: Callable[[], Any] | None, result: Tensor | None, steps: int
) -> Tensor:
    """Losses (steps, T) of so many steps from the start, step by step or replayed."""
    step.restart()
    found = []
    for _ in range(steps):
        if replay is None:
            found.append(step().clone())
        else:
            replay()
            assert result is not None
            found.append(result.clone())
    return torch.stack(found)


class RecordableAttack:
    """Steps of PGD in memory that stays: `points` move, `clean` is where they started."""

    def __init__(self, losses: Losses, images: Tensor, steps: int) -> None:
        self.losses, self.clean, self.points, self.steps = losses, images, images.clone(), steps

    def step(self) -> Tensor:
        """One step; `points` moves in place."""
        return self.points.copy_(plain_step(self.losses, self.clean, self.points))

    def run(self, step: Callable[[], Any]) -> Tensor:
        """All steps from the clean images."""
        self.points.copy_(self.clean)
        for _ in range(self.steps):
            step()
        return self.points
