"""An attacker cannot reach the hidden head or the hidden labels, and nothing that it makes depends on them."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from h5py._objects import ObjectID
from torch import Tensor

import hidden_runs as runs
from headstrong import hidden_measures
from headstrong.data.batches import Batches
from headstrong.data.cache import SplitFile
from headstrong.data.picture_batches import PictureBatches
from headstrong.data.pictures import PictureFile
from headstrong.errors import ConfigError
from headstrong.feature_files import FeatureFile
from headstrong.forgetting import Forgetting
from headstrong.hidden_evaluation import _Bench
from headstrong.hidden_views import open_view
from headstrong.models.partial import head_state
from headstrong.models.store import read_tensors

KINDS = ("classes", "dense")
LEAVES = (types.ModuleType, type, types.CodeType, types.BuiltinFunctionType, int, float, complex, torch.dtype)
ROWS = torch.tensor([0, 2, 3, 5])


@pytest.fixture(scope="module")
def families() -> dict[str, runs.Family]:
    return runs.families()


# --- what can be reached ---------------------------------------------------------------------------------------------


def reachable(*roots: Any) -> Iterator[Any]:
    """Everything that these objects lead to, but for modules, classes, and the globals and code of functions."""
    seen: dict[int, Any] = {}
    waiting = list(roots)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, LEAVES):
            continue
        seen[id(thing)] = thing  # kept alive, so that no other object gets its number
        assert len(seen) < 200_000, "the walk has left the attacker"
        yield thing
        waiting += inside(thing)


def inside(thing: Any) -> list[Any]:
    if isinstance(thing, str | bytes | h5py.HLObject | ObjectID):
        return []
    if isinstance(thing, types.FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        return [*cells, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
    if isinstance(thing, types.FrameType):
        return list(thing.f_locals.values())
    if isinstance(thing, weakref.ReferenceType):
        return [thing()]
    found = [*gc.get_referents(thing), *getattr(thing, "__dict__", {}).values()]
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        found += [getattr(thing, slot, None) for slot in ([slots] if isinstance(slots, str) else slots)]
    if isinstance(thing, Tensor):
        found += [thing._base, thing.grad, thing.grad_fn]
    elif isinstance(thing, np.ndarray):
        found.append(thing.base)
    return found


@dataclass
class Secrets:
    """tensors: weights, flat, none of them constant. labels: class numbers (N,). targets: whole images of labels.

    words: names of pictures and classes.
    """

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    targets: dict[str, np.ndarray] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)

    def found_in(self, *roots: Any, own: FeatureFile | None = None) -> set[str]:
        """Names of the secrets that these objects lead to. own: a file that may be open, whose content is searched."""
        mine = None if own is None else own._file
        found: set[str] = set()
        storages: set[tuple[int, int]] = set()
        for thing in reachable(*roots):
            if isinstance(thing, h5py.HLObject | ObjectID) and bool(thing):
                if thing != mine:
                    found.add(f"open {type(thing).__name__}")
                    continue
                arrays: list[np.ndarray] = []
                thing.visititems(
                    lambda _, part, arrays=arrays: arrays.append(part[()]) if isinstance(part, h5py.Dataset) else None
                )
                for array in arrays:
                    found |= self._in_array(array) | self._in_bytes(array.tobytes())
                found |= self._in_words(" ".join(str(value) for value in thing.attrs.values()))
            elif isinstance(thing, str | bytes):
                found |= self._in_words(thing if isinstance(thing, str) else thing.decode("latin-1"))
            elif isinstance(thing, Tensor):
                storage = thing.untyped_storage()  # all of it: a view of a file's memory would show the whole file
                place = (storage.data_ptr(), storage.nbytes())
                found |= self._in_array(thing.detach().numpy())
                if place not in storages:
                    storages.add(place)
                    found |= self._in_bytes(torch.tensor([], dtype=torch.uint8).set_(storage).numpy().tobytes())
            elif isinstance(thing, np.ndarray):
                found |= self._in_array(thing) | self._in_bytes(thing.tobytes())
            elif isinstance(thing, list | tuple) and thing and all(isinstance(one, int) for one in thing):
                found |= self._in_array(np.array(thing))
        return found

    def _in_words(self, text: str) -> set[str]:
        return {f"word {word}" for word in self.words if word in text}

    def _in_bytes(self, content: bytes) -> set[str]:
        numbers = np.frombuffer(content[: len(content) // 4 * 4], np.float32)
        # By values, because memory orders differ: weights are random, so half of a tensor's are nowhere by chance.
        found = {name for name, values in self.tensors.items() if np.isin(values, numbers).mean() >= 0.5}
        for name, values in (self.labels | self.targets).items():
            kinds = (np.uint8, np.int16, np.int32, np.int64, np.float32)
            if any(values.astype(kind).tobytes() in content for kind in kinds):
                found.add(name)
        return found

    def _in_array(self, array: np.ndarray) -> set[str]:
        """Labels along any axis of an array of up to three dimensions."""
        found = set()
        for name, values in self.labels.items():
            for axis in range(array.ndim if 0 < array.ndim <= 3 else 0):
                if array.shape[axis] == len(values):
                    lines = np.moveaxis(array, axis, 0).reshape(len(values), -1)
                    if (lines == values[:, None]).all(axis=0).any():
                        found.add(name)
        return found


def weights_of(made: runs.Family, task: str) -> dict[str, np.ndarray]:
    """The tensors of a task's heads, as in the file and with batch norms folded."""
    tensors, _ = read_tensors(made.victim)
    found = {f"{task} {name}": tensors[name] for name in runs.own_heads(made.victim, task)}
    if made.kind == "dense":  # classifiers' heads have no batch norm
        folded = head_state(runs.judge(made).network)
        own = (f"decoders.{task}.", f"offset_{task}")
        found |= {f"{task} folded {name}": tensor for name, tensor in folded.items() if name.startswith(own)}
    flat = {name: tensor.flatten().float().numpy() for name, tensor in found.items()}
    return {name: values for name, values in flat.items() if len(np.unique(values)) > 1}


