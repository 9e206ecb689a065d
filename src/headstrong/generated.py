"""Evaluation of a family of generators: clean, under noise, under every perturbation, per image, into one HDF5 file.

    /index/<task>                                str   (N,)     names of the images
    /labels/<task>                               int16 (N,)     classes only: the true class
    /clean/<victims>/<task>/LEAF                                without a perturbation
    /noise/<norm>-<radius>/<victims>/<task>/LEAF                linf: uniform noise in the ball; l2: a random direction
                                                                at the full radius; the same for all victims
    /generated/<generator>/<victims>/<task>/LEAF                under the task's own perturbation
    /trivial/<task>/LEAF                                        dense only: `data.constants`, on the loss of the victims
                                                                trained against
    /examples/clean/<task>/image, truth, output                 of the first K images, by the victims trained against
    /examples/<generator>/<task>/perturbation, output           perturbation float32 (K, 3, H, W)

    LEAF, classes: prediction int16 (N,), loss float32 (N,)
    LEAF, dense:   loss float32 (N,), NaN where the task is absent; measures/<name> float32 (N,), NaN where no pixel
                   counts (`headstrong.measures`); s: confusion uint32 (N, C, C), pixel counts, [true, predicted]
    LEAF of noise and generated, also: linf, l2 float32 (N,), what was added, after clamping the image to [0, 1]

Perturbations, their sizes and epsilon are in pixel units, images in [0, 1]; the name of a noise has `radius.in_name`.
File attributes: format, family, kind, tasks, victims, dataset, job, code, classes (names by task). Attributes of a
noise: norm, epsilon. Attributes of a generator: method, mode, goal, norm, epsilon, parameters (of all its networks),
job, targets (class names by task). truth and output of an example: the class (K,); s uint8 (K, H, W); d and D metres
(K, H, W); n unit vectors (K, 3, H, W); other letters (K, C, H, W), encoded. Equal runs give equal bytes.

Source: Guo et al. (2020), "Multi-Task Adversarial Attack", arXiv 2011.09824, section 4.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from headstrong import radius
from headstrong.data.cache import SplitFile
from headstrong.data.pictures import PictureFile
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.generated_bench import Bench, Leaf, Leaves
from headstrong.generated_files import export_perturbations
from headstrong.generator_training import load_generators, make_perturbations
from headstrong.jobs import GeneratedJob, GeneratorJob, to_dict
from headstrong.learned import NO_GENERATOR, NOT_LEARNED, clearly_more, learned, majority_right
from headstrong.models.generators import Generators, count_parameters
from headstrong.progress import BatchProgress
from headstrong.provenance import atomic_path, settings_json
from headstrong.runtime import reproducible
from headstrong.victims import open_victims

FORMAT = "headstrong-generated-2"
log = logging.getLogger(__name__)


def evaluate_family(
    job: GeneratedJob,
    generators: Mapping[str, Path],
    victims: Mapping[tuple[str, str], Path],
    data: Mapping[str, Path],
    train: Mapping[str, Path] | None,
    output: Path,
    perturbations: Path,
    *,
    device: str,
    threads: int,
    code: str,
) -> None:
    """Measure all victims of a family clean, under noise and under every generator's perturbations, into `output`.

    generators: weights by id. victims: weights by (name of the victims, task). data: test images by task. train: dense
    only, training images by task, for the constant predictor. perturbations: folder that gets the universal
    perturbations, a folder for each generator (`headstrong.generated_files`).

    The file appears only when whole. Equal arguments on one type of device give equal bytes. Raises ConfigError where
    the arguments are not those of the job, MissingDataError or BrokenFileError where weights or data are not what they
    should be, and DivergedError where a loss is not a number.
    """
    _check_arguments(job, generators, victims, data, train)
    with reproducible(device, threads):
        bench = Bench(
            job,
            {
                (name, task): victim
                for name in (job.victims, *job.transfer)
                for task, victim in open_victims(
                    job.kind, job.label, {task: victims[name, task] for task in job.tasks}, data, device, job.samples
                ).items()
            },
            device,
        )
        _check_data(bench, data)
        for one in job.generators:  # now, not after hours of work
            _load(one, generators[one.id], bench, "cpu")
        with atomic_path(output) as part, h5py.File(part, "w", locking=False) as file:
            file.attrs["format"] = FORMAT
            for name in ("family", "kind", "victims"):
                file.attrs[name] = getattr(job, name)
            file.attrs["tasks"] = json.dumps(job.tasks)
            file.attrs["job"] = settings_json(to_dict(job))
            file.attrs["code"] = code
            _store_data(file, bench, data)
            _measure_all(bench, file, generators, perturbations)
            if train is not None and job.kind == "dense":
                for task in job.tasks:
                    _store_leaf(file, f"trivial/{task}", bench.trivial(task, train[task]))


def _measure_all(bench: Bench, file: h5py.File, generators: Mapping[str, Path], perturbations: Path) -> None:
    job = bench.job
    perturbations.mkdir(parents=True, exist_ok=True)
    balls = list(dict.fromkeys((one.norm, one.epsilon) for one in job.generators))
    noises: dict[tuple[str, float], Leaves] = {}
    total = bench.rounds * (1 + len(balls) + len(job.generators))
    with BatchProgress(job.family, total) as progress:
        clean = bench.measure(None, "clean images", progress.advance)
        _store_leaves(file, "clean", clean)
        progress.finished("clean", partial(_said, job, clean, clean))
        _warn_of_victims(job, file, clean)
        _store_by_task(file, "examples/clean", bench.clean_examples())
        for norm, epsilon in balls:
            name = f"{norm}-{radius.in_name(epsilon)}"
            found = bench.measure(bench.noise(norm, epsilon), f"noise {name}", progress.advance)
            _store_leaves(file, f"noise/{name}", found)
            file[f"noise/{name}"].attrs.update({"norm": norm, "epsilon": epsilon})
            noises[norm, epsilon] = found
            progress.finished(f"noise {name}", partial(_said, job, clean, found))
        for one in job.generators:
            networks = _load(one, generators[one.id], bench, bench.device)
            if one.mode == "universal":
                made = make_perturbations(networks, one, None, bench.size, bench.device)
                arrays = {task: (values[0] * radius.SHADES).float().cpu().numpy() for task, values in made.items()}
                export_perturbations(perturbations / one.id, one, arrays)
            change = bench.generated(networks, one)
            found = bench.measure(change, f"generator {one.id}", progress.advance)
            _store_leaves(file, f"generated/{one.id}", found)
            _describe(file[f"generated/{one.id}"], one, count_parameters(networks))
            _store_by_task(file, f"examples/{one.id}", bench.examples(change))
            progress.finished(one.id, partial(_said, job, clean, found))
            _warn_of_generator(job, one, found, noises[one.norm, one.epsilon])


def _warn_of_victims(job: GeneratedJob, file: h5py.File, clean: Leaves) -> None:
    for (name, task), leaf in clean.items():
        if "prediction" in leaf:
            truth = file[f"labels/{task}"][:].astype(np.int64)
            if not learned(leaf["prediction"] == truth, majority_right(truth)):
                log.warning("family %s, victims %s: classifier of %s: %s", job.family, name, task, NOT_LEARNED)


def _warn_of_generator(job: GeneratedJob, one: GeneratorJob, found: Leaves, noise: Leaves) -> None:
    """Of untargeted ones; whether targeted ones reach their class is in generated.csv."""
    for task in job.tasks if one.goal == "untargeted" else ():
        place = (job.victims, task)
        if not clearly_more(found[place]["loss"], noise[place]["loss"]):
            log.warning("family %s, generator %s, task %s: %s", job.family, one.id, task, NO_GENERATOR)


def _load(job: GeneratorJob, path: Path, bench: Bench, device: str) -> Generators:
    """The generators of a file, which must be those of the job, for images of the victims' size."""
    networks, stored, size = load_generators(path, device)
    if stored != job:
        mine, theirs = to_dict(job), to_dict(stored)
        key = next(key for key in mine if mine[key] != theirs[key])
        raise BrokenFileError(
            f"{path}: of another job, {key} is {theirs[key]!r} where {job.id} has {mine[key]!r}; train them again"
        )
    if size != bench.size:
        made, needed = (f"{height}x{width}" for height, width in (size, bench.size))
        raise BrokenFileError(
            f"{path}: generators for images of {made}, the test images have {needed}; train them again"
        )
    return networks


