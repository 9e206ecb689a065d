"""Train the generators of one job: GAP or MTA, universal or per-instance, against all its victims at once.

By hand: `python scripts/train_generator.py --help`. In a step every task has a batch of its own images, its own
perturbation, and its own victim; `headstrong.attacks.generators` says what is lowered. GAP's generators, which share
nothing, are trained side by side in one job; Adam makes that the same as apart, but for the scale of its epsilon.

The same job, victims, data, code, versions and kind of device give the same bits, also after a kill and resume.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstrong.attacks.generators import NORMS, TaskWeights, fooling_loss, pattern, perturbed, scale
from headstrong.checkpoints import configuration_digest
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.jobs import GeneratorJob, generator_job_from_dict, to_dict
from headstrong.loop import Run, optimizer_for, rate_at, train_run
from headstrong.models.generators import ACTIVATIONS, NORMALIZATIONS, STRIDE, Generators
from headstrong.models.store import read_tensors, write_tensors
from headstrong.provenance import code_digest, file_digest, write_atomically
from headstrong.runtime import PRECISIONS, autocast, reproducible
from headstrong.seeds import derive_seed
from headstrong.victims import Victim, open_victims

FORMAT = "headstrong-generator-1"
SMALLEST = 2 * STRIDE  # pixels a side: the residual blocks mirror the border of a quarter of them


def train(
    job: GeneratorJob,
    victims: Mapping[str, Path],
    data: Mapping[str, Path],
    weights: Path,
    *,
    history: Path,
    work: Path,
    device: str,
    threads: int,
    checkpoint_minutes: float,
    code: str | None = None,
) -> None:
    """Train the generators of a job against victims (weight files by task) on data (training caches by task).

    history: CSV, one row per epoch: epoch, learning_rate and each task's mean fooling loss, `loss_<task>`. work: the
    job's own scratch folder, for the rolling checkpoint, written every `checkpoint_minutes` (0: after every step).
    device: "cpu" or "cuda". threads: of the CPU. code: digest of the training code; None: computed here.

    Raises ConfigError for a job that cannot be, MissingDataError or BrokenFileError for files that are not what they
    should be, DivergedError when a loss or a weight is not a number; then there are no outputs.
    """
    check_job(job)
    with reproducible(device, threads):
        opened = open_victims(job.kind, job.label, _of_tasks(victims, job), _of_tasks(data, job), device, job.samples)
        code = code or code_digest("headstrong.generator_training")
        trainer = _Trainer(job, opened, device)
        digest = configuration_digest(
            job=to_dict(job),
            victims={task: file_digest(victims[task]) for task in job.tasks},
            data={task: file_digest(data[task]) for task in job.tasks},
            code=code,
            device=torch.device(device).type,
            torch=torch.__version__,
        )

        def finish(table: str) -> None:
            trainer.check()
            write_atomically(history, table)
            save_generators(weights, trainer.generators, job, trainer.size, {"code": code})

        how: Any = {"work": work, "digest": digest, "device": device, "minutes": checkpoint_minutes}
        train_run(trainer.run, trainer.model, trainer.optimizer, trainer.step, finish, start=trainer.start, **how)


def check_job(job: GeneratorJob) -> None:
    """ConfigError, in one line, for a job that cannot be."""
    expected = {
        "kind": ("classes", "dense"),
        "method": ("gap", "mta"),
        "mode": ("universal", "instance"),
        "goal": ("untargeted", "targeted"),
        "norm": NORMS,
        "normalization": NORMALIZATIONS,
        "activation": ACTIVATIONS,
        "log_mean": ("outside", "inside"),
        "untargeted_loss": ("truth", "least_likely"),
        "weights": ("uniform", "learned"),
        "optimizer": ("adam", "sgd"),
        "precision": PRECISIONS,
    }
    for key, choices in expected.items():
        if getattr(job, key) not in choices:
            raise ConfigError(
                f"generator {job.id}: {key} '{getattr(job, key)}' is unknown; choose {' or '.join(choices)}"
            )
    scale(torch.zeros(1, 3, 4, 4), job.norm, job.epsilon, job.scaling)
    for key in ("epsilon", "epochs", "batch_size"):
        if not getattr(job, key) > 0:
            raise ConfigError(f"generator {job.id}: {key} {getattr(job, key)}; expected more than 0")
    if not job.tasks or len(set(job.tasks)) < len(job.tasks):
        raise ConfigError(f"generator {job.id}: tasks {list(job.tasks)}; expected at least one, each once")
    if job.shared_input and job.kind == "classes":
        raise ConfigError(f"generator {job.id}: the domains of classifiers have images of their own; no shared_input")
    if job.goal == "targeted" and len(job.targets) != len(job.tasks):
        raise ConfigError(
            f"generator {job.id}: {len(job.targets)} targets for {len(job.tasks)} tasks; give one for each"
        )


def _of_tasks(paths: Mapping[str, Path], job: GeneratorJob) -> dict[str, Path]:
    missing = [task for task in job.tasks if task not in paths]
    if missing:
        raise ConfigError(f"generator {job.id}: no victim or data given for task {missing[0]}")
    return {task: paths[task] for task in job.tasks}


class _Trainer:
    """Everything that a step needs."""

    def __init__(self, job: GeneratorJob, victims: dict[str, Victim], device: str) -> None:
        self.job, self.victims, self.device = job, victims, torch.device(device)
        first = next(iter(victims.values()))
        self.size = first.size
        for task, victim in victims.items():
            height, width = victim.size
            if victim.size != self.size or height % STRIDE or width % STRIDE or min(height, width) < SMALLEST:
                raise ConfigError(
                    f"generator {job.id}: images of {task} are {height}x{width}; expected one size for all, both sides "
                    f"multiples of {STRIDE} and at least {SMALLEST}"
                )
            if victim.count == 0:
                raise BrokenFileError(f"generator {job.id}: no images of task {task}; make its cache again with some")
        self.targets = {task: _class_number(job, task, victim) for task, victim in victims.items()}
        self.generators = build_generators(job).to(device).train()
        self.weights = TaskWeights(len(job.tasks), job.weights).to(device)
        self.model = nn.ModuleDict({"generators": self.generators, "weights": self.weights})
        self.optimizer = optimizer_for(job, self.model)
        steps = max(max(1, victim.count // job.batch_size) for victim in victims.values())
        self.run = Run(
            f"generator {job.id}",
            job.epochs,
            steps,
            job.batch_size * len(job.tasks),
            tuple(("loss", task) for task in job.tasks),
            functools.partial(rate_at, job),
        )
        self._inputs = patterns(job, self.size, self.device) if job.mode == "universal" else None

    def start(self) -> None:
        """Learned weights start from the losses of the first batch."""
        if self.job.weights == "learned":
            state = {name: value.clone() for name, value in self.generators.state_dict().items()}
            with torch.no_grad():
                self.weights.start_from(self._losses(0, 0)[0])
            self.generators.load_state_dict(state)  # the look has moved running averages

    def step(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """One step of the optimiser; the fooling losses (M,) before it, and bool (M,) which tasks any image has."""
        losses, known = self._losses(epoch, number)
        self.optimizer.zero_grad(set_to_none=True)
        self.weights(losses, known).backward()
        self.optimizer.step()
        return losses.detach(), known

    def check(self) -> None:
        """DivergedError where a weight is not a number."""
        for tensor in self.model.state_dict().values():
            if not torch.isfinite(tensor).all():
                raise DivergedError(
                    f"generator {self.job.id}: weights are not finite after the last step; lower its learning rate "
                    f"({self.job.learning_rate:g})"
                )

    def _losses(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        done = epoch * self.run.steps + number
        rows = {task: batch_rows(self.job, task, victim.count, done) for task, victim in self.victims.items()}
        images = {task: _ordered(self.victims[task].images(chosen)) for task, chosen in rows.items()}
        with autocast(self.job.precision, self.device):
            made = raw_perturbations(self.generators, self.job, images if self._inputs is None else self._inputs)
            found, known = [], []
            for task, victim in self.victims.items():
                attack = scale(made[task].float(), self.job.norm, self.job.epsilon, self.job.scaling)
                found.append(self._fooling(victim, perturbed(images[task], attack), rows[task]))
                known.append(victim.labelled(rows[task]).any())
        return torch.stack(found), torch.stack(known)

    def _fooling(self, victim: Victim, images: Tensor, rows: Tensor) -> Tensor:
        job = self.job
        if job.goal == "targeted":
            return fooling_loss(
                victim.target_losses(images, self.targets[victim.task]).float(), "targeted", job.log_mean
            )
        least = victim.least_likely_losses(images, rows) if job.untargeted_loss == "least_likely" else None
        if least is not None:  # towards it, as GAP's code for classes; its code for dense tasks goes by the truth
            return fooling_loss(least.float(), "targeted", job.log_mean)
        losses, labelled = victim.losses(images, rows).float(), victim.labelled(rows)
        return fooling_loss(losses, "untargeted", job.log_mean, labelled)


def batch_rows(job: GeneratorJob, task: str, count: int, done: int) -> Tensor:
    """Rows long (B,) of a task's batch after `done` steps of the run, out of its `count` images.

    A task walks through a permutation of its own in passes of its own: where it has fewer images than others it begins
    the next within an epoch. Tasks that share their images share the permutations. The last, incomplete batch of a pass
    is dropped; with fewer images than a batch takes, all are one.
    """
    per_pass = max(1, count // job.batch_size)
    seed = derive_seed(job.seed, "order", "" if job.shared_input else task, done // per_pass)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[(done % per_pass) * job.batch_size :][: job.batch_size]


def _ordered(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _class_number(job: GeneratorJob, task: str, victim: Victim) -> int:
    if job.goal != "targeted":
        return -1
    target = job.targets[job.tasks.index(task)]
    if target not in victim.classes:
        known = ", ".join(victim.classes) or "none"
        raise ConfigError(f"generator {job.id}: target '{target}' is no class of {task}; its classes are {known}")
    return victim.classes.index(target)


def build_generators(job: GeneratorJob) -> Generators:
    """The untrained generators of a job, on the CPU, in training mode."""
    network = Generators(
        job.tasks,
        shared=job.method == "mta",
        filters=job.filters,
        blocks=job.blocks,
        normalization=job.normalization,
        activation=job.activation,
        dropout=job.dropout,
        running_statistics=job.mode == "instance",
        seed=job.seed,
    )
    moved: Generators = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def patterns(job: GeneratorJob, size: tuple[int, int], device: torch.device | str) -> dict[str, Tensor]:
    """The fixed inputs (1, 3, H, W) of a job's universal generators, by task; one for all that share their images."""
    return {task: pattern(job.seed, "" if job.shared_input else task, size).to(device) for task in job.tasks}


