"""Made-up evaluations with known numbers, in the layout that evaluation writes: no network, no attack, no images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from headstrong.analysis.records import FORMAT, measures_of
from headstrong.jobs import AttackJob, EvaluationJob, to_dict
from headstrong.tasks import file_safe, in_order

EPSILON = 8 / 255
CLASSES = ("unlabelled", "wall", "floor", "chair", "table", "lamp")
CHAINS = ("DEnds", "nsDdE", "sdnDE", "dDEsn", "nDEds", "EndDs")

CLEAN_ERROR = {
    "s": 48.0,
    "d": 0.004,
    "D": 0.004,
    "n": 0.05,
    "E": 0.9,
    "k": 0.08,
    "K": 0.05,
    "e": 0.1,
    "p": 0.6,
    "r": 0.05,
    "A": 0.03,
}
VULNERABILITY = {
    "s": 0.85,
    "d": 8.0,
    "D": 8.5,
    "n": 12.0,
    "E": 25.0,
    "k": 4.0,
    "K": 6.0,
    "e": 3.0,
    "p": 7.0,
    "r": 9.0,
    "A": 2.0,
}
LOSS_INCREASE = {
    "s": 12.0,
    "d": 0.09,
    "D": 0.09,
    "n": 0.47,
    "E": 0.33,
    "k": 0.1,
    "K": 0.1,
    "e": 0.1,
    "p": 0.3,
    "r": 0.2,
    "A": 0.1,
}


@dataclass
class Study:
    """What to make up: a default-shaped study unless told otherwise."""

    tasks: str = "sdDnE"
    encoders: tuple[str, ...] = ("resnet18", "resnet50")
    early: bool = True
    five: bool = True
    sizes: tuple[int, ...] = (1, 2)
    samples: int = 24
    seed: int = 0
    specs: list[dict[str, object]] = field(default_factory=list)


def plan_rows(study: Study) -> list[dict[str, object]]:
    """Rows of plan.csv for the study."""
    rows: list[dict[str, object]] = list(study.specs)
    for number, encoder in enumerate(study.encoders):
        for size in study.sizes:
            name = (
                ("single" if size == 1 else "combinations")
                if number == 0
                else ("single-encoders" if size == 1 else "encoders")
            )
            for letters in combinations(study.tasks, size):
                rows.append(row(name, encoder, "".join(letters), 12))
                if number == 0 and study.early and size <= 2:
                    rows.append(row("single-early" if size == 1 else "early", encoder, "".join(letters), 4))
    if study.five:
        rows.append(row("five", study.encoders[0], "sdDnE", 12))
    return rows


def row(section: str, encoder: str, letters: str, epochs: int, weights: str | None = None) -> dict[str, object]:
    """One row of plan.csv."""
    return {
        "id": f"{section}-{encoder}-{file_safe(letters)}",
        "section": section,
        "encoder": encoder,
        "main": letters[0],
        "auxiliary": letters[1:],
        "weights": weights or ";".join([str(1 / len(letters))] * len(letters)),
        "epochs": epochs,
        "seed": 1,
        "layout": "",
        "adversarial": "",
        "switches": "",
    }


def attack(
    family: str, balancer: str, attacked: str, stepper: str = "pgd", steps: int = 25, **other: object
) -> AttackJob:
    """An attack of 8/255 in the maximum norm, unless told otherwise."""
    fields = {"norm": "linf", "epsilon": EPSILON, "step_size": 2 / 255, "start": "uniform", "restarts": 1, **other}
    radius = f"{float(fields['epsilon']) * 255:g}"
    name = f"{family}.{balancer}.{file_safe(attacked)}.{fields['norm']}.{radius}.{steps}"
    return AttackJob(
        name=name, family=family, balancer=balancer, attacked=attacked, stepper=stepper, steps=steps, **fields
    )


def attacks_for(letters: str, chains: bool) -> list[AttackJob]:
    """The default study's attacks on a model: every task alone, all at once, noise, and the chains on the big one."""
    sets = [in_order(letters)] if len(letters) > 1 else []
    if chains:
        sets += [in_order(chain[:length]) for chain in CHAINS for length in range(2, len(chain))]
    jobs = [attack("pgd", "single", letter) for letter in letters]
    jobs += [attack("pgd", "total", attacked) for attacked in dict.fromkeys(sets)]
    return [*jobs, attack("noise", "total", letters, "noise", 1)]


