"""Make a copy of a backbone forget a task: fine-tune it on the other tasks alone, as an attacker of it can.

By hand: `python scripts/forget_task.py --help`. The attacker sees the images and labels of the visible tasks, the
backbone, and the real visible heads (access "heads") or none (access "backbone"): then it first trains heads of its own
on the backbone as it is, for `probe_epochs`. What the copy knows of the hidden task afterwards is for others to measure
(`headstrong.hidden_evaluation`); nothing here could.

The same job, files, code, versions and kind of device give the same bits, also after a kill and resume.

Source: Zhe et al. (arXiv 2405.15244), whose equations are not public: this is a reconstruction (docs/hidden.md).
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstrong.checkpoints import configuration_digest
from headstrong.errors import ConfigError, DivergedError
from headstrong.feature_files import write_features
from headstrong.hidden_views import View, open_view
from headstrong.jobs import ForgettingJob, to_dict
from headstrong.loop import Run, optimizer_for, rate_at, train_run
from headstrong.losses import batch_means
from headstrong.models.partial import backbone_parts, head_state, heads_of, last_blocks
from headstrong.models.store import read_tensors, write_tensors
from headstrong.provenance import code_digest, file_digest, settings_json, write_atomically
from headstrong.runtime import PRECISIONS, autocast, reproducible, seeded_layers
from headstrong.seeds import derive_seed

FORMAT = "headstrong-forgetting-1"
ACCESSES = ("heads", "backbone")


def forget(
    job: ForgettingJob,
    victim: Path,
    train: Path,
    test: Path,
    weights: Path,
    features: Path,
    *,
    history: Path,
    work: Path,
    device: str,
    threads: int,
    checkpoint_minutes: float,
    code: str | None = None,
) -> None:
    """Forget the hidden task of a job; write the copy, and the features of the test images before and after.

    victim: weights of the network. train, test: data files, of which only the visible tasks are read. weights:
    safetensors with the copy as "copy.<name>" and, with access "backbone", the attacker's heads on the original
    backbone as "own.<name>". features: HDF5 of `headstrong.feature_files`. history: CSV, per epoch the learning rate
    and each visible task's mean loss, probing first. work: scratch folder of this job, for the rolling checkpoint.

    Raises ConfigError for a job that cannot be, MissingDataError or BrokenFileError for files that are not what they
    should be, DivergedError when a loss or a weight is not a number; then there are no outputs.
    """
    check_job(job)
    with reproducible(device, threads):
        outputs = dict(job.visible)
        how: dict[str, Any] = {"heads": job.access == "heads", "seed": job.seed}
        view = open_view(job.kind, outputs, victim, train, device, limit=job.samples, **how)
        forgetting = Forgetting(job, view)
        code = code or code_digest("headstrong.forgetting")
        digest = configuration_digest(
            job=to_dict(job),
            victim=file_digest(victim),
            data=file_digest(train),
            code=code,
            device=torch.device(device).type,
            torch=torch.__version__,
        )
        kept = {job.probe_epochs + epoch: work / f"epoch-{epoch}.safetensors" for epoch in (0, *job.curve)}

        def finish(table: str) -> None:
            forgetting.check(forgetting.run.epochs)
            copies = {epoch: read_tensors(kept[job.probe_epochs + epoch])[0] for epoch in job.curve}
            own = head_state(view.network)
            if job.probe_epochs:
                probed = read_tensors(kept[job.probe_epochs])[0]
                own = {name: probed[name] for name in own}
            tests = open_view(job.kind, outputs, victim, test, device, **how)
            facts = {"code": code, "weights_sha256": file_digest(victim)}
            _write_features(features, job, view, tests, copies, {**facts, "test_sha256": file_digest(test)})
            write_atomically(history, table)
            tensors = {f"copy.{name}": value for name, value in forgetting.network.state_dict().items()}
            if job.access == "backbone":
                tensors |= {f"own.{name}": value for name, value in own.items()}
            write_tensors(weights, tensors, {"format": FORMAT, "job": to_dict(job), **facts})

        train_run(
            forgetting.run, forgetting.network, forgetting.optimizer, forgetting.step, finish, work=work,
            digest=digest, device=device, minutes=checkpoint_minutes, keep=forgetting.keep,
            kept={epoch: path for epoch, path in kept.items() if epoch},
        )  # fmt: skip


def check_job(job: ForgettingJob) -> None:
    """ConfigError, in one line, for a job that cannot be."""
    choices = {"access": ACCESSES, "optimizer": ("adam", "sgd"), "precision": PRECISIONS}
    for key, known in choices.items():
        if getattr(job, key) not in known:
            raise ConfigError(
                f"forgetting {job.id}: {key} '{getattr(job, key)}' is unknown; choose {' or '.join(known)}"
            )
    if not job.visible or job.hidden in dict(job.visible):
        raise ConfigError(
            f"forgetting {job.id}: visible tasks {[task for task, _ in job.visible]}; hidden {job.hidden}"
        )
    for key, least in (("epochs", 1), ("batch_size", 1), ("probe_epochs", 0)):
        if getattr(job, key) < least:
            raise ConfigError(f"forgetting {job.id}: {key} {getattr(job, key)}; expected at least {least}")
    if job.layers is not None and job.layers < 1:
        raise ConfigError(f"forgetting {job.id}: layers {job.layers}; expected at least 1, or none for all")
    if job.probe_epochs and job.access == "heads":
        raise ConfigError(f"forgetting {job.id}: probe_epochs {job.probe_epochs}; who has the real heads trains none")
    if not job.curve or job.curve[-1] != job.epochs or list(job.curve) != sorted(set(job.curve)) or job.curve[0] < 1:
        raise ConfigError(f"forgetting {job.id}: curve {list(job.curve)}; expected epochs from 1 to {job.epochs}")


class Forgetting:
    """The copy of a view's network, and the steps by which it forgets what the view does not show."""

    def __init__(self, job: ForgettingJob, view: View) -> None:
        self.job, self.view = job, view
        self.network: Any = copy.deepcopy(view.network)
        try:
            self._trained = last_blocks(backbone_parts(self.network), job.layers)
        except ConfigError as error:
            raise ConfigError(f"forgetting {job.id}: {error}") from None
        self._heads = heads_of(self.network)
        self._rows = view.with_labels()  # of others nothing can be learned but the statistics of batch norm
        self._size = min(job.batch_size, len(self._rows))
        self._phase: bool | None = None
        # On all weights: those that do not learn have no gradient, and stay.
        self.optimizer = optimizer_for(job, self.network)
        self.run = Run(
            f"forgetting {job.id}",
            job.probe_epochs + job.epochs,
            max(1, len(self._rows) // self._size),  # the last, incomplete batch is dropped
            self._size,
            tuple(("loss", task) for task in view.tasks),
            self._rate,
        )
        self._order = functools.lru_cache(maxsize=1)(self._new_order)

    def step(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """One step down the mean of the visible tasks' losses; those losses (T,) before it, and bool (T,) which
        tasks any image of the batch has."""
        probing = epoch < self.job.probe_epochs
        self._enter(probing)
        batch = self.view.batch(self._order(epoch)[number * self._size :][: self._size])
        device = batch.images.device
        seed = derive_seed(self.job.seed, "layers", epoch, number)
        with seeded_layers(seed, device), autocast(self.job.precision, device):
            outputs = self._outputs(batch.images, probing)
        labelled = self.view.labelled(batch)
        losses = batch_means(self.view.losses(outputs, batch), labelled)
        self.optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        self.optimizer.step()
        return losses.detach(), labelled.any(dim=0)

    def _outputs(self, images: Tensor, probing: bool) -> dict[str, Tensor]:
        try:
            with torch.set_grad_enabled(not probing):
                features = self.network.features(images)
            return {name: output.float() for name, output in self.network.outputs(features).items()}
        except ValueError as error:  # batch norm, of one number
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"forgetting {self.job.id}: cannot learn from batches of {len(images)} images ({reason}); raise "
                "batch_size or samples, or use larger images"
            ) from error

    def keep(self, path: Path, epoch: int) -> None:
        """Write the copy as it is after so many epochs, probing included."""
        self.check(epoch)
        write_tensors(path, self.network.state_dict(), {"format": FORMAT, "epoch": epoch})

    def check(self, epoch: int) -> None:
        """DivergedError where a weight is not a number after so many epochs, probing included."""
        for name, tensor in self.network.state_dict().items():
            if not torch.isfinite(tensor).all():
                rate = self._rate(epoch - 1, epoch * self.run.steps - 1)
                raise DivergedError(
                    f"forgetting {self.job.id}: {name} is not finite; lower the learning rate ({rate:g})"
                )

    def _enter(self, probing: bool) -> None:
        """Bring the network into the mode of a phase: which weights learn, which batch norms see the batch."""
        if probing == self._phase:
            return
        self._phase = probing
        self.network.eval().requires_grad_(False)
        learning: list[nn.Module] = [] if probing else list(self._trained)
        if probing or self.job.train_heads:
            learning.append(self._heads)
        for part in learning:
            part.train().requires_grad_(True)

    def _rate(self, epoch: int, done: int) -> float:
        """The probe's rate first; the schedule counts from where probing ends."""
        probes = self.job.probe_epochs
        if epoch < probes:
            return self.job.probe_rate
        return rate_at(self.job, epoch - probes, done - probes * self.run.steps)

    def _new_order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.job.seed, "order", epoch))
        return self._rows[torch.randperm(len(self._rows), generator=generator)]


def _write_features(
    path: Path,
    job: ForgettingJob,
    view: View,
    tests: View,
    copies: dict[int, dict[str, Tensor]],
    facts: dict[str, str],
) -> None:
    """The features of the test images, and the mean direction over the training images."""
    networks = {}
    for epoch, tensors in copies.items():
        networks[epoch] = copy.deepcopy(view.network)
        networks[epoch].load_state_dict(tensors)
    last = networks[job.curve[-1]]

    def source(network: Any) -> Any:
        return lambda rows: _features(network, tests, rows)

    sources = {"original": source(tests.network)}
    sources |= {f"forgetful/{epoch}": source(network) for epoch, network in networks.items()}
    total: Any = 0
    learned_from = view.with_labels()
    for rows in learned_from.split(job.batch_size):
        total = total + (_features(last, view, rows) - _features(view.network, view, rows)).double().sum(dim=0)
    attributes = {"job": settings_json(to_dict(job)), **facts}
    write_features(path, sources, tests.count, job.batch_size, total / len(learned_from), attributes)


@torch.no_grad()
def _features(network: Any, view: View, rows: Tensor) -> Tensor:
    found: Tensor = network.features(view.batch(rows).images)
    return found.float()
