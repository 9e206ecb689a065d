"""The pieces of `make bench-gpu`, each measured by itself: training and PGD beside plain ways, variants, the study.

Ours is measured as `headstrong` makes it, within `reproducible`. Plain ways run with torch's own settings, as published
code does: cuDNN, TF32 in convolutions, kernels of any order. All computes on one device; times are wall-clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import attacking, graphs, peers, stepping
from benchmarks.device import (
    as_torch_comes,
    fastest_batch,
    flops_of,
    matrix_rates,
    rates,
    share_of_rate,
    with_cudnn,
)
from benchmarks.gpu_jobs import FullJobs, SampledRun, read_jobs
from benchmarks.gpu_scale import Scale
from benchmarks.gpu_study import from_record, measure, start_rows
from benchmarks.rows import Row, absent, make_row
from benchmarks.scene import EPSILON, STEP, Scene
from benchmarks.side_by_side import Workers, side_by_side
from benchmarks.timing import Times
from headstrong.data.build import build_split
from headstrong.folding import frozen
from headstrong.machine import processors
from headstrong.runtime import computes_in_bfloat16, reproducible

TASKS = "sdn"
SPEED = "images/s"
Tell = Callable[..., None]


@dataclass
class Bench:
    """Where and how to measure. deadline: of time.monotonic. noted: what earlier pieces found, by name. tell: passes
    on ("fact", name, value) and ("run", record) at once, whatever becomes of the piece."""

    device: str
    scale: Scale
    folder: Path
    deadline: float
    noted: dict[str, Any]
    runs: list[dict[str, Any]]
    tell: Tell = field(repr=False)

    def note(self, name: str, value: Any) -> None:
        """Keep a number for later pieces and calls."""
        self.noted[name] = value
        self.tell("fact", name, value)

    def scene(self, side: int) -> Scene:
        """Rooms of this side and a resnet18 on three tasks, on the device."""
        scale = self.scale
        return Scene(
            self.folder / f"rooms-{side}", side, scale.images, scale.batch, scale.epochs, scale.width, TASKS,
            self.device, "auto", self.scale.processes,
        )  # fmt: skip

    def rates(self, ways: Any, contexts: Any = None) -> Times:
        """Images per second of ways that take turns."""
        return rates(ways, self.device, self.scale.rounds, self.scale.seconds, contexts)

    def rate_of(self, precision: str) -> float:
        """The measured matrix rate of a precision, FLOP/s."""
        return float(self.noted[f"matrix rate {precision}"])

    @property
    def ours(self) -> str:
        """The precision that training has here."""
        return "bfloat16" if computes_in_bfloat16("auto", self.device) else "float32"


def device_rows(bench: Bench) -> Iterator[Row]:
    """What the device reaches in products of large square matrices."""
    for precision, rate in matrix_rates(bench.device, bench.scale.matrix, bench.scale.rounds).items():
        bench.note(f"matrix rate {precision}", rate)
        what = precision if precision == "bfloat16" else "float32 without TF32"
        side = bench.scale.matrix
        yield make_row(f"product of {side} x {side} matrices, {what}, the best", "TFLOP/s", [rate / 1e12])
    with reproducible(bench.device, 1):
        on = torch.backends.cudnn.enabled
    bench.note("cuDNN within headstrong.runtime.reproducible", on)


def training_rows(bench: Bench, side: int) -> Iterator[Row]:
    """Images per second of training, ours beside the plain loop, for the studies' batch and the fastest."""
    scene, batch = bench.scene(side), bench.scale.batch
    lack = _missing("PIL")
    pictures = None if lack else stepping.pictures_of(scene)
    limit = bench.scale.slowest
    best = fastest_batch(partial(stepping.our_loop, scene), bench.scale.training_batches, bench.device, limit)
    fed = partial(stepping.plain_loop_from_memory, scene)
    plain_best = fastest_batch(fed, bench.scale.training_batches, bench.device, limit, as_torch_comes)
    workers = min(bench.scale.loaders, processors()[1])
    for title, ours, plain in (
        (f"batch {batch}", batch, batch),
        (f"the fastest batches, {best} and {plain_best}", best, plain_best),
    ):
        ways = {"ours": (stepping.our_loop(scene, ours), ours), "memory": (fed(plain), plain)}
        if pictures is not None:
            ways["png"] = stepping.plain_loop(scene, pictures, plain, workers), plain
        found = bench.rates(ways, {"png": as_torch_comes, "memory": as_torch_comes})
        name = f"training, resnet18, {len(TASKS)} tasks, {side} x {side}, {title}"
        row = partial(make_row, name, SPEED, found["ours"], more_is_better=True)
        if pictures is None:
            yield absent(name, SPEED, f"the loop over PNG files, as published: {lack}")
        else:
            peer = f"plain loop as published: float32 as torch comes, PNG by {workers} processes"
            yield row(found["png"], peer_name=peer, target="ratio >= 4")
        fed_name = "the same plain loop, fed from the device's memory"
        yield row(found["memory"], peer_name=fed_name)
        yield from _shares(bench, name, found["ours"], found["memory"], _training_flops(scene))


