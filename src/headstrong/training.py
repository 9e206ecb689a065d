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
import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstrong.adversarial import adversarial_batch
from headstrong.checkpoints import configuration_digest
from headstrong.data.batches import Batch, Batches
from headstrong.data.cache import SplitFile, class_frequencies
from headstrong.data.curvature import read_as_grey
from headstrong.data.statistics import target_mean
from headstrong.errors import BrokenFileError
from headstrong.jobs import TrainingJob, to_dict
from headstrong.loop import Run, optimizer_for, rate_at, train_run
from headstrong.losses import batch_means, prior_class_weights, published_class_weights
from headstrong.models import MultiTaskModel, build_model, save_model, use_channels_last
from headstrong.provenance import training_code, write_atomically
from headstrong.runtime import reproducible
from headstrong.seeds import derive_seed
from headstrong.tasks import TASKS
from headstrong.training_checks import check_batch_norm, check_job, check_weights
from headstrong.training_losses import training_losses


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
    the rolling checkpoint in it, written every `checkpoint_minutes` (0: after every iteration) and at SIGTERM or
    SIGINT, is found by the next call and removed at success. device: "cpu" or "cuda". threads: of the CPU. code: digest
    of the training code; None: computed here.

    Raises ConfigError for a job that cannot be, MissingDataError or BrokenFileError for data that are not what they
    should be, DivergedError when a loss or a weight is no longer a number; then there are no outputs.
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
    minutes: float,
    code: str | None,
) -> None:
    batches = Batches(data, job.tasks, device, curvature=job.curvature, depth=job.depth)
    if batches.count == 0:
        raise BrokenFileError(f"{data}: holds no samples to train on; make it again with at least one")
    model = model_for(job, len(batches.classes))
    if job.output_start == "mean":
        model.start_from(_target_means(job, data))
    model = use_channels_last(model.to(device)).train()
    optimizer = optimizer_for(job, model)
    class_weights = class_weights_for(job, data, device)
    rows = batches.with_labels()  # others would move nothing but the statistics of batch norm
    check_batch_norm(job, model, batches.size, len(rows))
    steps = max(1, len(rows) // job.batch_size)  # the last, incomplete batch is dropped, as released
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
    orders = EpochOrders(job, len(rows))

    def step(epoch: int, number: int) -> tuple[Tensor, Tensor]:
        places = orders.of(epoch)[number * job.batch_size :][: job.batch_size]
        return _iteration(job, model, optimizer, batches.get(rows[places]), class_weights, epoch)

    def finish(table: str) -> None:
        check_weights(job, model, job.epochs)
        for epoch, path in snapshots.items():
            write_atomically(path, kept[epoch].read_bytes())
        write_atomically(history, table)
        _save(weights, job, model, job.epochs, class_weights, code)

    run = Run(
        f"model {job.id}",
        job.epochs,
        steps,
        min(job.batch_size, len(rows)),
        tuple(loss_columns(job)),
        functools.partial(rate_at, job),
    )
    with contextlib.closing(batches):
        train_run(
            run, model, optimizer, step, finish, work=work, digest=digest, device=device, minutes=minutes,
            kept=kept, keep=lambda path, epoch: _save(path, job, model, epoch, class_weights, code),
        )  # fmt: skip


def loss_columns(job: TrainingJob) -> list[tuple[str, str]]:
    """(kind, letter) of every loss that a job's steps measure; kind: "loss" on clean batches, "adversarial_loss"."""
    kinds = ["loss"] * job.clean_steps + ["adversarial_loss"] * (job.adversarial is not None)
    return [(kind, letter) for kind in kinds for letter in job.tasks]


def _iteration(
    job: TrainingJob,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    class_weights: Tensor | None,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """The steps that a job makes with one batch; returns the losses before each, as `loss_columns` names them, and bool
    which of them any image of the batch had a label for."""
    losses, known = [], []
    if job.clean_steps:
        losses.append(train_step(job, model, optimizer, batch, class_weights))
        known.append(batch.labelled(job.tasks).any(dim=0))
    if job.adversarial is not None:
        attacked = adversarial_batch(job, job.adversarial, model, batch, class_weights, epoch)
        losses.append(train_step(job, model, optimizer, attacked, class_weights))
        known.append(attacked.labelled(job.tasks).any(dim=0))
    return torch.cat(losses), torch.cat(known)


def model_for(job: TrainingJob, classes: int) -> MultiTaskModel:
    """The untrained model of a job, on the CPU; its weights depend on seed, encoder, width, tasks and layout only."""
    return build_model(job.encoder, job.tasks, classes, job.width, seed=job.seed, layout=job.layout)


def class_weights_for(job: TrainingJob, data: Path, device: str) -> Tensor | None:
    """Class weights (classes,) of the segmentation loss from the training split or as published; None for ones.

    Raises ConfigError for published ones of other classes than Taskonomy's.
    """
    if job.class_weights == "uniform" or "s" not in job.tasks:
        return None
    if job.class_weights == "published":
        with SplitFile(data) as split:
            return published_class_weights(split.dataset, len(split.classes)).to(device)
    return prior_class_weights(class_frequencies(data)).to(device)


def _target_means(job: TrainingJob, data: Path) -> dict[str, list[float]]:
    with SplitFile(data) as split:
        letters = [letter for letter in job.tasks if TASKS[letter].channels is not None]
        means = {letter: target_mean(split, letter, job.loss_pixels, job.depth).tolist() for letter in letters}
    if "p" in means and job.curvature == "grey":
        means["p"] = list(read_as_grey(*means["p"]))  # an affine reading: the mean of what it makes of the targets
    return means


def epoch_order(job: TrainingJob, epoch: int, count: int) -> Tensor:
    """Rows 0..count-1, long (count,), as one epoch takes them: in the file's order, as released, or permuted."""
    if not job.shuffle:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(derive_seed(job.seed, "order", epoch))
    return torch.randperm(count, generator=generator)


class EpochOrders:
    """The order of the epoch that a run is in, made once per epoch."""

    def __init__(self, job: TrainingJob, count: int) -> None:
        self._job, self._count = job, count
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def of(self, epoch: int) -> Tensor:
        """Rows 0..count-1, long (count,), in the order of this epoch."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._job, epoch, self._count)
        return self._order


def train_step(
    job: TrainingJob,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    class_weights: Tensor | None,
) -> Tensor:
    """One step down the weighted sum of the tasks' batch-mean losses; returns those losses (T,) before the step.

    A task's mean is over the images that have a label for it; 0, which moves nothing, where none of the batch has.
    """
    losses = batch_means(training_losses(job, model, batch, class_weights), batch.labelled(job.tasks))
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
