"""PGD beside other libraries', in float32 and bfloat16, and the balanced attack beside one backward pass per task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.rows import Row, absent, make_row
from benchmarks.scene import EPSILON, STEP, Scene, attack
from benchmarks.timing import Work, fastest, interleaved
from headstrong.attacks.run import Losses, perturb
from headstrong.data.batches import Batch
from headstrong.folding import frozen
from headstrong.losses import per_sample_losses
from headstrong.models import MultiTaskModel
from headstrong.runtime import autocast, reproducible

Way = Callable[[Tensor], Tensor]  # images (B, 3, H, W) in [0, 1] -> adversarial images
STEPS, TASKS = 25, "sdn"
BEHIND = ("adv-lib",)  # the result is the last point looked at, one step before the last one reached
DIFFERENT = 1e-3  # share of channels that two ways with the same arithmetic may leave at another value
ROUNDED = 0.02  # relative difference of vulnerabilities that rounding alone may make: signs of gradients near 0 turn
BALANCED_STEPS = 5


class UnequalError(RuntimeError):
    """Two ways that should give the same gave different results: their times cannot be compared."""


def pgd_rows(scene: Scene, rounds: int, steps: int = STEPS) -> Iterator[Row]:
    """Rows of PGD against the peers that are there, and of what its results differ by."""
    with reproducible("cpu", 1):
        ours = {kind: our_attack(scene, TASKS, kind, steps) for kind in ("float32", "bfloat16")}
        yield from vulnerability_rows(scene, steps)
        found = {name: peers.missing(name) for name in peers.MAKERS}
        makers = {name: peers.MAKERS[name] for name, reason in found.items() if reason is None}
        network = peers.LossAsClassifier(*plain(scene, TASKS)).eval()
        others = {name: make(network, EPSILON, STEP, steps) for name, make in makers.items()}
        yield from _equality_rows(scene, others, steps)
        images = scene.test.images
        times = interleaved({name: _work(way, images) for name, way in {**ours, **others}.items()}, rounds)
    title = f"PGD-{steps} Linf, {scene.batch} images {scene.side} x {scene.side}, {len(TASKS)} tasks"
    compared = [name for name in others if name not in BEHIND]
    if compared:
        best = fastest(times, compared)
        row = partial(make_row, unit="s a batch", peer=times[best], peer_name=f"{peers.titled(best)}, the fastest")
        yield row(f"{title}, float32", ours=times["float32"], target="ratio >= 1.25")
        yield row(f"{title}, bfloat16 against float32", ours=times["bfloat16"], target="ratio >= 2")
    for name, reason in found.items():
        if reason is not None:
            yield absent(f"{title}, float32", "s a batch", reason)
        else:
            yield make_row(
                f"{title}, float32", "s a batch", times["float32"], times[name], peer_name=peers.titled(name)
            )


def our_attack(
    scene: Scene, tasks: str, precision: str, steps: int, balancer: str = "total", batch: Batch | None = None
) -> Way:
    """Our attack on a batch (the first test images) on the network as an evaluation prepares it."""
    batch = scene.test if batch is None else batch
    network = frozen(scene.model, batch.images[:1])
    job = attack(tasks, balancer, steps)

    losses = losses_on(network, batch, tasks, precision)
    return lambda images: perturb(losses, images, job, tasks, batch.index, 0)


def losses_on(network: nn.Module, batch: Batch, tasks: str, precision: str) -> Losses:
    """The attacked losses (B, T) of a batch on a network, at any images."""

    def at(points: Tensor) -> Tensor:
        with autocast(precision, points.device):
            outputs = network(points, tasks)
        return per_sample_losses(outputs, batch, tasks, pixels="valid", class_weights=None)

    return at


def plain_step(losses: Losses, clean: Tensor, points: Tensor) -> Tensor:
    """One step of PGD in the Linf ball, written down plainly: gradient of the summed losses, sign, ball, [0, 1]."""
    points = points.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(losses(points).sum(), points)
    moved = points.detach() + STEP * gradient.sign()
    return torch.minimum(torch.maximum(moved, clean - EPSILON), clean + EPSILON).clamp(0, 1)


def plain_attack(scene: Scene, tasks: str, steps: int, batch: Batch | None = None) -> Way:
    """PGD by `plain_step` in float32 on the network as it was saved, in torch's usual memory layout."""
    _, losses = plain(scene, tasks, batch)

    def run(images: Tensor) -> Tensor:
        points = images
        for _ in range(steps):
            points = plain_step(losses, images, points)
        return points

    return run


def plain(scene: Scene, tasks: str, batch: Batch | None = None) -> tuple[MultiTaskModel, Losses]:
    """The network as it was saved, in torch's usual memory layout, and the attacked losses (B, T) on it."""
    model = scene.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    truth = scene.test if batch is None else batch

    def losses(images: Tensor) -> Tensor:
        return per_sample_losses(model(images, tasks), truth, tasks, pixels="valid", class_weights=None)

    return model, losses


