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
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstrong import class_losses
from headstrong.checkpoints import configuration_digest
from headstrong.data.picture_batches import PictureBatches
from headstrong.data.pictures import PictureFile
from headstrong.errors import BrokenFileError, ConfigError, DivergedError
from headstrong.jobs import ClassifierJob, ClassLossJob, to_dict
from headstrong.loop import Run, optimizer_for, rate_at, train_run
from headstrong.models.classifier import Classifier, build_classifier, find_pretrained, save_classifier, to_device
from headstrong.provenance import code_digest, file_digest, write_atomically
from headstrong.runtime import PRECISIONS, autocast, reproducible, seeded_layers
from headstrong.seeds import derive_seed

MARGIN_UNIT = math.pi / 64  # of margins, as in the CAMRI paper's code
# What each loss but the cross entropy is told, of a job's keys.
_TOLD = {
    "wce": {"weight", "important"},
    "crwwce": {"weight", "important"},
    "softmax": {"scale"},
    "arcface": {"margin", "scale"},
    "camri": {"margin", "scale", "important"},
}
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
    important: Sequence[str] = (),
) -> None:
    """Train the classifier of a job on a file of pictures; write history and weights when all is done.

    history: CSV, one row per epoch: epoch, learning_rate and `loss_<label>`, the mean of the batches' cross entropies
    before their step. work: this job's own scratch folder; the rolling checkpoint in it, written every
    `checkpoint_minutes` (0: after every step) and at SIGTERM or SIGINT, is found by the next call and removed at
    success. device: "cpu" or "cuda". threads: of the CPU. code: digest of the training code; None: computed here.
    important: the classes that a loss with `important` favours. The SHA-256 of the pretrained weights and the important
    classes are stored with the classifier as `pretrained_sha256` and `important`.

    Raises ConfigError for a job that cannot be, MissingDataError or BrokenFileError for pictures that are not what they
    should be, what `find_pretrained` and `load_pretrained` raise, and DivergedError when a loss or a weight is no
    longer a number; then there are no outputs.
    """
    _check_job(job)
    with reproducible(device, threads), contextlib.closing(PictureBatches(data, job.labels, device)) as batches:
        _train(job, data, batches, weights, history, work, device, checkpoint_minutes, code, important)


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
    important: Sequence[str],
) -> None:
    if batches.count == 0:
        raise BrokenFileError(f"{data}: holds no pictures to train on; make it again with at least one")
    heads = {label: len(batches.classes[label]) for label in job.labels}
    size = min(job.batch_size, batches.count)
    source = None if job.pretrained is None else find_pretrained(job.pretrained)
    pretrained = None if source is None else file_digest(source)
    losses_of = losses_of_job(job, batches.classes, important, device)
    head = "cosine" if job.loss is not None and job.loss.name in class_losses.COSINES else "linear"
    fresh = build_classifier(job.backbone, heads, job.width, job.seed, source, job.stem, job.feature, head)
    model = to_device(fresh, device).train()
    _check_pictures(job, model, size, batches.size)
    optimizer = optimizer_for(job, model)
    code = code or code_digest("headstrong.classifier_training")
    digest = configuration_digest(
        job=to_dict(job),
        data=_data_identity(data),
        pretrained=pretrained,
        important=list(important),
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
        with seeded_layers(derive_seed(job.seed, "layers", epoch, number), images.device):
            return train_step(job, model, optimizer, images, batch.labels, losses_of)

    def finish(table: str) -> None:
        _check_weights(job, model)
        write_atomically(history, table)
        extra = {"code": code, "pretrained_sha256": pretrained, "important": list(important)}
        save_classifier(weights, model, batches.classes, to_dict(job), extra)

    run = Run(
        f"classifier {job.id}",
        job.epochs,
        batches.count // size,  # the last, incomplete batch is dropped
        size,
        tuple(("loss", label) for label in job.labels),
        functools.partial(rate_at, job),
    )
    train_run(run, model, optimizer, step, finish, work=work, digest=digest, device=device, minutes=minutes)


Losses = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]  # (outputs, labels) -> (B, L)


def train_step(
    job: ClassifierJob,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Mapping[str, Tensor],
    losses_of: Losses | None = None,
) -> Tensor:
    """One step down the mean of the labels' batch-mean losses; returns those losses (L,) before the step.

    losses_of: what `losses_of_job` gives; None: cross entropy.
    """
    with autocast(job.precision, images.device):
        outputs = model(images)
    losses = (losses_of or classification_losses)(outputs, labels).mean(dim=0)
    optimizer.zero_grad(set_to_none=True)
    losses.mean().backward()
    optimizer.step()
    return losses.detach()