def secrets_of(made: runs.Family, data: Path | None = None) -> Secrets:
    """What nobody may know who does not see the hidden task."""
    path, found = data or made.test, Secrets(weights_of(made, made.hidden))
    if made.kind == "classes":
        with PictureFile(path) as pictures:
            everything = np.arange(pictures.count)
            for label in made.tasks[made.hidden]:
                found.labels[f"labels {label}"] = pictures.read_labels(label, everything)
                found.words |= set(runs.CLASSES[label])
            found.words |= set(pictures.names)
    else:
        with SplitFile(path) as split:
            found.targets["targets s"] = split.read_codes("s", np.arange(1))[0]
            found.words |= set(split.names) | set(runs.DENSE_CLASSES[1:])
        found.tensors["class weights"] = np.array(runs.CLASS_WEIGHTS[1:], np.float32)
    assert found.tensors
    return found


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_hidden_can_be_reached_from_an_attacker(families, kind, access):
    made = families[kind]
    attacker = runs.attacker(made, access)
    with attacker.forgetful as features:
        attacks = [one for one in runs.blind_attacks(made) if one.access == access]
        attacker.perturb(attacks[0], ROWS, 0)  # whatever an attack leaves behind is searched, too
        losses = [attacker.losses(attack, ROWS) for attack in attacks]
        assert secrets_of(made).found_in(attacker, *losses, own=features) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_no_heads_reaches_no_visible_head_either(families, kind):
    made = families[kind]
    real = Secrets({name: tensor for task in made.visible for name, tensor in weights_of(made, task).items()})
    assert len(real.tensors) > 3
    for access in runs.ACCESSES:
        attacker = runs.attacker(made, access)
        with attacker.forgetful as features:
            found = real.found_in(attacker, own=features)
        if access == "backbone":
            assert found == set()
        else:  # the attacker's network is folded
            assert found >= {name for name in real.tensors if kind == "classes" or " folded " in name}


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_hidden_can_be_reached_while_forgetting(families, kind, access):
    made = families[kind]
    view = open_view(made.kind, made.visible, made.victim, made.train, "cpu", heads=access == "heads", seed=11)
    forgetting = Forgetting(runs.forgetting_job(made, access), view)
    forgetting.step(0, 0)
    assert secrets_of(made, made.train).found_in(view, forgetting) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_the_walk_finds_what_the_judge_sees(families, kind):
    """Otherwise that nothing is found would say nothing."""
    made = families[kind]
    secrets, judge = secrets_of(made), runs.judge(made)
    whole = open_view(made.kind, made.tasks, made.victim, made.test, "cpu")
    found = secrets.found_in(judge, whole)
    expected = {*secrets.tensors, *secrets.labels, *secrets.targets}
    expected |= {f"word {word}" for word in secrets.words if "wombat" not in word}  # no view keeps pictures' names
    assert found == expected
    job = runs.hidden_job(made, [])
    assert secrets.found_in(_Bench(job, judge, {}).clean) >= set(secrets.labels) | set(secrets.targets)  # a method


