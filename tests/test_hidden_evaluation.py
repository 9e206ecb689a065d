"""The evaluation of a hidden task, against computations of its own from the networks and images."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import hidden_runs as runs
from headstrong import hidden_measures
from headstrong.analysis.hidden_records import read_turn
from headstrong.data.batches import Batches
from headstrong.data.cache import SplitFile
from headstrong.data.pictures import PictureFile
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.jobs import to_dict
from headstrong.losses import per_sample_losses
from headstrong.metrics import per_sample_errors
from headstrong.models import load_model
from headstrong.models.classifier import load_classifier
from headstrong.models.store import read_tensors, write_tensors

KINDS = ("classes", "dense")
COUNTS = {"classes": runs.TEST, "dense": 7}
FOLDED = 2e-3  # relative; batch norms are folded for the attacks, not here


def attacks_on(made: runs.Family) -> list[Any]:
    visible = tuple(made.visible)
    plain = {"stepper": "fgsm", "start": "clean", "steps": 1}
    return [
        runs.attack("total", attacked=visible, **plain),
        runs.attack("cf_delta", **plain),
        runs.attack("cf"),
        runs.attack("cf_delta", stealth=4.0),
        runs.attack("disruption", "backbone", norm="l2", epsilon=0.5, step_size=0.25),
        runs.attack("dgba", "backbone", attacked=visible),
        runs.attack("single", attacked=visible[1:]),
        runs.attack("oracle", "", attacked=(made.hidden,)),
        runs.attack("noise", ""),
    ]


@pytest.fixture(scope="module")
def families() -> dict[str, runs.Family]:
    return runs.families()


@pytest.fixture(scope="module")
def results(families: dict[str, runs.Family], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("results")
    return {
        kind: runs.evaluate(made, runs.hidden_job(made, attacks_on(made)), folder / f"{kind}.h5")
        for kind, made in families.items()
    }


class Plain:
    """The whole network and all images of a family, measured without views, attackers or folding."""

    def __init__(self, made: runs.Family) -> None:
        self.made = made
        self.network: Any = (load_classifier if made.kind == "classes" else load_model)(made.victim)
        self.network.requires_grad_(False)
        if made.kind == "classes":
            with PictureFile(made.test) as pictures:
                rows = np.arange(pictures.count)
                self.images = torch.from_numpy(pictures.read_images(rows)).float() / 255
                self.truth = {
                    label: torch.from_numpy(pictures.read_labels(label, rows)).long() for label in runs.CLASSES
                }
        else:
            self.batch = Batches(made.test, "dsn", "cpu").get(range(COUNTS["dense"]))
            self.images = self.batch.images

    def features(self, images: Tensor) -> Tensor:
        return self.network.features(images)

    def losses(self, features: Tensor) -> dict[str, Tensor]:
        outputs = self.network.outputs(features)
        if self.made.kind == "dense":
            weights = torch.tensor(runs.CLASS_WEIGHTS)
            found = per_sample_losses(outputs, self.batch, "dsn", pixels="valid", class_weights=weights)
            return dict(zip("dsn", found.unbind(1), strict=True))
        apart = {name: F.cross_entropy(outputs[name], self.truth[name], reduction="none") for name in runs.CLASSES}
        return {task: sum(apart[name] for name in names) / len(names) for task, names in self.made.tasks.items()}

    def errors(self, features: Tensor) -> dict[str, Tensor]:
        outputs = self.network.outputs(features)
        if self.made.kind == "dense":
            found = per_sample_errors(outputs, self.batch, "dsn", pixels="valid", miou="labelled")[0]
            return dict(zip("dsn", found.unbind(1), strict=True))
        wrong = {name: (outputs[name].argmax(1) != self.truth[name]).double() for name in runs.CLASSES}
        return {task: sum(wrong[name] for name in names) / len(names) for task, names in self.made.tasks.items()}

    def fast_gradient(self, value: Any) -> Tensor:
        """The images moved by epsilon along the sign of the gradient of a value (B,) of features."""
        points = self.images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(value(self.features(points)).sum(), points)
        return (self.images + runs.EPSILON * slope.sign()).clamp(0, 1)


def check_measured(group: h5py.Group, plain: Plain, images: Tensor, tolerance: float = FOLDED) -> None:
    features = plain.features(images)
    losses, errors = plain.losses(features), plain.errors(features)
    for task in plain.made.tasks:
        np.testing.assert_allclose(group[f"{task}/loss"][:], losses[task], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(group[f"{task}/error"][:], errors[task], rtol=tolerance, atol=tolerance)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_clean_errors_and_losses_are_those_of_the_whole_network(families, results, kind):
    plain = Plain(families[kind])
    with h5py.File(results[kind]) as file:
        check_measured(file["clean"], plain, plain.images)
        if kind == "classes":
            assert set(np.unique(file["clean/look/error"][:])) == {0, 0.5, 1}  # of two labels
        else:  # the last image has no labelled pixel
            assert np.isnan(file["clean/s/error"][:]).tolist() == [False] * 6 + [True]
            assert np.isnan(file["clean/s/loss"][:]).tolist() == [False] * 6 + [True]


@pytest.mark.parametrize("kind", KINDS)
def test_attacked_images_are_measured_as_they_are(families, results, kind):
    """Two attacks made again without the code under test: one on visible tasks, one along the forgetting."""
    made, plain = families[kind], Plain(families[kind])
    with torch.no_grad():
        direction = runs.copied(made, "heads").features(plain.images) - plain.features(plain.images)
    again = {
        "total.heads.0." + ".".join(made.visible): plain.fast_gradient(
            lambda features: sum(plain.losses(features)[task] for task in made.visible)
        ),
        "cf_delta.heads.0": plain.fast_gradient(lambda features: (features * direction).flatten(1).sum(1)),
    }
    attacker = runs.attacker(made, "heads")
    with h5py.File(results[kind]) as file, attacker.forgetful:
        for attack in attacks_on(made)[:2]:
            images = again[attack.method.name]
            found = attacker.perturb(attack, torch.arange(len(images)), 3)
            # Rounding turns the sign of a gradient that is almost 0, nowhere else.
            assert float((found != images).float().mean()) < 0.02
            group = file[f"attacks/{attack.method.name}"]
            check_measured(group, plain, found)
            change = (found - plain.images).double().flatten(1)
            np.testing.assert_allclose(group["linf"][:], change.abs().amax(1), rtol=1e-5)
            np.testing.assert_allclose(group["l2"][:], change.norm(dim=1), rtol=1e-5)
            assert group["linf"][:].max() == pytest.approx(runs.EPSILON, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_fill_the_ball_of_each_attack(families, results, kind):
    turn = read_turn(results[kind])
    for attack in turn.attacks:
        size = attack.linf if attack.norm == "linf" else attack.l2
        made = np.any([np.isfinite(record.loss) for record in attack.tasks.values()], axis=0)
        assert (size <= attack.epsilon + 1e-6).all()
        assert (size[made] > 0.5 * attack.epsilon).all()
        assert not size[~made].any()  # without a label of what is attacked there is no attack
        assert made.all() == (kind == "classes" or turn.hidden not in attack.attacked)


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_is_measured_under_the_true_heads(families, results, kind, access):
    plain, copied = Plain(families[kind]), runs.copied(families[kind], access)
    with torch.no_grad():
        before, after = plain.features(plain.images), copied.features(plain.images)
    apart = (after - before).double().flatten(1).norm(dim=1) / before.double().flatten(1).norm(dim=1)
    with h5py.File(results[kind]) as file:
        assert sorted(file[f"forgetting/{access}"]) == ["0", "1", "2"]
        for task in families[kind].tasks:
            clean, first, last = (
                file[place][:]
                for place in (f"clean/{task}/error", *(f"forgetting/{access}/{e}/{task}/error" for e in (0, 2)))
            )
            np.testing.assert_allclose(first, clean, rtol=FOLDED, atol=FOLDED)
            np.testing.assert_allclose(last, plain.errors(after)[task], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(file[f"forgetting/{access}/2/distance"][:], apart, rtol=1e-4)
        assert not file[f"forgetting/{access}/0/distance"][:].any()
        assert (file[f"forgetting/{access}/1/distance"][:] > 0.05).all()


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_say_what_was_done(families, results, kind):
    made = families[kind]
    job = runs.hidden_job(made, attacks_on(made))
    with h5py.File(results[kind]) as file:
        expected = {"format": "headstrong-hidden-1", "family": "tiny", "kind": kind, "hidden": made.hidden}
        expected |= {"dataset": {"classes": "squares", "dense": "slopes"}[kind], "code": "c0de", "complete": 1}
        assert {key: file.attrs[key] for key in expected} == expected
        assert json.loads(file.attrs["tasks"]) == list(made.tasks)
        assert json.loads(file.attrs["job"]) == json.loads(json.dumps(to_dict(job)))
        reader = PictureFile if kind == "classes" else SplitFile
        with reader(made.test) as data:
            assert file["index"].asstr()[:].tolist() == data.names
        assert set(file["attacks"]) == {attack.method.name for attack in job.attacks}
        for attack in job.attacks:
            fields = dict(file[f"attacks/{attack.method.name}"].attrs)
            assert json.loads(fields.pop("attacked")) == list(attack.attacked)
            known = {key: getattr(attack, key) for key in ("objective", "access", "stealth")}
            known |= {key: getattr(attack.method, key) for key in ("stepper", "norm", "epsilon", "steps")}
            assert fields == known


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_can_be_read(families, results, kind):
    made, turn = families[kind], read_turn(results[kind])
    assert (turn.kind, turn.hidden, turn.tasks) == (kind, made.hidden, tuple(made.tasks))
    assert turn.visible == tuple(made.visible)
    assert len(turn.attacks) == len(attacks_on(made))
    assert tuple(turn.forgetting) == runs.ACCESSES
    assert all(sorted(copies) == [0, 1, 2] for copies in turn.forgetting.values())
    with h5py.File(results[kind]) as file:
        for attack in turn.attacks:
            stored = file[f"attacks/{attack.name}/{made.hidden}/loss"][:]
            np.testing.assert_array_equal(attack.tasks[made.hidden].loss, stored)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_work_gives_equal_bytes(families, results, kind, tmp_path):
    made = families[kind]
    again = runs.evaluate(made, runs.hidden_job(made, attacks_on(made)), tmp_path / "again.h5")
    assert again.read_bytes() == results[kind].read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_limits_change_nothing_but_rounding(families, results, kind, tmp_path):
    made, count = families[kind], 5
    job = runs.hidden_job(made, attacks_on(made), batch_size=3, samples=count)
    few, whole = read_turn(runs.evaluate(made, job, tmp_path / "few.h5")), read_turn(results[kind])
    rows = [whole.index.index(name) for name in few.index]
    assert len(rows) == count
    for task in made.tasks:
        np.testing.assert_allclose(few.clean[task].loss, whole.clean[task].loss[rows], rtol=1e-4, atol=1e-5)
        for one, other in zip(few.attacks, whole.attacks, strict=True):
            assert one.name == other.name
            # A gradient near 0 may change its sign, which moves a pixel of the image; hence not to the last bits.
            np.testing.assert_allclose(one.tasks[task].loss, other.tasks[task].loss[rows], rtol=0.03, atol=0.03)
    for access in runs.ACCESSES:
        found, expected = few.forgetting[access][2].distance, whole.forgetting[access][2].distance[rows]
        np.testing.assert_array_equal(found, expected)


# --- what attacks do -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_hurts_the_hidden_task_more_than_noise(families, results, kind):
    turn = read_turn(results[kind])
    clean = turn.clean[turn.hidden].loss
    harm = {one.objective: np.nanmean(one.tasks[turn.hidden].loss - clean) for one in turn.attacks}
    assert harm["oracle"] > 5 * abs(harm["noise"])
    assert harm["oracle"] > max(value for objective, value in harm.items() if objective != "oracle")


@pytest.mark.parametrize("objective", ["cf", "cf_delta", "disruption", "oracle"])
@pytest.mark.parametrize("kind", KINDS)
def test_stealth_keeps_the_visible_predictions(families, kind, objective):
    made = families[kind]
    judge = runs.judge(made)
    rows = torch.arange(judge.count)
    oracle = objective == "oracle"
    attacker = runs.Attacker(judge) if oracle else runs.attacker(made, "heads")
    kept = [number for number, task in enumerate(judge.tasks) if task != made.hidden]
    task = (made.hidden,) if oracle else ()
    changes = []
    with torch.no_grad():
        reference = judge.outputs(judge.features(judge.batch(rows).images))
    for stealth in (0.0, 2.0):
        how = {"name": "test", "steps": 8, "step_size": 1.5 / 255}
        attack = runs.attack(objective, "" if oracle else "heads", stealth, task, **how)
        with torch.no_grad():
            outputs = judge.outputs(judge.features(attacker.perturb(attack, rows, 3)))
        changes.append(float(hidden_measures.changes(judge, outputs, reference)[:, kept].mean()))
    if not oracle:
        attacker.forgetful.close()
    assert changes[1] < 0.9 * changes[0]


# --- refusals --------------------------------------------------------------------------------------------------------


def refused(error: type[Exception], made: runs.Family, folder: Path, job: Any = None) -> str:
    """What an evaluation is refused with, which leaves no file."""
    folder.mkdir()
    attacks = [runs.attack("noise", "")]
    with pytest.raises(error) as caught:
        runs.evaluate(made, job or runs.hidden_job(made, attacks), folder / "e.h5")
    assert not list(folder.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_copies_that_do_not_fit_are_refused(families, kind, access, tmp_path):
    made = families[kind]
    weights, features = made.forgettings[access]

    def with_copy(*places: Path) -> runs.Family:
        return dataclasses.replace(made, forgettings={access: places})

    other_access = next(name for name in runs.ACCESSES if name != access)
    said = refused(BrokenFileError, with_copy(*made.forgettings[other_access]), tmp_path / "a")
    assert "forget" in said
    # Of another network: its file has other bytes, its copies fit.
    tensors, description = read_tensors(made.victim)
    own = runs.own_heads(made.victim, made.hidden)[0]
    other = dataclasses.replace(with_copy(weights, features), victim=tmp_path / "v.safetensors")
    write_tensors(other.victim, {**tensors, own: tensors[own] + 1}, description)
    assert f"{features}: of {made.hidden} hidden with access {access}, or of another network" in refused(
        BrokenFileError, other, tmp_path / "b"
    )
    # Of another hidden task.
    shown = next(iter(made.visible))
    job = runs.hidden_job(with_copy(weights, features), [runs.attack("noise", "")], hidden=shown)
    assert "forget" in refused(BrokenFileError, with_copy(weights, features), tmp_path / "c", job)
    # Of fewer images, cut off, foreign, absent.
    few, cut = tmp_path / "few.h5", tmp_path / "cut.h5"
    with h5py.File(features) as source, h5py.File(few, "w") as target:
        target.attrs.update(source.attrs)
        for name in ("original", "forgetful/1", "forgetful/2", "mean_direction"):
            target[name] = source[name][:3]
    assert f"{few}: 3 images, expected {COUNTS[kind]}" in refused(
        BrokenFileError, with_copy(weights, few), tmp_path / "d"
    )
    cut.write_bytes(features.read_bytes()[:-2000])
    assert f"{cut}: truncated" in refused(BrokenFileError, with_copy(weights, cut), tmp_path / "e")
    assert f"{made.test}: not features" in refused(BrokenFileError, with_copy(weights, made.test), tmp_path / "f")
    absent = tmp_path / "absent.h5"
    assert f"{absent}: no such file" in refused(MissingDataError, with_copy(weights, absent), tmp_path / "g")


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_do_not_fit_are_refused(families, kind, tmp_path):
    """The attacker's own heads: of other shapes, one missing, or from another forgetting than the features."""
    made = families[kind]
    weights, features = made.forgettings["backbone"]
    tensors, description = read_tensors(weights)
    name = next(name for name in tensors if name.startswith("own."))
    job = {**description["job"], "seed": 5}
    for number, (found, told) in enumerate(
        [
            ({**tensors, name: torch.zeros(2, 2)}, description),
            ({key: tensor for key, tensor in tensors.items() if key != name}, description),
            ({**tensors, "own.more": torch.zeros(1)}, description),
            (tensors, {**description, "job": job}),
            (tensors, {**description, "weights_sha256": "00"}),
        ]
    ):
        path = tmp_path / "w.safetensors"
        write_tensors(path, found, told)
        other = dataclasses.replace(made, forgettings={"backbone": (path, features)})
        assert f"{path}: " in refused(BrokenFileError, other, tmp_path / str(number))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden": "pose"}, "pose hidden: of the tasks look, side, ground; expected one of at least two"),
        ({"tasks": (("side", ("side",)),)}, "expected one of at least two"),
        ({"accesses": ("heads",)}, "forgetful copies of ['backbone', 'heads'] given, expected ['heads']"),
        ({"attacks": (runs.attack("cf"), runs.attack("cf"))}, "two attacks are called 'cf.heads.0'; give each its own"),
        ({"attacks": (runs.attack("cf", ""),)}, "names no access, which only oracle and noise need not"),
        ({"attacks": (runs.attack("cf", "all"),)}, "has access 'all', which is none here"),
        ({"attacks": (runs.attack("total", attacked=("look", "side")),)}, "attacks the hidden task, as only the"),
        ({"attacks": (runs.attack("cff"),)}, "objective 'cff' is unknown"),
        ({"attacks": (runs.attack("total", attacked=("pose",)),)}, "sees no task pose; it sees"),
        ({"attacks": (runs.attack("oracle", "heads", attacked=("side",)),)}, "sees no task side"),
        ({"kind": "sound"}, "kind 'sound' is unknown; choose classes or dense"),
    ],
)
def test_jobs_that_cannot_be_are_refused(families, changes, words, tmp_path):
    made = families["classes"]
    job = dataclasses.replace(runs.hidden_job(made, [runs.attack("noise", "")]), **changes)
    assert words in refused(ConfigError, made, tmp_path / "out", job)


def test_a_loss_that_is_no_number_is_refused(families, tmp_path):
    made = dataclasses.replace(families["classes"], victim=tmp_path / "v.safetensors", forgettings={})
    tensors, description = read_tensors(families["classes"].victim)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    # Numbers, as NaN would be refused at once; but what they make of an image is none.
    write_tensors(made.victim, {**tensors, name: torch.full_like(tensors[name], 3e38)}, description)
    said = refused(DivergedError, made, tmp_path / "out")
    assert re.search("clean images: the loss of task 'look' is (nan|inf) on image \\d", said)