def classification_losses(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy float32 (B, L) of logits (B, C) to class numbers long (B,), per picture and label of `outputs`."""
    return torch.stack([class_losses.cross_entropy(outputs[label].float(), labels[label]) for label in outputs], dim=1)


def losses_of_job(
    job: ClassifierJob, classes: Mapping[str, Sequence[str]], important: Sequence[str], device: torch.device | str
) -> Losses:
    """The losses that a job is trained with, of outputs and class numbers by label, float32 (B, L).

    classes: names by label; important: those that the loss favours. A margin of m is m / 64 of pi. A weight of w is
    that of the important classes in wce, where others weigh 1; in crwwce it is the cost of taking an important class
    for any other, where other mistakes cost nothing beside the cross entropy: the paper does not say which it used.
    Raises ConfigError for important classes that there are not, for some where the loss favours none, and for none
    where it favours some.
    """
    loss = job.loss
    if loss is None:
        return classification_losses
    label, favoured = job.labels[0], torch.zeros(len(classes[job.labels[0]]), device=device)
    for name in important:
        if name not in classes[label]:
            raise ConfigError(f"classifier {job.id}: {label} has no class '{name}'; it has {', '.join(classes[label])}")
        favoured[list(classes[label]).index(name)] = 1
    if (loss.important is not None) != bool(important):
        wanted = f"the classes of {loss.important}" if loss.important else "none"
        raise ConfigError(f"classifier {job.id}: important classes {list(important)} given; expected {wanted}")
    margins = favoured * (loss.margin or 0) * MARGIN_UNIT
    ones = torch.ones_like(favoured)
    of_name: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "wce": lambda x, t: class_losses.weighted_cross_entropy(x, t, ones + favoured * ((loss.weight or 1) - 1)),
        "crwwce": lambda x, t: class_losses.real_world_weight_cross_entropy(
            x, t, ones, (favoured * (loss.weight or 0))[:, None].expand(-1, len(ones))
        ),
        "softmax": lambda x, t: class_losses.normalised_softmax(x, t, loss.scale or 1),
        "arcface": lambda x, t: class_losses.arcface(
            x, t, (loss.margin or 0) * MARGIN_UNIT, loss.scale or 1, loss.large_angles
        ),
        "camri": lambda x, t: class_losses.camri(x, t, margins, loss.scale or 1, loss.large_angles),
    }
    chosen = of_name[loss.name]
    return lambda outputs, labels: chosen(outputs[label].float(), labels[label])[:, None]


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
    """Percent of the pictures whose class of `label` the classifier tells, on the device where it is, in its mode.

    pictures: at least one.
    """
    if isinstance(pictures, Path):
        device = next(model.parameters()).device
        with contextlib.closing(PictureBatches(pictures, [label], device)) as batches:
            return accuracy(model, batches, label, batch_size)
    correct = 0
    with torch.no_grad():
        for batch in pictures.in_order(batch_size):
            correct += int((model(batch.images)[label].argmax(dim=1) == batch.labels[label]).sum())
    return 100 * correct / pictures.count


def epoch_order(job: ClassifierJob, epoch: int, count: int) -> Tensor:
    """A permutation of the rows 0..count-1, long (count,), one for each epoch."""
    generator = torch.Generator().manual_seed(derive_seed(job.seed, "order", epoch))
    return torch.randperm(count, generator=generator)


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
    if job.loss is not None:
        _check_loss(job, job.loss)


def _check_loss(job: ClassifierJob, loss: ClassLossJob) -> None:
    if loss.name not in _TOLD:
        raise ConfigError(f"classifier {job.id}: loss '{loss.name}' is unknown; choose {', '.join(_TOLD)}, or none")
    if len(job.labels) != 1:
        raise ConfigError(f"classifier {job.id}: loss '{loss.name}' is for one label, not {list(job.labels)}")
    if loss.large_angles not in class_losses.LARGE_ANGLES:
        known = " or ".join(class_losses.LARGE_ANGLES)
        raise ConfigError(f"classifier {job.id}: large_angles '{loss.large_angles}' is unknown; choose {known}")
    told = {key for key in ("margin", "scale", "weight", "important") if getattr(loss, key) is not None}
    if told != _TOLD[loss.name]:
        wanted = ", ".join(sorted(_TOLD[loss.name]))
        raise ConfigError(f"classifier {job.id}: loss '{loss.name}' needs {wanted}; given: {', '.join(sorted(told))}")


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