def test_the_walk_finds_open_files_names_and_labels_in_odd_places(families):
    made = families["classes"]
    secrets = secrets_of(made)
    kept = PictureBatches(made.test, ["ground"], "cpu", memory_bytes=0)
    found = secrets.found_in({"deep": (kept,)})
    kept.close()
    assert {"labels side", "word sinister", "word wombat-2-003"} <= found
    assert "open File" in found
    assert "open File" not in secrets.found_in(kept)  # closed by now
    numbers = secrets.labels["labels side"]
    head = next(iter(secrets.tensors.values()))
    padded = torch.cat([torch.zeros(3), torch.from_numpy(head), torch.ones(2)])
    for place in (
        numbers.tolist(),
        lambda: numbers,
        torch.from_numpy(np.stack([numbers, numbers[::-1]], axis=1).astype(np.float64)),
        padded[:1],  # a view of a storage that holds more
        weakref.ref(padded),
        padded.flip(0).double().float().requires_grad_(),
    ):
        assert secrets.found_in([place])
    assert not secrets.found_in([numbers[::-1].tolist(), padded[:3].clone(), "squares"])


@pytest.mark.parametrize("kind", KINDS)
def test_batches_let_go_hold_neither_file_nor_others_labels(families, kind):
    made = families[kind]
    visible = [name for names in made.visible.values() for name in names]
    batches: Any
    if kind == "classes":
        batches = PictureBatches(made.test, visible, "cpu")
    else:
        batches = Batches(made.test, "".join(visible), "cpu")
        with pytest.raises(RuntimeError, match="read from the file"):
            Batches(made.test, "d", "cpu", memory_bytes=0).release()
    secrets = secrets_of(made)
    assert secrets.found_in(batches)  # the header of the file names all classes
    before = batches.get(ROWS)
    batches.release()
    assert secrets.found_in(batches) == set()
    assert torch.equal(batches.get(ROWS).images, before.images)


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_features_tell_no_name_and_no_label(families, kind, access):
    made = families[kind]
    for path in made.forgettings[access]:
        content = path.read_bytes()
        assert not [word for word in secrets_of(made).words if word.encode() in content]


# --- what depends on what --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def garbled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, runs.Family]:
    """The same families with another hidden head and other hidden labels."""
    return {kind: runs.forgotten(tmp_path_factory.mktemp(f"other-{kind}"), kind, garbled=True) for kind in KINDS}