def _training_flops(scene: Scene) -> float:
    step = stepping.our_loop(scene, 2)
    with reproducible(scene.device, 1):
        return flops_of(step) / 2


def _shares(bench: Bench, name: str, ours: list[float], plain: list[float], flops: float) -> Iterator[Row]:
    title = f"{name}: share of the measured matrix rate"
    rate = bench.rate_of(bench.ours)
    yield make_row(f"{title}, {bench.ours}", "-", [share_of_rate(one, flops, rate) for one in ours])
    rate = bench.rate_of("float32")
    yield make_row(f"{title} of float32 without TF32, plain", "-", [share_of_rate(one, flops, rate) for one in plain])


def attack_rows(bench: Bench, side: int) -> Iterator[Row]:
    """Images per second of PGD-25, ours beside the same steps written plainly, and torchattacks' where it is."""
    scene, steps = bench.scene(side), bench.scale.steps
    sizes, limit = bench.scale.attack_batches, bench.scale.slowest
    ours, plain = partial(_our_pgd, scene, steps, "bfloat16"), partial(_plain_pgd, scene, steps)
    best = fastest_batch(ours, sizes, bench.device, limit)
    plain_best = fastest_batch(plain, sizes, bench.device, limit, as_torch_comes)
    ways = {
        "bfloat16": (ours(best), best),
        "float32": (_our_pgd(scene, steps, "float32", best), best),
        "plain": (plain(plain_best), plain_best),
    }
    reason = peers.missing("torchattacks")
    if reason is None:
        ways["torchattacks"] = _torchattacks(scene, steps, plain_best), plain_best
    found = bench.rates(ways, {"plain": as_torch_comes, "torchattacks": as_torch_comes})
    name = f"PGD-{steps} Linf, {len(TASKS)} tasks, {side} x {side}, batches of {best} and {plain_best}"
    peer = "the same steps written plainly: float32 as torch comes, the network not folded"
    row = partial(make_row, unit=SPEED, more_is_better=True)
    yield row(f"{name}, bfloat16", ours=found["bfloat16"], peer=found["plain"], peer_name=peer, target="ratio >= 4")
    yield row(f"{name}, float32 without TF32", ours=found["float32"], peer=found["plain"], peer_name=peer)
    if reason is None:
        other = found["torchattacks"]
        yield row(f"{name}, bfloat16", ours=found["bfloat16"], peer=other, peer_name=peers.titled("torchattacks"))
    else:
        yield absent(f"{name}, bfloat16", SPEED, reason)
    flops = _attack_flops(scene)
    for precision in ("bfloat16", "float32"):
        shares = [share_of_rate(one, steps * flops, bench.rate_of(precision)) for one in found[precision]]
        yield make_row(f"{name}: share of the measured matrix rate, {precision}", "-", shares)


def _our_pgd(scene: Scene, steps: int, precision: str, batch: int) -> Callable[[], object]:
    many = scene.many(batch)
    way = attacking.our_attack(scene, TASKS, precision, steps, batch=many)
    return lambda: way(many.images)


def _plain_pgd(scene: Scene, steps: int, batch: int) -> Callable[[], object]:
    many = scene.many(batch)
    way = attacking.plain_attack(scene, TASKS, steps, many)
    return lambda: way(many.images)


def _torchattacks(scene: Scene, steps: int, batch: int) -> Callable[[], object]:
    many = scene.many(batch)
    network = peers.LossAsClassifier(*attacking.plain(scene, TASKS, many)).eval()
    way = peers.MAKERS["torchattacks"](network, EPSILON, STEP, steps)
    return lambda: way(many.images)


def _attack_flops(scene: Scene) -> float:
    """Of one step on one image, on the network as evaluations prepare it."""
    many = scene.many(2)
    losses = attacking.losses_on(frozen(scene.model, many.images[:1]), many, TASKS, "float32")
    points = many.images.requires_grad_()
    # What counts does not know `autograd.grad`; without gradients of weights, `backward` does the same work.
    with reproducible(scene.device, 1):
        return flops_of(lambda: losses(points).sum().backward()) / 2