def write_study(results: Path, study: Study) -> pd.DataFrame:
    """Write plan.csv and evaluations/*.h5 under `results`; return the plan."""
    results.mkdir(parents=True, exist_ok=True)
    rows = plan_rows(study)
    plan = pd.DataFrame(rows)
    plan.to_csv(results / "plan.csv", index=False)
    for spec in rows:
        letters = str(spec["main"]) + str(spec["auxiliary"])
        jobs = attacks_for(letters, chains=len(letters) == 5)
        write_evaluation(results / "evaluations" / f"{spec['id']}.h5", str(spec["id"]), letters, jobs, spec, study)
    return plan


def study_of_one(folder: Path, jobs: list[AttackJob], letters: str = "nsd", **parts: object) -> tuple[Path, Path]:
    """Write a study of one model, a-resnet18-<letters>, under these attacks; return its evaluation and its plan."""
    spec = {**row("a", "resnet18", letters, 9), "switches": parts.pop("switches", "")}
    wanted = Study(encoders=(), sizes=(), five=False, early=False, specs=[spec], samples=16)
    write_study(folder, wanted)
    path = folder / "evaluations" / f"{spec['id']}.h5"
    path.unlink()
    write_evaluation(path, str(spec["id"]), letters, jobs, spec, wanted, **parts)
    return path, folder / "plan.csv"