def _check_arguments(
    job: GeneratedJob,
    generators: Mapping[str, Path],
    victims: Mapping[tuple[str, str], Path],
    data: Mapping[str, Path],
    train: Mapping[str, Path] | None,
) -> None:
    names = (job.victims, *job.transfer)
    expected: dict[str, tuple[set[Any], set[Any]]] = {
        "generator": ({one.id for one in job.generators}, set(generators)),
        "victim": ({f"{name}/{task}" for name in names for task in job.tasks}, {"/".join(key) for key in victims}),
        "data": (set(job.tasks), set(data)),
    }
    if job.kind == "dense":
        expected["train"] = (set(job.tasks), set(train or ()))
    for kind, (wanted, given) in expected.items():
        if wanted - given:
            raise ConfigError(f"family {job.family!r}: no {kind} given for {sorted(wanted - given)[0]}")
        if given - wanted:
            raise ConfigError(f"family {job.family!r}: {kind} {sorted(given - wanted)[0]} is none of its job's")
    if len(set(names)) < len(names):
        raise ConfigError(f"family {job.family!r}: victims {', '.join(names)}; name each once")
    for one in job.generators:
        for key in ("kind", "tasks", "label"):
            own, theirs = getattr(job, key), getattr(one, key)
            if own != theirs:
                raise ConfigError(f"family {job.family!r}: {key} of generator {one.id} is {theirs!r}, expected {own!r}")


