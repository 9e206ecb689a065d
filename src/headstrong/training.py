"""Train one multi-task model: weighted sum of batch-mean losses, rolling checkpoints, exact resume.

Adversarial training makes two optimizer steps per iteration. One is on the clean batch (left out with `clean_steps`
off). Then one is on the batch that the job's attack makes of it, on the network as it is by then
(`headstrong.adversarial`). Batch norm in training mode learns its running statistics from both.

By hand: `python scripts/train_model.py --help`, or from Python:

    python - <<'END'
    from pathlib import Path
    from headstrong import jobs, training
    job = jobs.TrainingJob(id="try", encoder="resnet18", width=0.25, tasks="sd", weights=(0.5, 0.5), epochs=2,
        snapshots=(), batch_size=16, shuffle=True, optimizer="adam", learning_rate=1e-3, momentum=0.0,
        weight_decay=0.0, milestones=(), decay=0.1, precision="auto", loss_pixels="all", class_weights="uniform",
        output_start="mean", seed=0)
    training.train(job, Path("train.h5"), Path("try/weights.safetensors"), snapshots={}, work=Path("try/work"),
        history=Path("try/history.csv"), device="cpu", threads=2, checkpoint_minutes=10)
    END

The same job, data, code, versions and kind of device give the same bits, also after a kill and resume.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstrong.adversarial import adversarial_batch
from headstrong.checkpoints import Progress, RollingCheckpoint, configuration_digest, loss_columns
from headstrong.data.batches import Batch, Batches
from headstrong.data.cache import SplitFile, class_frequencies
from headstrong.data.curvature import read_as_grey
from headstrong.data.statistics import target_mean
from headstrong.errors import BrokenFileError, DivergedError
from headstrong.jobs import TrainingJob, to_dict
from headstrong.losses import prior_class_weights
from headstrong.models import MultiTaskModel, build_model, save_model, use_channels_last
from headstrong.provenance import training_code, write_atomically
from headstrong.runtime import reproducible
from headstrong.seeds import derive_seed
from headstrong.tasks import TASKS
from headstrong.training_checks import check_batch_norm, check_job, check_losses, check_weights
from headstrong.training_losses import training_losses

CHECK_EVERY = 20  # steps between two looks at the losses: each look makes a GPU wait
log = logging.getLogger(__name__)


def train(
    job: TrainingJob,
    data: Path,
    weights: Path,
    *,
    snapshots: dict[int, Path],
    history: Path,
    work: Path,
    device: str,
    threads: int,
    checkpoint_minutes: float,
    code: str | None = None,
) -> None:
    """Train the model of a job on a cache file; write snapshots, history and weights when all is done.

    snapshots: path of the weights after so many epochs (keys in 1..epochs). history: CSV, one row per epoch: epoch,
    learning_rate and the mean of each task's batch losses before their step, `loss_<letter>` on clean batches (where
    the job makes clean steps) and `adversarial_loss_<letter>` on adversarial ones. work: this job's own scratch folder;
    the rolling checkpoint in it, written every `checkpoint_minutes` (0: after every iteration) and at a SIGTERM, is
    found by the next call and removed at success. device: "cpu" or "cuda". threads: of the CPU. code: digest of the
    training code; None: computed here.

    Raises ConfigError for a job that cannot be, DivergedError when a loss or a weight is no longer a number; then
    there are no outputs.
    """
    check_job(job, snapshots)
    with reproducible(device, threads):
        _train(job, data, weights, snapshots, history, work, device, checkpoint_minutes, code)


def _train(
    job: TrainingJob,
    data: Path,
    weights: Path,
    snapshots: dict[int, Path],
    history: Path,
    work: Path,
    device: str,
    checkpoint_minutes: float,
    code: str | None,
) -> None:
    batches = Batches(data, job.tasks, device, curvature=job.curvature)
    if batches.count == 0:
        raise BrokenFileError(f"{data}: holds no samples to train on; make it again with at least one")
    model = model_for(job, len(batches.classes))
    if job.output_start == "mean":
        model.start_from(_target_means(job, data))
    model = use_channels_last(model.to(device)).train()
    check_batch_norm(job, model, batches)
    optimizer = optimizer_for(job, model)
    class_weights = class_weights_for(job, data, device)
    steps = max(1, batches.count // job.batch_size)  # the last, incomplete batch is dropped, as released
    progress = Progress(losses=torch.zeros(steps, len(loss_columns(job)), device=device))
    code = code or training_code(job.adversarial is not None)
    digest = configuration_digest(
        job=to_dict(job),
        snapshots=sorted(snapshots),
        data=_data_identity(data),
        code=code,
        device=torch.device(device).type,
        torch=torch.__version__,
    )
    kept = {epoch: work / f"epoch-{epoch}.safetensors" for epoch in snapshots}
    rolling = RollingCheckpoint(
        work / "last.ckpt", digest, model, optimizer, progress, minutes=checkpoint_minutes, kept=kept
    )
    if rolling.restore():
        log.info("%s: goes on after %d epochs and %d of %d steps", job.id, progress.epoch, progress.step, steps)
    try:
        with rolling:
            with contextlib.closing(batches), _Reporter(job, progress) as reporter:
                while progress.epoch < job.epochs:
                    _train_epoch(job, model, optimizer, batches, class_weights, progress, rolling, reporter)
                    if progress.epoch in kept:
                        _save(kept[progress.epoch], job, model, progress.epoch, class_weights, code)
            check_weights(job, model, job.epochs)
            for epoch, path in snapshots.items():
                write_atomically(path, kept[epoch].read_bytes())
            write_atomically(history, _history_csv(job, progress))
            _save(weights, job, model, job.epochs, class_weights, code)
    except DivergedError:
        rolling.remove()
        raise
    rolling.remove()


def _train_epoch(
    job: TrainingJob,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    class_weights: Tensor | None,
    progress: Progress,
    rolling: RollingCheckpoint,
    reporter: _Reporter,
) -> None:
    """The rest of the epoch that `progress` is in."""
    rate = learning_rate(job, progress.epoch)
    for group in optimizer.param_groups:
        group["lr"] = rate
    order = epoch_order(job, progress.epoch, batches.count)
    steps = len(progress.losses)
    while progress.step < steps:
        rows = order[progress.step * job.batch_size :][: job.batch_size]
        batch = batches.get(rows)
        progress.losses[progress.step] = _iteration(job, model, optimizer, batch, class_weights, progress.epoch)
        progress.step += 1
        reporter.step_done(len(rows))
        due = rolling.due()
        if due or progress.step == steps or progress.step % CHECK_EVERY == 0:
            check_losses(job, progress, rate)
        if due:
            rolling.save()
    means = progress.losses.double().mean(dim=0).tolist()
    progress.history.append([progress.epoch + 1, rate, *means])
    progress.epoch, progress.step = progress.epoch + 1, 0
    reporter.epoch_done(progress.epoch, means)


def _iteration(
    job: TrainingJob,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    class_weights: Tensor | None,
    epoch: int,
) -> Tensor:
    """The steps that a job makes with one batch; returns the losses before each, as `loss_columns` names them."""
    losses = []
    if job.clean_steps:
        losses.append(train_step(job, model, optimizer, batch, class_weights))
    if job.adversarial is not None:
        attacked = adversarial_batch(job, job.adversarial, model, batch, class_weights, epoch)
        losses.append(train_step(job, model, optimizer, attacked, class_weights))
    return torch.cat(losses)


def model_for(job: TrainingJob, classes: int) -> MultiTaskModel:
    """The untrained model of a job, on the CPU; its weights depend on seed, encoder, width, tasks and layout only."""
    return build_model(job.encoder, job.tasks, classes, job.width, seed=job.seed, layout=job.layout)


def optimizer_for(job: TrainingJob, model: MultiTaskModel) -> torch.optim.Optimizer:
    """Adam (torch's betas, as released) or SGD with momentum (as published)."""
    parameters = list(model.parameters())
    if job.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=job.learning_rate, weight_decay=job.weight_decay, foreach=True)
    return torch.optim.SGD(
        parameters, lr=job.learning_rate, momentum=job.momentum, weight_decay=job.weight_decay, foreach=True
    )