def write_evaluation(
    path: Path,
    model: str,
    letters: str,
    attacks: list[AttackJob],
    spec: dict[str, object],
    study: Study,
    miou: str = "labelled",
    baseline: str = "clean",
    gradients: bool = False,
    flags: tuple[dict[str, object], ...] = (),
) -> None:
    """One evaluation file: errors and losses drawn around plausible means, from a seed and the model's name."""
    rng = np.random.default_rng([study.seed, *model.encode()])
    job = EvaluationJob(
        model, letters, tuple(attacks), None, 32, "valid", miou, "valid", "prior", "float32", 0,
        baseline=baseline, gradients=gradients,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = {"resnet18": 1.0, "resnet50": 0.92}.get(str(spec["encoder"]), 0.95) * (
        1.25 if spec["epochs"] == 4 else 1.0
    )
    quality *= float(np.exp(0.06 * rng.normal()))
    with h5py.File(path, "w", track_order=False) as file:
        file.attrs.update(
            format=FORMAT,
            id=model,
            tasks=letters,
            job=json.dumps(to_dict(job)),
            code="0123456789abcdef",
            weights_sha256="00",
            data="rooms",
            classes=json.dumps(CLASSES),
            precision="float32",
        )
        file["index"] = np.array([f"test/{i:05d}" for i in range(study.samples)], dtype=h5py.string_dtype())
        difficulty = np.exp(0.3 * rng.normal(size=study.samples))
        clean = {}
        for letter in letters:
            clean[letter] = _write_task(file.create_group(f"clean/{letter}"), letter, quality * difficulty, None, rng)
            _write_measures(file[f"clean/{letter}"], letter, _more(study, model, letter))
        susceptibility = {letter: float(np.exp(0.2 * rng.normal())) for letter in letters}
        for one in attacks:
            group = file.create_group(f"attacks/{one.name}")
            group.attrs.update({key: value for key, value in vars(one).items() if value is not None})
            group["linf"] = np.full(study.samples, one.epsilon, np.float32)
            group["l2"] = np.full(study.samples, one.epsilon * 50, np.float32)
            for letter in letters:
                strength = (
                    _strength(one, letter) * susceptibility[letter] * np.exp(0.2 * rng.normal(size=study.samples))
                )
                _write_task(group.create_group(letter), letter, quality * difficulty, strength, rng, clean[letter])
                more = _more(study, model, letter)
                _write_measures(group[letter], letter, more, _strength(one, letter), _more(study, one.name, letter))
            _write_notes(group, one, letters, clean, baseline, _more(study, model, one.name))
        if gradients:
            _write_gradients(file.create_group("gradients"), letters, study.samples, _more(study, model, "gradients"))
        file.create_dataset("flags", data=json.dumps(flags), dtype=h5py.string_dtype())


def _more(study: Study, *words: str) -> np.random.Generator:
    """A generator of its own for what came later, so that the numbers of errors and losses stay as they were."""
    return np.random.default_rng([study.seed, *"/".join(words).encode()])


def _write_measures(
    group: h5py.Group,
    letter: str,
    rng: np.random.Generator,
    strength: float = 0.0,
    own: np.random.Generator | None = None,
) -> None:
    """Measures that an attack makes worse by at most a half: shares fall, errors and angles grow."""
    count = len(group["loss"])
    for name in measures_of(letter):
        values = rng.uniform(0.3, 0.9, count)
        if own is not None:
            harm = 0.5 * strength * own.uniform(0.5, 1, count)
            values = values * (1 - harm if name.startswith("within") else 1 + harm)
        group[f"measures/{name}"] = values.astype(np.float32)


def _write_notes(
    group: h5py.Group,
    one: AttackJob,
    letters: str,
    clean: dict[str, tuple[np.ndarray, np.ndarray]],
    baseline: str,
    rng: np.random.Generator,
) -> None:
    """What an attack notes on its way: the curve from the clean loss on, where it started, and its programs."""
    count = len(group["linf"])
    if one.stepper != "noise":
        before = np.array([clean[letter][1].mean() for letter in one.attacked])
        rise = 1 - np.exp(-0.3 * np.arange(one.steps))
        group["curve"] = before * (1 + rise[:, None] * rng.uniform(0.5, 2, len(one.attacked)))
    if baseline == "start":
        for letter in letters:
            place, slight = group.create_group(f"start/{letter}"), np.full(count, 0.1)
            _write_task(place, letter, np.ones(count), slight, rng, clean[letter])
    if one.stepper.startswith("ilp_"):
        solved = rng.random(count) < 0.8
        text = h5py.string_dtype()
        group["program/status"] = np.array(np.where(solved, "optimal", "time limit"), dtype=text)
        group["program/fallback"] = np.array(np.where(solved, "", "closed form"), dtype=text)
        group["program/value"] = value = rng.random(count)
        group["program/gap"] = gap = np.where(solved, 0.0, 0.1)
        group["program/bound"] = value / (1 - gap)


def _write_gradients(group: h5py.Group, letters: str, count: int, rng: np.random.Generator) -> None:
    r = rng.normal(size=(count, len(letters), 12))
    subsets = ["".join(c) for k in range(1, len(letters) + 1) for c in combinations(letters, k)]
    sums = [r[:, [letters.index(x) for x in subset]].sum(axis=1) for subset in subsets]
    group.attrs.update(tasks=letters, subsets=json.dumps(subsets))
    group["gram"] = np.einsum("kip,kjp->kij", r, r)
    group["mean_gram"] = r.mean(axis=0) @ r.mean(axis=0).T
    group["l1"] = np.stack([np.abs(v).sum(axis=1) for v in sums], axis=1)
    group["l2"] = np.stack([np.linalg.norm(v, axis=1) for v in sums], axis=1)


def _strength(one: AttackJob, letter: str) -> float:
    """How much of the task's full vulnerability this attack reaches."""
    if one.stepper == "noise":
        return 0.05
    if letter not in one.attacked:
        return 0.25
    return 1.0 if len(one.attacked) == 1 else (0.95 if letter == "s" else 0.5 if "s" in one.attacked else 0.8)


def _write_task(
    group: h5py.Group,
    letter: str,
    difficulty: np.ndarray,
    strength: np.ndarray | None,
    rng: np.random.Generator,
    clean: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    n = difficulty.size
    if clean is None:
        error = CLEAN_ERROR[letter] * (difficulty if letter != "s" else difficulty**0.2)
        loss = 0.5 * error**0.5
    else:
        error = clean[0] * (1 + VULNERABILITY[letter] * strength)
        loss = clean[1] + LOSS_INCREASE[letter] * strength
    if letter == "s":
        error = np.clip(error, 5, 98)
        group["confusion"] = _confusions(error, n, rng)
    error, loss = error.astype(np.float32), loss.astype(np.float32)
    group["error"], group["loss"] = error, loss
    return error, loss


def _confusions(error: np.ndarray, n: int, rng: np.random.Generator, pixels: int = 4096) -> np.ndarray:
    """Confusion counts (n, C, C) whose diagonal shrinks with the error in percent."""
    count = len(CLASSES)
    shares = rng.dirichlet(np.full(count, 2.0), size=n)
    right = 1 - error[:, None] / 100
    table = np.zeros((n, count, count))
    table += (shares * (1 - right))[:, :, None] * rng.dirichlet(np.ones(count), size=(n, count))
    table[:, np.arange(count), np.arange(count)] += shares * right
    return np.rint(table * pixels).astype(np.uint32)


def one(table: pd.DataFrame, **wanted: object) -> pd.Series:
    """The only row of a table with these values."""
    match = np.logical_and.reduce([table[key].eq(value).to_numpy() for key, value in wanted.items()])
    assert match.sum() == 1, wanted
    return table.loc[match].iloc[0]