def equality_rows(bench: Bench) -> Iterator[Row]:
    """Whether bfloat16 and folding reach what float32 on the network as saved does, trained a little."""
    scene = bench.scene(bench.scale.sides[0])
    with reproducible(bench.device, 1):
        losses = attacking.plain(scene, TASKS)[1]
        job, images = attacking.attack(TASKS, steps=bench.scale.steps), scene.test.images
        ours = attacking.perturb(losses, images, job, TASKS, scene.test.index, 0)
        other = attacking.plain_attack(scene, TASKS, bench.scale.steps)(images)
        share = float((ours - other).abs().gt(1e-6).double().mean())
        yield make_row(
            f"PGD-{bench.scale.steps} on the same network in float32: share of channels that differ", "-", [share],
            peer_name="the same steps written plainly", target=f"ours <= {attacking.DIFFERENT:g}",
        )  # fmt: skip
        yield from attacking.vulnerability_rows(scene, bench.scale.steps)


def layout_rows(bench: Bench) -> Iterator[Row]:
    """What channels last, bfloat16 and cuDNN each bring to a training step."""
    scene, batch = bench.scene(bench.scale.sides[0]), bench.scale.batch
    single, context = replace(scene, precision="float32"), partial(with_cudnn, bench.device)
    ways = {
        f"{bench.ours}, channels last": stepping.our_loop(scene, batch),
        f"{bench.ours}, contiguous": stepping.our_loop(scene, batch, channels_last=False),
        "float32, channels last": stepping.our_loop(single, batch),
        "float32, contiguous": stepping.our_loop(single, batch, channels_last=False),
    }
    contexts: dict[str, Any] = dict.fromkeys(ways, context)
    for name, extra in (
        ("cuDNN off", partial(with_cudnn, bench.device, enabled=False)),
        ("cuDNN tries its kernels (cudnn.benchmark)", partial(with_cudnn, bench.device, benchmark=True)),
        ("as torch comes", as_torch_comes),
    ):
        ways[f"{bench.ours}, channels last, {name}"] = stepping.our_loop(scene, batch)
        contexts[f"{bench.ours}, channels last, {name}"] = extra
    found = bench.rates({name: (work, batch) for name, work in ways.items()}, contexts)
    base = f"{bench.ours}, channels last"
    for name in ways:
        title = f"training, {scene.side} x {scene.side}, batch {batch}: {name}"
        peer = f"{base}, cuDNN on, deterministic"
        yield make_row(title, SPEED, found[name], found[base], peer_name=peer, more_is_better=True)


def graph_training_rows(bench: Bench) -> Iterator[Row]:
    """A training step as a CUDA graph, beside the same step by step, with the losses of both."""
    scene, batch = bench.scene(bench.scale.sides[0]), bench.scale.batch
    name = f"training, {scene.side} x {scene.side}, batch {batch}: the step as a CUDA graph"
    with with_cudnn(bench.device):
        step = graphs.RecordableStep(scene, batch)
        step()
        apart = graphs.losses_of_steps(step, None, None, 3)
        replay, result = graphs.recorded(step)
        replayed = graphs.losses_of_steps(step, replay, result, 3)
        off = float(((replayed - apart).abs() / apart.abs().clamp(min=1e-6)).max())
        yield make_row(
            f"{name}: largest relative difference of the losses of three steps", "-", [off], target="ours <= 0.01"
        )
        context = partial(with_cudnn, bench.device)
        ways = {"graph": (replay, batch), "steps": (step, batch)}
        found = bench.rates(ways, dict.fromkeys(ways, context))
    yield make_row(name, SPEED, found["graph"], found["steps"], peer_name="step by step, cuDNN on", more_is_better=True)


def graph_attack_rows(bench: Bench) -> Iterator[Row]:
    """A step of PGD as a CUDA graph, beside the same step by step, with the images of both."""
    scene, steps, batch = bench.scene(bench.scale.sides[0]), bench.scale.steps, bench.scale.batch
    many = scene.many(batch)
    name = f"PGD-{steps}, {scene.side} x {scene.side}, batch {batch}, bfloat16: the step as a CUDA graph"
    with with_cudnn(bench.device):
        losses = attacking.losses_on(frozen(scene.model, many.images[:1]), many, TASKS, "bfloat16")
        work = graphs.RecordableAttack(losses, many.images, steps)
        apart = work.run(work.step).clone()
        replay, _ = graphs.recorded(work.step)
        share = float((work.run(replay) - apart).abs().gt(1e-6).double().mean())
        yield make_row(
            f"{name}: share of channels that differ", "-", [share], target=f"ours <= {attacking.DIFFERENT:g}"
        )
        ways: Any = {"graph": (lambda: work.run(replay), batch), "steps": (lambda: work.run(work.step), batch)}
        found = bench.rates(ways, dict.fromkeys(ways, partial(with_cudnn, bench.device)))
    yield make_row(name, SPEED, found["graph"], found["steps"], peer_name="step by step, cuDNN on", more_is_better=True)