def feature_arrays(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, part: found.update({name: part[()]}) if isinstance(part, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_garbled_family_differs_in_what_is_hidden_and_in_nothing_else(families, garbled, kind):
    first, other = families[kind], garbled[kind]
    tensors = [read_tensors(made.victim)[0] for made in (first, other)]
    changed = {name for name in tensors[0] if not torch.equal(tensors[0][name], tensors[1][name])}
    assert changed
    assert changed <= set(runs.own_heads(first.victim, first.hidden))
    judges = [
        open_view(kind, {task: made.tasks[task]}, made.victim, made.test, "cpu")
        for made in (first, other)
        for task in made.visible
    ]
    batches = [view.batch(range(view.count)) for view in judges]
    half = len(batches) // 2
    for a, b in zip(batches[:half], batches[half:], strict=True):
        assert torch.equal(a.images, b.images)
    hidden = []
    for made in (first, other):
        with h5py.File(made.test) as file:
            hidden.append(file[f"labels/{made.hidden}" if kind == "classes" else f"targets/{made.hidden}"][:])
    assert (hidden[0] != hidden[1]).mean() > 0.2


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_forgetting_depends_on_nothing_hidden(families, garbled, kind, access):
    (weights, features), (other_weights, other_features) = (
        made[kind].forgettings[access] for made in (families, garbled)
    )
    tensors, others = read_tensors(weights)[0], read_tensors(other_weights)[0]
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    arrays, other_arrays = feature_arrays(features), feature_arrays(other_features)
    assert sorted(arrays) == ["forgetful/1", "forgetful/2", "mean_direction", "original"]
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, other_arrays[name])
    assert (features.with_suffix(".csv")).read_bytes() == (other_features.with_suffix(".csv")).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_depend_on_nothing_hidden(families, garbled, kind):
    compared = 0
    for access in runs.ACCESSES:
        first, other = (runs.attacker(made[kind], access) for made in (families, garbled))
        with first.forgetful, other.forgetful:
            for attack in [*runs.blind_attacks(families[kind]), runs.attack("noise", access)]:
                if attack.access == access:
                    found = first.perturb(attack, ROWS, 3)
                    assert torch.equal(found, other.perturb(attack, ROWS, 3)), attack.method.name
                    assert float((found - first.view.batch(ROWS).images).abs().amax()) > runs.EPSILON / 2
                    compared += 1
    assert compared == len(runs.blind_attacks(families[kind])) + 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_does_depend_on_it(families, garbled, kind, tmp_path):
    """So the comparisons above would see a difference."""
    attack = runs.attack("oracle", "", attacked=(families[kind].hidden,))
    images = []
    for made in (families, garbled):
        if kind == "classes":
            data = runs.write_classes(tmp_path / "same.h5", runs.TEST, 2)
        else:
            data = runs.write_dense(tmp_path / "same.h5", 7)
        view = hidden_measures.folded(open_view(kind, made[kind].tasks, made[kind].victim, data, "cpu"))
        images.append(runs.Attacker(view).perturb(attack, ROWS, 3))
    assert float((images[0] - images[1]).abs().mean()) > 1e-3


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_on_the_hidden_task_is_refused(families, kind, access):
    made = families[kind]
    attacker = runs.attacker(made, access)
    with attacker.forgetful:
        for objective in ("oracle", "single", "total", "dgba"):
            for attacked in ((made.hidden,), (*made.visible, made.hidden)):
                attack = runs.attack(objective, access, attacked=attacked)
                with pytest.raises(ConfigError, match=f"sees no task {made.hidden}; it sees") as caught:
                    attacker.perturb(attack, ROWS, 0)
                assert "\n" not in str(caught.value)
        with pytest.raises(ConfigError, match="sees no task"):
            attacker.perturb(runs.attack("total", access), ROWS, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_who_never_forgot_cannot_pull(families, kind):
    view = open_view(kind, families[kind].visible, families[kind].victim, families[kind].test, "cpu")
    for objective in ("cf", "cf_delta"):
        with pytest.raises(ConfigError, match="needs a forgetful copy of the backbone; forget first"):
            runs.Attacker(view).perturb(runs.attack(objective), ROWS, 0)
    assert len(runs.Attacker(view).perturb(runs.attack("disruption"), ROWS, 0)) == len(ROWS)