def _check_data(bench: Bench, data: Mapping[str, Path]) -> None:
    for (name, task), victim in bench.victims.items():
        if victim.count == 0:
            raise MissingDataError(f"{data[task]}: no images; make it again with at least one test image")
        if victim.size != bench.size:
            raise BrokenFileError(
                f"{data[task]}: images of {victim.size}, those of the first task {bench.size}; use one size"
            )
        if victim.classes != bench.own(task).classes:
            raise BrokenFileError(
                f"victims {name!r}: classes of {task!r} are not those of {bench.job.victims!r}; train again"
            )


def _store_data(file: h5py.File, bench: Bench, data: Mapping[str, Path]) -> None:
    """What identifies the test images, and their true classes."""
    job = bench.job
    classes: dict[str, list[str]] = {}
    dataset = ""
    for task in job.tasks:
        count = bench.own(task).count
        if job.kind == "dense":
            with SplitFile(data[task], job.samples) as split:
                names, dataset = split.names, split.dataset
                classes |= {"s": split.classes} if task == "s" else {}
        else:
            with PictureFile(data[task]) as pictures:
                names, dataset = pictures.names, pictures.dataset
                classes[task] = pictures.classes[job.label]
                labels = pictures.read_labels(job.label, np.arange(count))
            _store(file, f"labels/{task}", labels.astype(np.int16))
        _store(file, f"index/{task}", np.array(names[:count], dtype=object))
    file.attrs["dataset"] = dataset
    file.attrs["classes"] = json.dumps(classes, ensure_ascii=False)


def _describe(group: h5py.Group, job: GeneratorJob, parameters: int) -> None:
    for name in ("method", "mode", "goal", "norm", "epsilon"):
        group.attrs[name] = getattr(job, name)
    group.attrs["parameters"] = parameters
    group.attrs["job"] = settings_json(to_dict(job))
    group.attrs["targets"] = json.dumps(dict(zip(job.tasks, job.targets, strict=True)) if job.targets else {})


def _store_leaves(file: h5py.File, place: str, leaves: Leaves) -> None:
    for (name, task), leaf in leaves.items():
        _store_leaf(file, f"{place}/{name}/{task}", leaf)


def _store_by_task(file: h5py.File, place: str, leaves: Mapping[str, Leaf]) -> None:
    for task, leaf in leaves.items():
        _store_leaf(file, f"{place}/{task}", leaf)


def _store_leaf(file: h5py.File, place: str, leaf: Leaf) -> None:
    for name, values in leaf.items():
        _store(file, f"{place}/{name}", values)


def _store(file: h5py.File, place: str, values: NDArray[Any]) -> None:
    # Without times, equal content gives equal bytes.
    filters: dict[str, Any] = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if values.ndim > 1 else {}
    if values.dtype == object:
        filters["dtype"] = h5py.string_dtype()
    file.create_dataset(place, data=values, track_times=False, **filters)


def _said(job: GeneratedJob, clean: Leaves, found: Leaves) -> str:
    places = {task: (job.victims, task) for task in job.tasks}
    return ", ".join(f"{task} {_in_words(clean[place], found[place])}" for task, place in places.items())


def _in_words(clean: Leaf, found: Leaf) -> str:
    if "prediction" in found:
        return f"{100 * np.mean(found['prediction'] != clean['prediction']):.1f} % changed"
    return f"loss {np.nanmean(clean['loss']):.4g} -> {np.nanmean(found['loss']):.4g}"
