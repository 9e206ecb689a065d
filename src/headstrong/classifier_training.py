"""Train one classifier of pictures: the labels' mean cross entropies averaged, rolling checkpoints, exact resume.

By hand: `python scripts/train_classifier.py --help`, or from Python:

    python - <<'END'
    from pathlib import Path
    from headstrong import classifier_training, jobs
    job = jobs.ClassifierJob(id="try", backbone="resnet18", width=0.25, labels=("shape",), pretrained=None, epochs=12,
        batch_size=16, optimizer="adam", learning_rate=1e-3, momentum=0.9, weight_decay=0.0, milestones=(8,), decay=0.1,
        augment=True, precision="auto", seed=0)
    classifier_training.train(job, Path("studio-train.h5"), Path("try/weights.safetensors"), work=Path("try/work"),
        history=Path("try/history.csv"), device="cpu", threads=2, checkpoint_minutes=10)
    END

The same job, pictures, code, versions and kind of device give the same bits, also after a kill and resume.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstrong.checkpoints import configuration_digest
from headstrong.data.picture_batches import PictureBatches
from headstrong.data.pictures import PictureFile
from headstrong.errors import BrokenFileError, ConfigError, DivergedError
from headstrong.jobs import ClassifierJob, to_dict
from headstrong.loop import Run, rate_at, train_run
from headstrong.models.classifier import Classifier, build_classifier, find_pretrained, save_classifier, to_device
from headstrong.provenance import code_digest, file_digest, write_atomically
from headstrong.runtime import PRECISIONS, autocast, reproducible
from headstrong.seeds import derive_seed

SHIFT = 8  # augmentation moves a picture by up to an 8th of each side


def train(
    job: ClassifierJob,
    data: Path,
    weights: Path,
    *,
    history: Path,
    work: Path,
    device: str,
    threads: int,
    checkpoint_minutes: float,
    code: str | None = None,
) -> None:
    """Train the classifier of a job on a file of pictures; write history and weights when all is done.

    history: CSV, one row per epoch: epoch, learning_rate and `loss_<label>`, the mean of the batches' cross entropies
    before their step. work: this job's own scratch folder; the rolling checkpoint in it, written every
    `checkpoint_minutes` (0: after every step) and at a SIGTERM, is found by the next call and removed at success.
    device: "cpu" or "cuda". threads: of the CPU. code: digest of the training code; None: computed here. The SHA-256 of
    the pretrained weights is stored with the classifier as `pretrained_sha256`.

    Raises ConfigError for a job that cannot be, what `find_pretrained` and `load_pretrained` raise, and DivergedError
    when a loss or a weight is no longer a number; then there are no outputs.
    """
    _check_job(job)
    with reproducible(device, threads), contextlib.closing(PictureBatches(data, job.labels, device)) as batches:
        _train(job, data, batches, weights, history, work, device, checkpoint_minutes, code)


def _train(
    job: ClassifierJob,
    data: Path,
    batches: PictureBatches,
    weights: Path,
    history: Path,
    work: Path,
    device: str,
    minutes: float,
    code: str | None,
) -> None:
    if batches.count == 0:
        raise BrokenFileError(f"{data}: holds no pictures to train on; make it again with at least one")
    heads = {label: len(batches.classes[label]) for label in job.labels}
    size = min(job.batch_size, batches.count)
    source = None if job.pretrained is None else find_pretrained(job.pretrained)
    pretrained = None if source is None else file_digest(source)
    model = to_device(build_classifier(job.backbone, heads, job.width, job.seed, source, job.stem), device).train()
    _check_pictures(job, model, size, batches.size)
    optimizer = optimizer_for(job, model)
    code = code or code_digest("headstrong.classifier_training")
    digest = configuration_digest(
        job=to_dict(job),
        data=_data_identity(data),
        pretrained=pretrained,
        code=code,
        device=torch.device(device).type,
        torch=torch.__version__,
    )

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        return epoch_order(job, epoch, batches.count)

    def step(epoch: int, number: int) -> Tensor:
        batch = batches.get(order(epoch)[number * size :][:size])
        images = batch.images
        if job.augment:
            images = augmented(images, derive_seed(job.seed, "augment", epoch, number))
        with _seeded_layers(derive_seed(job.seed, "layers", epoch, number), images.device):
            return train_step(job, model, optimizer, images, batch.labels)

    def finish(table: str) -> None:
        _check_weights(job, model)
        write_atomically(history, table)
        extra = {"code": code, "pretrained_sha256": pretrained}
        save_classifier(weights, model, batches.classes, to_dict(job), extra)

    run = Run(
        f"classifier {job.id}",
        job.epochs,
        batches.count // size,  # the last, incomplete batch is dropped
        size,
        tuple(("loss", label) for label in job.labels),
        lambda epoch: rate_at(epoch, job.learning_rate, job.milestones, job.decay),
    )
    train_run(run, model, optimizer, step, finish, work=work, digest=digest, device=device, minutes=minutes)


def train_step(
    job: ClassifierJob,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Mapping[str, Tensor],
) -> Tensor:
    """One step down the mean of the labels' batch-mean losses; returns those losses (L,) before the step."""
    with autocast(job.precision, images.device):
        outputs = model(images)
    losses = classification_losses(outputs, labels).mean(dim=0)
    optimizer.zero_grad(set_to_none=True)
    losses.mean().backward()
    optimizer.step()
    return losses.detach()