def class_weights_for(job: TrainingJob, data: Path, device: str) -> Tensor | None:
    """Class weights (classes,) of the segmentation loss from the training split, or None for ones."""
    if job.class_weights == "uniform" or "s" not in job.tasks:
        return None
    return prior_class_weights(class_frequencies(data)).to(device)


def _target_means(job: TrainingJob, data: Path) -> dict[str, list[float]]:
    with SplitFile(data) as split:
        letters = [letter for letter in job.tasks if TASKS[letter].channels is not None]
        means = {letter: target_mean(split, letter, job.loss_pixels).tolist() for letter in letters}
    if "p" in means and job.curvature == "grey":
        means["p"] = list(read_as_grey(*means["p"]))  # an affine reading: the mean of what it makes of the targets
    return means


def learning_rate(job: TrainingJob, epoch: int) -> float:
    """Learning rate while the epoch after `epoch` done epochs runs."""
    return job.learning_rate * job.decay ** sum(milestone <= epoch for milestone in job.milestones)


def epoch_order(job: TrainingJob, epoch: int, count: int) -> Tensor:
    """Rows 0..count-1 in the order of one epoch: the file's, as released, or a permutation of its own."""
    if not job.shuffle:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(derive_seed(job.seed, "order", epoch))
    return torch.randperm(count, generator=generator)


