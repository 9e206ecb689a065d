"""The loop that every training shares: epochs of steps, a rolling checkpoint, exact resume, a log, a history.

What a step does is the caller's. It must draw its random numbers from seeds derived from epoch and step, and keep its
state in the model and the optimiser: then a run that was killed goes on with the same bits.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstrong.checkpoints import Progress, RollingCheckpoint
from headstrong.errors import DivergedError
from headstrong.jobs import Schedule

CHECK_EVERY = 20  # steps between two looks at the losses: each look makes a GPU wait
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One training run.

    name: starts every message, e.g. "model five-resnet18-sdDnE". steps: per epoch. images: per step, for the log.
    columns: (kind, task) of each loss a step returns, e.g. ("adversarial_loss", "s"). learning_rate: the rate of the
    step that follows this number of whole epochs and of steps since the start.
    """

    name: str
    epochs: int
    steps: int
    images: int
    columns: tuple[tuple[str, str], ...]
    learning_rate: Callable[[int, int], float]

    @property
    def header(self) -> list[str]:
        """The columns of history.csv."""
        return ["epoch", "learning_rate", *(f"{kind}_{task}" for kind, task in self.columns)]


# (epochs done, steps done in this one) -> losses before the step, detached; or these and which of them are known, bool
Step = Callable[[int, int], Tensor | tuple[Tensor, Tensor]]


def train_run(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Step,
    finish: Callable[[str], None],
    *,
    work: Path,
    digest: str,
    device: torch.device | str,
    minutes: float,
    kept: Mapping[int, Path] | None = None,
    keep: Callable[[Path, int], None] | None = None,
    start: Callable[[], None] | None = None,
) -> None:
    """Make all steps of a run, from where its checkpoint in `work` is, and let `finish` write what comes of it.

    finish: gets history.csv as text: per epoch the learning rate of its last step and the mean of each column. digest:
    of all that decides the bits; a checkpoint of another is not used. minutes: between checkpoints; 0: after every
    step. kept, keep: at the end of these epochs `keep(path, epoch)` writes the model to that path; the files count as
    part of the checkpoint. start: called once before the first step of a run without a checkpoint. SIGTERM and
    SIGINT wait for a checkpoint and, at the end, for `finish`. The checkpoint is removed at success. A loss that a step
    does not know, because no image of its batch has a label for the task, counts in no mean; the mean of an epoch
    without any is NaN.

    Raises DivergedError, and removes the checkpoint, when a loss is not a number or `finish` or `keep` raise it.
    """
    losses = torch.zeros(run.steps, len(run.columns), device=device)
    progress = Progress(losses=losses, known=torch.ones_like(losses, dtype=torch.bool))
    kept = dict(kept or {})
    rolling = RollingCheckpoint(work / "last.ckpt", digest, model, optimizer, progress, minutes=minutes, kept=kept)
    if rolling.restore():
        done = (progress.epoch, progress.step, run.steps)
        log.info("%s: goes on after %d epochs and %d of %d steps", run.name, *done)
    elif start is not None:
        start()
    try:
        with rolling:
            with _Reporter(run, progress) as reporter:
                while progress.epoch < run.epochs:
                    _train_epoch(run, optimizer, step, progress, rolling, reporter)
                    if keep is not None and progress.epoch in kept:
                        keep(kept[progress.epoch], progress.epoch)
            finish(_history_csv(run, progress))
    except DivergedError:
        rolling.remove()
        raise
    rolling.remove()


def _train_epoch(
    run: Run,
    optimizer: torch.optim.Optimizer,
    step: Step,
    progress: Progress,
    rolling: RollingCheckpoint,
    reporter: _Reporter,
) -> None:
    """The rest of the epoch that `progress` is in."""
    before = progress.epoch * run.steps
    rate = run.learning_rate(progress.epoch, before + max(0, progress.step - 1))  # of the last step, if all are done
    while progress.step < run.steps:
        rate = run.learning_rate(progress.epoch, before + progress.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        found = step(progress.epoch, progress.step)
        losses, known = found if isinstance(found, tuple) else (found, torch.ones_like(found, dtype=torch.bool))
        progress.losses[progress.step], progress.known[progress.step] = losses, known
        progress.step += 1
        reporter.step_done()
        due = rolling.due()
        if due or progress.step == run.steps or progress.step % CHECK_EVERY == 0:
            _check_losses(run, progress, rate)
        if due:
            rolling.save()
    means = _means(progress).tolist()
    progress.history.append([progress.epoch + 1, rate, *means])
    progress.epoch, progress.step = progress.epoch + 1, 0
    reporter.epoch_done(progress.epoch, means)


def _means(progress: Progress) -> Tensor:
    """Mean (columns,) of an epoch's losses over the steps where each is known; NaN where none is."""
    losses = torch.where(progress.known, progress.losses, 0).double()
    return losses.mean(dim=0) * (len(losses) / progress.known.sum(dim=0).double())


def _check_losses(run: Run, progress: Progress, rate: float) -> None:
    """DivergedError that names task, epoch and step of the first loss of this epoch that is not finite."""
    losses = progress.losses[: progress.step].cpu()
    broken = torch.nonzero(~torch.isfinite(losses))
    if len(broken):
        step, column = broken[0].tolist()
        kind, task = run.columns[column]
        raise DivergedError(
            f"{run.name}: the {kind.replace('_', ' ')} of task {task} became {losses[step, column]} in epoch "
            f"{progress.epoch + 1}, step {step + 1}; lower its learning rate ({rate:g})"
        )


def _history_csv(run: Run, progress: Progress) -> str:
    lines = [",".join(run.header)]
    for epoch, *numbers in progress.history:
        lines.append(",".join([f"{epoch:.0f}", *(f"{number:.9g}" for number in numbers)]))
    return "\n".join(lines) + "\n"


def rate_at(schedule: Schedule, epoch: int, done: int) -> float:
    """Learning rate of the step after `epoch` whole epochs and `done` steps in all."""
    falls = sum(milestone <= epoch for milestone in schedule.milestones)
    falls += sum(milestone <= done for milestone in schedule.step_milestones)
    falls += 0 if schedule.decay_every is None else done // schedule.decay_every
    return schedule.learning_rate * schedule.decay**falls


def optimizer_for(schedule: Schedule, model: nn.Module) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum, on all weights of a model."""
    parameters = list(model.parameters())
    how: dict[str, Any] = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay, "fused": True}
    if schedule.optimizer == "adam":
        return torch.optim.Adam(parameters, betas=schedule.betas, **how)
    return torch.optim.SGD(parameters, momentum=schedule.momentum, **how)


class _Reporter:
    """Tells how far a run is: a bar on a terminal, else one plain line per epoch in the log."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            done, total = progress.epoch * run.steps + progress.step, run.epochs * run.steps
            self._bar = tqdm(total=total, initial=done, desc=run.name, unit="step", dynamic_ncols=True)
        self._images, self._since = 0, time.monotonic()

    def __enter__(self) -> _Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step_done(self) -> None:
        self._images += self._run.images
        if self._bar is not None:
            self._bar.update()

    def epoch_done(self, epoch: int, means: list[float]) -> None:
        speed = self._images / (time.monotonic() - self._since)
        self._images, self._since = 0, time.monotonic()
        titles = (f"{kind} {task}".replace("_", " ") for kind, task in self._run.columns)
        losses = ", ".join(f"{title} {mean:.4g}" for title, mean in zip(titles, means, strict=True))
        text = f"epoch {epoch} of {self._run.epochs}: {losses}, {speed:.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            log.info("%s: %s", self._run.name, text)