def vulnerability(losses: Callable[[Tensor], Tensor], clean: Tensor, attacked: Tensor) -> Tensor:
    """Adversarial vulnerability of each image, float64 (B,): by how much its summed loss rises."""
    with torch.no_grad():
        return (losses(attacked).double() - losses(clean).double()).sum(dim=1)


def check_close(name: str, ours: float, other: float, limit: float) -> float:
    """Their relative difference. Raises UnequalError where it is above the limit."""
    off = abs(other - ours) / abs(ours)
    if not off <= limit:
        raise UnequalError(f"{name}: {other:g}, ours {ours:g}; they should be equal to {limit:.0%}")
    return off


def check_same(name: str, ours: Tensor, other: Tensor) -> float:
    """Share of channels at which images differ. Raises UnequalError where it is above `DIFFERENT`."""
    share = float((ours - other).abs().gt(1e-6).double().mean())
    if not share <= DIFFERENT:
        raise UnequalError(f"{name}: {share:.1%} of the channels are not where ours are")
    return share


def _equality_rows(scene: Scene, others: Mapping[str, Way], steps: int) -> Iterator[Row]:
    """Our attack on the very network that the peers are given: the same images, channel for channel."""
    _, losses = plain(scene, TASKS)
    images = scene.test.images
    ours = perturb(losses, images, attack(TASKS, steps=steps), TASKS, scene.test.index, 0)
    for name, way in others.items():
        if name not in BEHIND:
            share = check_same(name, ours, way(images))
            title = f"PGD-{steps} on the same network in float32: share of channels that differ"
            yield make_row(title, "-", [share], peer_name=peers.titled(name), target=f"ours <= {DIFFERENT:g}")


def vulnerability_rows(scene: Scene, steps: int) -> Iterator[Row]:
    """What folding and bfloat16 change, measured by the network as it was saved, in float32."""
    values: dict[str, list[Tensor]] = {"plain": [], "float32": [], "bfloat16": []}
    for batch in scene.batches:
        _, losses = plain(scene, TASKS, batch)
        attacked = {kind: our_attack(scene, TASKS, kind, steps, batch=batch)(batch.images) for kind in list(values)[1:]}
        attacked["plain"] = perturb(losses, batch.images, attack(TASKS, steps=steps), TASKS, batch.index, 0)
        for name, images in attacked.items():
            values[name].append(vulnerability(losses, batch.images, images))
    found = {name: float(torch.cat(parts).mean()) for name, parts in values.items()}
    title = f"adversarial vulnerability after PGD-{steps}, {scene.batch * len(scene.batches)} images"
    for name, other in (("float32", "plain"), ("bfloat16", "float32")):
        off = check_close(f"vulnerability, {name}", found[other], found[name], ROUNDED)
        what = "folded against as saved" if other == "plain" else f"{name} against {other}"
        yield make_row(f"{title}: relative difference, {what}", "-", [off], target=f"ours <= {ROUNDED:g}")


def balanced_rows(scene: Scene, rounds: int) -> Iterator[Row]:
    """The balanced attack with one backward pass for all tasks, beside one for each, on the same network."""
    tasks = scene.tasks
    with reproducible("cpu", 1):
        steps, images = BALANCED_STEPS, scene.test.images
        one, each = our_attack(scene, tasks, "float32", steps, "dgba"), balanced_by_task(scene, tasks, steps)
        losses = plain(scene, tasks)[1]
        same = perturb(losses, images, attack(tasks, "dgba", steps), tasks, scene.test.index, 0)
        check_same("balanced attack, a backward pass per task", same, each(images))
        times = interleaved({"one": _work(one, images), "each": _work(each, images)}, rounds)
    by_step = {name: [seconds / steps for seconds in found] for name, found in times.items()}
    yield make_row(
        f"balanced attack, {len(tasks)} tasks, {scene.batch} images {scene.side} x {scene.side}", "s a step",
        by_step["one"], by_step["each"], peer_name="a backward pass per task, as published", target="ratio >= 3",
    )  # fmt: skip


def balanced_by_task(scene: Scene, tasks: str, steps: int) -> Way:
    """Steps of the balanced attack as its published code makes them: one forward, then one backward pass per task.

    Each task's gradient is divided by that image's loss, the quotients are added up and the image follows the sign.
    """
    model, _ = plain(scene, tasks)

    def run(images: Tensor) -> Tensor:
        points = images
        for _ in range(steps):
            points = points.detach().requires_grad_()
            outputs = model(points, tasks)
            direction = torch.zeros_like(images)
            for letter in tasks:  # each loss by itself: a backward pass then runs through its own decoder only
                loss = per_sample_losses(outputs, scene.test, letter, pixels="valid", class_weights=None)[:, 0]
                (gradient,) = torch.autograd.grad(loss.mean(), points, retain_graph=letter != tasks[-1])
                direction += gradient / loss.detach().view(-1, 1, 1, 1)
            moved = points.detach() + STEP * direction.sign()
            points = torch.minimum(torch.maximum(moved, images - EPSILON), images + EPSILON).clamp(0, 1)
        return points

    return run


def _work(way: Way, images: Tensor) -> Work:
    return lambda: way(images)
