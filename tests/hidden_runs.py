"""Small networks with a hidden task for tests: heads in closed form on a backbone that nothing has trained."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from headstrong import forgetting, hidden_evaluation, hidden_measures
from headstrong.data.cache import write_split
from headstrong.data.picture_batches import PictureBatches
from headstrong.data.pictures import write_pictures
from headstrong.hidden_attackers import Attacker, open_attacker
from headstrong.hidden_views import View, open_view
from headstrong.jobs import AttackJob, ForgettingJob, HiddenAttackJob, HiddenJob, to_dict
from headstrong.models import build_model, save_model
from headstrong.models.classifier import build_classifier, save_classifier
from headstrong.models.partial import load_partial
from headstrong.models.store import read_tensors, write_tensors
from training_runs import JOB as DENSE_JOB
from training_runs import raw_samples

torch.set_num_threads(1)  # small work: more threads cost more than they bring
SIDE, WIDTH = 32, 0.0625
TRAIN, TEST = 24, 18  # images
EPSILON = 8 / 255
COLOURS = {"crimson": (220, 40, 40), "viridian": (40, 200, 40), "cobalt": (50, 50, 230)}
# In the order of the network's heads; the labels of the task "look" are no neighbours.
CLASSES = {
    "colour": list(COLOURS),
    "side": ["sinister", "median", "dexter"],
    "size": ["small", "large"],
    "ground": ["dark", "bright"],
}
DENSE_CLASSES = ["unlabelled", "port", "starboard", "orb"]
CLASS_WEIGHTS = [0.0, 0.53, 1.71, 0.76]
TASKS = {
    "classes": {"look": ("colour", "size"), "side": ("side",), "ground": ("ground",)},
    "dense": {letter: (letter,) for letter in "dsn"},
}
HIDDEN = {"classes": "side", "dense": "s"}
ACCESSES = ("heads", "backbone")


@dataclasses.dataclass(frozen=True)
class Family:
    """One network, its images, and by access the forgetful copy's weights and features."""

    kind: str
    hidden: str
    victim: Path
    train: Path
    test: Path
    forgettings: Mapping[str, tuple[Path, Path]] = dataclasses.field(default_factory=dict)

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        return TASKS[self.kind]

    @property
    def visible(self) -> dict[str, tuple[str, ...]]:
        return {task: names for task, names in self.tasks.items() if task != self.hidden}


# --- files -----------------------------------------------------------------------------------------------------------