def compile_rows(bench: Bench) -> Iterator[Row]:
    """The network through torch.compile in PGD: seconds to compile, and images per second."""
    scene, steps, batch = bench.scene(bench.scale.sides[0]), bench.scale.steps, bench.scale.batch
    many = scene.many(batch)
    name = f"PGD-{steps}, {scene.side} x {scene.side}, batch {batch}, bfloat16: torch.compile of the network"
    with with_cudnn(bench.device):
        network = frozen(scene.model, many.images[:1])
        compiled: Any = torch.compile(network)
        works = {
            key: graphs.RecordableAttack(attacking.losses_on(one, many, TASKS, "bfloat16"), many.images, steps)
            for key, one in (("compiled", compiled), ("plain", network))
        }
        start = time.perf_counter()
        works["compiled"].step()
        if bench.device != "cpu":
            torch.cuda.synchronize()
        yield make_row(f"{name}: the first step", "s", [time.perf_counter() - start])
        ways: Any = {key: (partial(work.run, work.step), batch) for key, work in works.items()}
        found = bench.rates(ways, dict.fromkeys(ways, partial(with_cudnn, bench.device)))
    yield make_row(name, SPEED, found["compiled"], found["plain"], peer_name="without it", more_is_better=True)


def sides_rows(bench: Bench) -> Iterator[Row]:
    """Trainings side by side on one device: images per second of all together, and which number is the fastest."""
    scene = bench.scene(bench.scale.sides[0])
    assert scene.train_file.is_file()  # made here, before all of them read it
    counts = bench.scale.side_by_side
    workers = Workers(max(counts), bench.device, bench.folder)
    try:
        found = {count: side_by_side(workers, count, scene, bench.scale.side_seconds) for count in counts}
    finally:
        workers.close()
    best = max(found, key=lambda count: found[count])
    bench.note("side by side", best)
    for count, rate in found.items():
        title = f"training, {scene.side} x {scene.side}, batch {scene.batch}: {count} processes side by side"
        peer = found[counts[0]]
        yield make_row(title, SPEED, [rate], [peer], peer_name="one process", more_is_better=True)
    yield from start_rows(read_jobs(), workers.started, best)


def rooms_rows(bench: Bench) -> Iterator[Row]:
    """The data of the study, built as its workflow builds it, by as many processes as there are cores."""
    processes = processors()[1]
    for split, settings in bench.scale.data(read_jobs()).items():
        path = _study_data(bench) / f"{split}.h5"
        if path.is_file():
            yield absent(f"building {split} data of the study", "s", "they are there already, from an earlier call")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        build_split(settings, path, code="benchmark", processes=processes)
        took = time.perf_counter() - start
        size = " x ".join(map(str, settings["size"]))
        yield make_row(f"building {settings['count']} rooms {size} ({split}), {processes} processes", "s", [took])


def _study_data(bench: Bench) -> Path:
    return bench.folder / "study"


def study_piece(bench: Bench) -> Iterator[Row]:
    """As many trainings and evaluations of the study as fit. Has no rows: they are made of all that was told."""
    jobs = read_jobs()
    for split, settings in bench.scale.data(jobs).items():  # on a machine that an earlier call's data are not on
        path = _study_data(bench) / f"{split}.h5"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            build_split(settings, path, code="benchmark", processes=processors()[1])
    counts = bench.scale.side_by_side
    count = int(bench.noted.get("side by side", counts[len(counts) // 2]))
    bench.note("side by side", count)  # what the hours of the study are reckoned with
    workers = Workers(count, bench.device, bench.folder)
    try:
        whole = measure(
            workers, count, sampled(bench.scale, jobs), [from_record(one) for one in bench.runs],
            data=_study_data(bench), folder=bench.folder / "runs", deadline=bench.deadline,
            tell=lambda run: bench.tell("run", run),
        )  # fmt: skip
    finally:
        workers.close()
    if not whole:
        raise StillGoing
    yield from ()


class StillGoing(Exception):  # noqa: N818  (nothing went wrong)
    """There is more of this piece to measure, in another call."""


def sampled(scale: Scale, jobs: FullJobs) -> tuple[SampledRun, ...]:
    """The runs of the sample, made small where the scale is."""
    return tuple(scale.run(one) for one in jobs.sample[: scale.runs])


def _missing(module: str) -> str | None:
    try:
        __import__(module)
    except Exception as error:  # whatever it is, the reason belongs in the table
        return f"{module} cannot be imported: {' '.join(str(error).split())}"
    return None