def raw_perturbations(generators: Generators, job: GeneratorJob, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs (B, 3, H, W) in [-1, 1] by task; where tasks share their input, MTA's encoder runs once."""
    if job.shared_input:
        return generators.together(inputs[job.tasks[0]])
    return generators(inputs)


@torch.no_grad()
def make_perturbations(
    generators: Generators,
    job: GeneratorJob,
    images: Mapping[str, Tensor] | None,
    size: tuple[int, int],
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Perturbations in pixel units by task: (1, 3, H, W) of a universal job, whatever the images, or (B, 3, H, W).

    images: (B, 3, H, W) in [0, 1] by task; where tasks share their images, those of the first task count. Raises
    ConfigError where a job needs images and there are none.
    """
    if job.mode == "universal":
        inputs: Mapping[str, Tensor] = patterns(job, size, device)
    elif images is None:
        raise ConfigError(f"generator {job.id}: makes a perturbation for each image; give images")
    else:
        inputs = images
    made = raw_perturbations(generators, job, inputs)
    return {task: scale(raw.float(), job.norm, job.epsilon, job.scaling) for task, raw in made.items()}


def save_generators(
    path: Path, generators: Generators, job: GeneratorJob, size: tuple[int, int], extra: Mapping[str, str] | None = None
) -> None:
    """Write generators with their job and the size (H, W) of their images; the file appears when whole."""
    description: dict[str, Any] = {"format": FORMAT, "job": to_dict(job), "size": list(size), **(extra or {})}
    write_tensors(path, generators.state_dict(), description)


def load_generators(path: Path, device: torch.device | str = "cpu") -> tuple[Generators, GeneratorJob, tuple[int, int]]:
    """The generators of a file, in evaluation mode on `device`, their job, and the size of their images.

    Raises MissingDataError where there is no file, BrokenFileError for anything but generators.
    """
    remedy = "delete it and train these generators again"
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; train these generators first")
    tensors, description = read_tensors(path)
    if description.get("format") != FORMAT:
        raise BrokenFileError(f"{path}: not generators of headstrong ({FORMAT}); {remedy}")
    try:
        job = generator_job_from_dict(description["job"])
        height, width = description["size"]
        generators = build_generators(job)
        generators.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BrokenFileError(f"{path}: its tensors are not those of its job ({reason}); {remedy}") from error
    return generators.to(device).eval(), job, (int(height), int(width))