def pictures(count: int, seed: int) -> Iterator[tuple[str, np.ndarray, dict[str, int]]]:
    """Noise with one coloured square in it: name, picture uint8 (3, SIDE, SIDE), class numbers."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        label = {name: int(rng.integers(len(classes))) for name, classes in CLASSES.items()}
        low = 60 * label["ground"]
        picture = rng.integers(low, low + 60, (3, SIDE, SIDE)).astype(np.uint8)
        width = 16 if label["size"] else 8
        left = label["side"] * (SIDE - width) // 2
        top = int(rng.integers(SIDE - width))
        paint = list(COLOURS.values())[label["colour"]]
        picture[:, top : top + width, left : left + width] = np.reshape(paint, (3, 1, 1))
        yield f"wombat-{seed}-{number:03d}", picture, label


def write_classes(path: Path, count: int, seed: int, garbled: str = "") -> Path:
    """A file of pictures. garbled: a label whose class numbers are drawn anew, and whose classes have other names."""
    rng = np.random.default_rng(99)
    classes = {name: [f"other {one}" for one in known] if name == garbled else known for name, known in CLASSES.items()}

    def samples() -> Iterator[Any]:
        for name, picture, label in pictures(count, seed):
            yield name, picture, {**label, **({garbled: int(rng.integers(3))} if garbled else {})}

    write_pictures(
        path, samples(), count=count, size=(SIDE, SIDE), dataset="squares", domain="noise", split="test",
        classes=classes, settings={}, code="test",
    )  # fmt: skip
    return path


def write_dense(path: Path, count: int, garbled: str = "") -> Path:
    """A cache of slopes and balls; the last sample has no label at all. garbled: a letter with targets drawn anew."""
    rng = np.random.default_rng(98)

    def samples() -> Iterator[Any]:
        for number, (name, raw) in enumerate(raw_samples(count)):
            if number == count - 1:
                raw["s"] = np.zeros_like(raw["s"])
            if garbled == "s":
                raw["s"] = rng.integers(0, 4, raw["s"].shape).astype(np.uint8)
            elif garbled:
                raw[garbled] = np.where(raw["d"] > 0, rng.uniform(1, 9, raw["d"].shape), 0).astype(np.float32)
            yield f"wombat-{name}", raw

    classes = ["unlabelled", *(f"other {one}" for one in DENSE_CLASSES[1:])] if garbled == "s" else DENSE_CLASSES
    write_split(
        path, samples(), count=count, size=(SIDE, SIDE), dataset="slopes", split="test", classes=classes, settings={},
        code="test",
    )  # fmt: skip
    return path


def write_classifier(path: Path, data: Path, seed: int = 1, width: float = WIDTH) -> Path:
    """A random backbone with heads by least squares on its features: right on the pictures of `data`."""
    model = build_classifier("resnet18", {label: len(names) for label, names in CLASSES.items()}, width, seed).eval()
    batches = PictureBatches(data, list(CLASSES), "cpu")
    batch = batches.get(range(batches.count))
    with torch.no_grad():
        features = model.features(batch.images)
        mean, spread = features.mean(0), features.std()
        seen = ((features - mean) / spread).double()
        ridge = 1e-2 * len(seen) * torch.eye(seen.shape[1], dtype=torch.float64)
        for head, (label, names) in zip(model.heads, CLASSES.items(), strict=True):
            wanted = F.one_hot(batch.labels[label], len(names)).double() - 1 / len(names)
            found = torch.linalg.solve(seen.T @ seen + ridge, seen.T @ wanted).float()
            head.weight.copy_(6 * found.T / spread)
            head.bias.copy_(-head.weight @ mean)
    save_classifier(path, model, CLASSES, {"labels": list(CLASSES)})
    return path


def write_model(path: Path, seed: int = 1, **changes: Any) -> Path:
    """A dense model that nothing has trained but its batch norms, its outputs moved by constants."""
    how: dict[str, Any] = {"encoder": "resnet18", "tasks": "sdn", "width": WIDTH, **changes}
    model = build_model(classes=len(DENSE_CLASSES), seed=seed, **how).train()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(20):
            model(torch.rand(4, 3, SIDE, SIDE, generator=draw))
    for number, letter in enumerate(how["tasks"]):
        offset = model.get_buffer(f"offset_{letter}")
        offset.copy_(torch.linspace(0.1 + number, 0.3 + number, offset.numel()).reshape(offset.shape))
    job = dataclasses.replace(DENSE_JOB, tasks=how["tasks"], loss_pixels="valid")
    save_model(path, model, to_dict(job), {"class_weights": json.dumps(CLASS_WEIGHTS)})
    return path


def own_heads(path: Path, task: str) -> list[str]:
    """The names of the tensors of a task's heads in a file of weights."""
    tensors, description = read_tensors(path)
    if "labels" in description:
        places = [f"heads.{description['labels'].index(label)}." for label in TASKS["classes"][task]]
    else:
        places = [f"decoders.{task}.", f"offset_{task}"]
    return [name for name in tensors if name.startswith(tuple(places))]


def family(folder: Path, kind: str, garbled: bool = False) -> Family:
    """Network and images. garbled: another hidden head, other hidden labels, and nothing else another."""
    folder.mkdir(exist_ok=True)
    hidden = HIDDEN[kind]
    secret = hidden if garbled else ""
    victim, train, test = (folder / name for name in ("victim.safetensors", "train.h5", "test.h5"))
    if kind == "classes":
        write_classifier(victim, write_classes(folder / "fit.h5", TRAIN, 1))
        write_classes(train, TRAIN, 1, secret)
        write_classes(test, TEST, 2, secret)
    else:
        write_model(victim)
        write_dense(train, 10, secret)
        write_dense(test, 7, secret)
    if garbled:
        tensors, description = read_tensors(victim)
        draw = torch.Generator().manual_seed(5)
        for name in own_heads(victim, hidden):
            if tensors[name].is_floating_point():
                tensors[name] = torch.rand(tensors[name].shape, generator=draw) + 0.5
        write_tensors(victim, tensors, {**description, "class_weights": "[0.0, 9.0, 9.0, 9.0]"})
    return Family(kind, hidden, victim, train, test)


# --- jobs ------------------------------------------------------------------------------------------------------------