def classification_losses(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy float32 (B, L) of logits (B, C) to class numbers long (B,), per picture and label of `outputs`."""
    losses = [nn.functional.cross_entropy(outputs[label].float(), labels[label], reduction="none") for label in outputs]
    return torch.stack(losses, dim=1)


def augmented(images: Tensor, seed: int) -> Tensor:
    """Each image (B, 3, H, W) mirrored or not, even odds, and moved by up to an 8th of each side, edges repeated."""
    count, channels, height, width = images.shape
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same draws on every device

    def places(side: int) -> Tensor:
        shift = torch.randint(-(side // SHIFT), side // SHIFT + 1, (count, 1), generator=generator)
        return (torch.arange(side) + shift).clamp_(0, side - 1)

    rows, columns = places(height), places(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    picture = torch.arange(count, device=images.device).reshape(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).reshape(-1, 1, 1)
    found = rows[:, None, :, None].to(images.device), columns[:, None, None, :].to(images.device)
    return images[picture, channel, *found]


def accuracy(model: Classifier, pictures: Path | PictureBatches, label: str, batch_size: int = 64) -> float:
    """Percent of the pictures whose class of `label` the classifier tells, on the device where it is."""
    if isinstance(pictures, Path):
        device = next(model.parameters()).device
        with contextlib.closing(PictureBatches(pictures, [label], device)) as batches:
            return accuracy(model, batches, label, batch_size)
    correct = 0
    with torch.no_grad():
        for first in range(0, pictures.count, batch_size):
            batch = pictures.get(range(first, min(first + batch_size, pictures.count)))
            correct += int((model(batch.images)[label].argmax(dim=1) == batch.labels[label]).sum())
    return 100 * correct / pictures.count


def optimizer_for(job: ClassifierJob, model: nn.Module) -> torch.optim.Optimizer:
    """Adam with torch's betas, or SGD with momentum."""
    parameters = list(model.parameters())
    if job.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=job.learning_rate, weight_decay=job.weight_decay, foreach=True)
    return torch.optim.SGD(
        parameters, lr=job.learning_rate, momentum=job.momentum, weight_decay=job.weight_decay, foreach=True
    )


def epoch_order(job: ClassifierJob, epoch: int, count: int) -> Tensor:
    """A permutation of the rows 0..count-1, one for each epoch."""
    generator = torch.Generator().manual_seed(derive_seed(job.seed, "order", epoch))
    return torch.randperm(count, generator=generator)


@contextlib.contextmanager
def _seeded_layers(seed: int, device: torch.device) -> Iterator[None]:
    """Within it, layers that draw from torch's global state, as dropout of torchvision's networks, draw from `seed`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _check_job(job: ClassifierJob) -> None:
    """ConfigError, in one line, for a job that cannot be."""
    for key, choices in {"optimizer": ("adam", "sgd"), "precision": PRECISIONS}.items():
        if getattr(job, key) not in choices:
            found = getattr(job, key)
            raise ConfigError(f"classifier {job.id}: {key} '{found}' is unknown; choose {' or '.join(choices)}")
    if not job.labels or len(set(job.labels)) < len(job.labels):
        raise ConfigError(f"classifier {job.id}: labels {list(job.labels)}; expected at least one, each once")
    if job.batch_size < 1:
        raise ConfigError(f"classifier {job.id}: batch_size {job.batch_size}; expected at least 1")


def _check_pictures(job: ClassifierJob, model: Classifier, count: int, size: tuple[int, int]) -> None:
    """ConfigError where the network cannot be trained on batches of `count` pictures of `size`."""
    shapes = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    try:
        with torch.no_grad():
            torch.func.functional_call(model, shapes, (torch.empty(count, 3, *size, device="meta"),))
    except (AssertionError, RuntimeError, ValueError) as error:  # torchvision's networks refuse in their own ways
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"classifier {job.id}: {job.backbone} cannot learn from batches of {count} pictures of "
            f"{size[0]}x{size[1]} ({reason}); raise batch_size, use larger pictures, or another backbone"
        ) from error


def _check_weights(job: ClassifierJob, model: Classifier) -> None:
    """DivergedError that names the first weights that are not finite."""
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise DivergedError(
                f"classifier {job.id}: {name} is not finite after the last step of epoch {job.epochs}; "
                f"lower its learning rate ({job.learning_rate:g})"
            )


def _data_identity(data: Path) -> dict[str, Any]:
    """What tells one file of pictures from another without reading all of it."""
    keys = ("dataset", "domain", "split", "classes", "settings", "code", "count", "size")
    with PictureFile(data) as pictures:
        found = {key: getattr(pictures, key) for key in keys}
    return {**found, "bytes": data.stat().st_size}