def train_step(
    job: TrainingJob,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    class_weights: Tensor | None,
) -> Tensor:
    """One step down the weighted sum of the tasks' batch-mean losses; returns those losses (T,) before the step."""
    losses = training_losses(job, model, batch, class_weights).mean(dim=0)
    total = sum(weight * loss for weight, loss in zip(job.weights, losses, strict=True))
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    optimizer.step()
    return losses.detach()


def _data_identity(data: Path) -> dict[str, Any]:
    """What tells one data file from another without reading all of it: its size and what it was made from."""
    with SplitFile(data) as split:
        found = {key: getattr(split, key) for key in ("dataset", "split", "settings", "code", "count", "size")}
    return {**found, "bytes": data.stat().st_size}


def _save(
    path: Path, job: TrainingJob, model: MultiTaskModel, epoch: int, class_weights: Tensor | None, code: str
) -> None:
    check_weights(job, model, epoch)
    # Evaluation takes the loss with the class weights of training; it does not see the training split.
    weights = json.dumps(None if class_weights is None else class_weights.tolist())
    save_model(path, model, to_dict(job), {"epoch": str(epoch), "code": code, "class_weights": weights})


def _history_csv(job: TrainingJob, progress: Progress) -> str:
    lines = [",".join(["epoch", "learning_rate", *(f"{kind}_{letter}" for kind, letter in loss_columns(job))])]
    for epoch, *numbers in progress.history:
        lines.append(",".join([f"{epoch:.0f}", *(f"{number:.9g}" for number in numbers)]))
    return "\n".join(lines) + "\n"


class _Reporter:
    """Tells how far a run is: a bar on a terminal, else one plain line per epoch in the log."""

    def __init__(self, job: TrainingJob, progress: Progress) -> None:
        self._job, steps = job, len(progress.losses)
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            done = progress.epoch * steps + progress.step
            self._bar = tqdm(total=job.epochs * steps, initial=done, desc=job.id, unit="step", dynamic_ncols=True)
        self._images, self._since = 0, time.monotonic()

    def __enter__(self) -> _Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step_done(self, images: int) -> None:
        self._images += images
        if self._bar is not None:
            self._bar.update()

    def epoch_done(self, epoch: int, means: list[float]) -> None:
        speed = self._images / (time.monotonic() - self._since)
        self._images, self._since = 0, time.monotonic()
        titles = (f"{kind} {letter}".replace("_", " ") for kind, letter in loss_columns(self._job))
        losses = ", ".join(f"{title} {mean:.4g}" for title, mean in zip(titles, means, strict=True))
        text = f"epoch {epoch} of {self._job.epochs}: {losses}, {speed:.0f} images/s"
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            log.info("%s: %s", self._job.id, text)