def forgetting_job(made: Family, access: str, **changes: Any) -> ForgettingJob:
    own = access == "backbone"
    base = ForgettingJob(
        id=f"{made.kind}-{made.hidden}-{access}", kind=made.kind, hidden=made.hidden,
        visible=tuple(made.visible.items()), access=access, layers=None, train_heads=False,
        probe_epochs=2 if own else 0, probe_rate=1e-2, epochs=2, curve=(1, 2), batch_size=8 if own else 6,
        optimizer="adam", learning_rate=3e-3, momentum=0.9, weight_decay=0.0, milestones=(), decay=0.1,
        precision="float32", samples=None, seed=11,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def forget(folder: Path, made: Family, access: str, device: str = "cpu", **changes: Any) -> tuple[Path, Path]:
    """Weights and features of the forgetful copy."""
    weights, features = folder / f"{access}.safetensors", folder / f"{access}.h5"
    forgetting.forget(
        forgetting_job(made, access, **changes), made.victim, made.train, made.test, weights, features,
        history=folder / f"{access}.csv", work=folder / f"work-{access}", device=device, threads=1,
        checkpoint_minutes=1e9, code="test",
    )  # fmt: skip
    return weights, features


def forgotten(folder: Path, kind: str, garbled: bool = False) -> Family:
    """A family and the forgetful copies of both accesses."""
    made = family(folder, kind, garbled)
    return dataclasses.replace(made, forgettings={access: forget(folder, made, access) for access in ACCESSES})


@functools.cache
def families() -> dict[str, Family]:
    """A family of each kind with its copies, made once for all tests of a process; leave them as they are."""
    # Not "tmp": with three random letters it can spell a secret word, "port", which the tests of leaks would find.
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="runs-"))
    return {kind: forgotten(Path(_FOLDERS[-1].name) / kind, kind) for kind in TASKS}


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def attack(
    objective: str, access: str = "heads", stealth: float = 0.0, attacked: tuple[str, ...] = (), **changes: Any
) -> HiddenAttackJob:
    """An attack of 3 steps, from a random start. changes: of its method or of itself."""
    stepper = "noise" if objective == "noise" else "pgd"
    name = ".".join([objective, access or "none", f"{stealth:g}", *attacked])
    method = AttackJob(
        name=name, family="hidden", balancer={"dgba": "dgba", "total": "total"}.get(objective, "single"), attacked="",
        stepper=stepper, norm="linf", epsilon=EPSILON, step_size=3 / 255, steps=3,
        start="clean" if stepper == "noise" else "uniform", restarts=1,
    )  # fmt: skip
    known = {field.name for field in dataclasses.fields(AttackJob)}
    method = dataclasses.replace(method, **{key: value for key, value in changes.items() if key in known})
    own = {key: value for key, value in changes.items() if key not in known}
    return HiddenAttackJob(objective, access, stealth, attacked, method, **own)


def blind_attacks(made: Family) -> list[HiddenAttackJob]:
    """Attacks by those who do not see the hidden task: all objectives but noise and the oracle."""
    visible = tuple(made.visible)
    found = []
    for access in ACCESSES:
        found += [attack(objective, access) for objective in ("cf", "cf_delta", "disruption")]
        found += [attack("cf_delta", access, 1.0), attack("dgba", access, attacked=visible)]
    found += [attack("total", "backbone", attacked=visible), attack("single", attacked=visible[:1])]
    found.append(attack("cf_delta", name="target", delta="target", reach=2.0, direction="mean", distance="cosine"))
    return found


def hidden_job(made: Family, attacks: Any, **changes: Any) -> HiddenJob:
    accesses = tuple(made.forgettings)
    base = HiddenJob(
        family="tiny", kind=made.kind, hidden=made.hidden, tasks=tuple(made.tasks.items()), accesses=accesses,
        attacks=tuple(attacks), samples=None, batch_size=8, error_pixels="valid", miou="labelled", seed=3,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def evaluate(made: Family, job: HiddenJob, output: Path, device: str = "cpu") -> Path:
    hidden_evaluation.evaluate(
        job, made.victim, made.test, made.forgettings, output, device=device, threads=1, code="c0de"
    )
    return output


# --- who sees what ---------------------------------------------------------------------------------------------------


def judge(made: Family) -> View:
    """Who sees everything."""
    return hidden_measures.folded(open_view(made.kind, made.tasks, made.victim, made.test, "cpu"))


def attacker(made: Family, access: str, limit: int | None = None) -> Attacker:
    places = made.forgettings[access]
    return open_attacker(made.kind, made.visible, access, made.victim, made.test, *places, "cpu", limit)


def copied(made: Family, access: str) -> Any:
    """The forgetful copy as a network of its own, from the weights that forgetting wrote."""
    names = [name for names in made.visible.values() for name in names]
    network = load_partial(made.victim, names)[0]
    tensors, _ = read_tensors(made.forgettings[access][0], lambda name: name.startswith("copy."))
    network.load_state_dict({name.removeprefix("copy."): tensor for name, tensor in tensors.items()})
    return network.eval()
