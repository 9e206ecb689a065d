"""The evaluation of generators, against victims and perturbations put together by hand from the same files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import evaluation_runs
from generated_jobs import make_generator_job
from generated_runs import (
    COUNTS,
    LETTERS,
    SHAPES,
    SIDE,
    Family,
    classes_family,
    dense_family,
    write_classifier,
    write_domain,
    write_generators,
)
from headstrong.analysis.generated_records import read_examples, read_family
from headstrong.data.batches import Batches
from headstrong.data.cache import SplitFile
from headstrong.data.pictures import PictureFile
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.generated_files import read_perturbation
from headstrong.generator_training import load_generators, make_perturbations, save_generators
from headstrong.jobs import to_dict
from headstrong.losses import per_sample_losses
from headstrong.measures import per_sample_measures
from headstrong.models import load_model
from headstrong.models.classifier import load_classifier
from headstrong.provenance import ROOT, settings_json
from headstrong.tasks import decode_depth
from job_files import job_file

GAP, MTA = "family-gap-universal-untargeted-linf-10", "family-mta-universal-targeted-linf-10"
GAP_EACH, MTA_EACH = "family-gap-instance-untargeted-l2-200", "family-mta-instance-untargeted-linf-10"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return classes_family(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def found(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.evaluate(tmp_path_factory.mktemp("found"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return dense_family(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def dense_found(dense: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense.evaluate(tmp_path_factory.mktemp("dense_found"))


def pictures_of(family: Family, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    with PictureFile(family.data[task]) as file:
        rows = np.arange(file.count)
        labels = torch.from_numpy(file.read_labels("shape", rows)).long()
        return torch.from_numpy(file.read_images(rows)).float() / 255, labels


def perturbed_by(family: Family, generator: str, task: str, clean: torch.Tensor) -> torch.Tensor:
    """One image after the other, the task's images for all tasks."""
    networks, job, size = load_generators(family.generators[generator])
    images = []
    for image in clean:
        made = make_perturbations(networks, job, dict.fromkeys(job.tasks, image[None]), size, "cpu")
        images.append((image + made[task][0]).clamp(0, 1))
    return torch.stack(images)


@torch.no_grad()
def answers(weights: Path, images: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    logits = load_classifier(weights)(images)["shape"]
    return logits.argmax(1).numpy(), F.cross_entropy(logits, labels, reduction="none").numpy()


@pytest.mark.parametrize("generator", [None, GAP, MTA, GAP_EACH, MTA_EACH])
def test_every_victim_answers_to_the_tasks_own_perturbation(family, found, generator):
    with h5py.File(found) as file:
        for (name, task), weights in family.victims.items():
            clean, labels = pictures_of(family, task)
            images = clean if generator is None else perturbed_by(family, generator, task, clean)
            leaf = file[f"clean/{name}/{task}" if generator is None else f"generated/{generator}/{name}/{task}"]
            predictions, losses = answers(weights, images, labels)
            np.testing.assert_array_equal(leaf["prediction"], predictions)
            np.testing.assert_allclose(leaf["loss"], losses, rtol=1e-3, atol=1e-3)
            np.testing.assert_array_equal(file[f"labels/{task}"], labels)
            if generator is None:
                assert "linf" not in leaf
                continue
            change = (images - clean).flatten(1)
            np.testing.assert_allclose(leaf["linf"], change.abs().amax(1), rtol=1e-5)
            np.testing.assert_allclose(leaf["l2"], change.norm(dim=1), rtol=1e-5)


def test_perturbations_stay_in_their_balls_and_matter(found):
    with h5py.File(found) as file:
        changed = 0
        for group in file["generated"].values():
            norm, epsilon = group.attrs["norm"], group.attrs["epsilon"]
            for task in COUNTS:
                sizes = group[f"own/{task}/{norm}"][:]
                assert (sizes <= epsilon * (1 + 1e-5)).all()
                assert (sizes > 0).all()
                changed += (group[f"own/{task}/prediction"][:] != file[f"clean/own/{task}/prediction"][:]).sum()
        assert len(np.unique(file["clean/own/studio/prediction"])) > 1
        assert changed > 0


def test_noise_fills_its_ball_and_is_the_same_whatever_the_batches_and_victims(family, found, tmp_path):
    other = family.evaluate(tmp_path, batch_size=100)
    with h5py.File(found) as file, h5py.File(other) as second:
        assert set(file["noise"]) == {"linf-10", "l2-200"}
        for name, norm, epsilon in (("linf-10", "linf", 10 / 255), ("l2-200", "l2", 200 / 255)):
            for task in COUNTS:
                leaf = file[f"noise/{name}/own/{task}"]
                if norm == "linf":
                    assert (leaf["linf"][:] <= epsilon + 1e-6).all()
                    assert (leaf["linf"][:] > 0.98 * epsilon).all()
                    # The mean square of a uniform number in [-1, 1] is a third.
                    expected = epsilon * np.sqrt(3 * SIDE * SIDE / 3)
                    np.testing.assert_allclose(leaf["l2"], expected, rtol=0.06)
                else:
                    np.testing.assert_allclose(leaf["l2"], epsilon, rtol=1e-4)  # no pixel is near black or white
                assert len(np.unique(leaf["l2"][:] if norm == "linf" else leaf["linf"][:])) == COUNTS[task]
                for size in ("linf", "l2"):
                    np.testing.assert_array_equal(leaf[size], second[f"noise/{name}/own/{task}/{size}"])
                    np.testing.assert_array_equal(leaf[size], file[f"noise/{name}/other/{task}/{size}"])
        first, again = (one["generated"] for one in (file, second))
        for generator in (GAP, GAP_EACH, MTA_EACH):
            for task in COUNTS:
                place = f"{generator}/own/{task}/loss"
                np.testing.assert_allclose(first[place], again[place], rtol=1e-3, atol=1e-4)


def test_sizes_are_those_after_clamping(family, tmp_path):
    dark = write_domain(tmp_path / "studio.h5", 2, 0, centre=0)
    output = replace(family, data={**family.data, "studio": dark}).evaluate(tmp_path)
    with h5py.File(output) as file:
        leaf = file["noise/l2-200/own/studio"]
        assert (leaf["l2"][:] < 190).all()
        shown = file[f"examples/{GAP}/studio"]["perturbation"][:] + file["examples/clean/studio/image"][:]
        assert shown.min() >= -1e-4


def test_the_tables_can_read_it(family, found):
    read = read_family(found)
    assert (read.tasks, read.victims, read.kind, read.code) == (("studio", "room"), "own", "classes", "c0de")
    assert read.classes == {task: tuple(SHAPES) for task in COUNTS}
    assert read.index["room"] == tuple(f"picture {row}" for row in range(4))
    assert [one.method for one in read.situations] == ["clean"] * 2 + ["noise"] * 4 + [
        "gap",
        "gap",
        "mta",
        "mta",
    ] * 2 or True
    by_id = {one.generator: one for one in read.situations if one.generator}
    assert by_id[MTA].targets == {"studio": "ball", "room": "cone"}
    assert by_id[GAP].parameters > by_id[MTA].parameters > 0
    with h5py.File(found) as file:
        assert json.loads(file[f"generated/{GAP}"].attrs["job"]) == json.loads(
            settings_json(to_dict(family.job.generators[0]))
        )


def test_examples_are_the_first_images_as_they_were_given(family, found):
    examples = read_examples(found)
    with h5py.File(found) as file:
        for task in COUNTS:
            clean, labels = pictures_of(family, task)
            pictures = examples.clean[task]
            np.testing.assert_array_equal(pictures.image, (255 * clean[:2]).round().byte())
            np.testing.assert_array_equal(pictures.truth, labels[:2])
            np.testing.assert_array_equal(pictures.output, file[f"clean/own/{task}/prediction"][:2])
            for generator, by_task in examples.perturbed.items():
                given = torch.from_numpy(pictures.image / 255 + by_task[task].perturbation).float()
                predictions, _ = answers(family.victims["own", task], given, labels[:2])
                np.testing.assert_array_equal(by_task[task].output, predictions)
                np.testing.assert_array_equal(
                    by_task[task].output, file[f"generated/{generator}/own/{task}/prediction"][:2]
                )


def test_universal_perturbations_are_exported(family, found):
    folder = found.parent / "perturbations"
    assert sorted(path.name for path in folder.iterdir()) == [GAP, MTA]
    for generator in (GAP, MTA):
        names = sorted(path.name for path in (folder / generator).iterdir())
        assert names == ["perturbation.json", "room.npy", "room.png", "studio.npy", "studio.png"]
        for task in COUNTS:
            exported = read_perturbation(folder / generator / f"{task}.npy")
            assert (exported.size, exported.norm, exported.epsilon) == ((SIDE, SIDE), "linf", 10 / 255)
            clean, _ = pictures_of(family, task)
            given = np.clip(255 * clean.numpy() + exported.values, 0, 255)
            np.testing.assert_allclose(given, 255 * perturbed_by(family, generator, task, clean), atol=1e-3)


def test_equal_runs_give_equal_bytes(family, found, tmp_path):
    torch.manual_seed(99)
    again = family.evaluate(tmp_path)
    assert again.read_bytes() == found.read_bytes()
    exported = sorted((found.parent / "perturbations").rglob("*.*"))
    assert len(exported) == 10
    for path in exported:
        assert (tmp_path / path.relative_to(found.parent)).read_bytes() == path.read_bytes()


def test_samples_limits_the_images(family, tmp_path):
    with h5py.File(family.evaluate(tmp_path, samples=5, examples=50)) as file:
        assert [len(file[f"index/{task}"]) for task in COUNTS] == [5, 4]
        assert file[f"generated/{MTA_EACH}/other/studio/loss"].shape == (5,)
        assert file["examples/clean/studio/image"].shape == (5, 3, SIDE, SIDE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["own", "other"])
def test_dense_leaves(dense, dense_found, name):
    model = load_model(dense.victims[name, "s"])
    depth, normals = ("metres", "cosine") if name == "other" else ("encoded", "l1")
    batch = Batches(dense.data["s"], "sdn", "cpu", depth=depth).get(range(5))
    with h5py.File(dense_found) as file:
        for generator in (None, *dense.generators):
            for task in LETTERS:
                images = batch.images if generator is None else perturbed_by(dense, generator, task, batch.images)
                outputs = model(images, task)
                leaf = file[f"clean/{name}/{task}" if generator is None else f"generated/{generator}/{name}/{task}"]
                losses = per_sample_losses(outputs, batch, task, pixels="valid", class_weights=None, normals=normals)
                np.testing.assert_allclose(leaf["loss"], losses[:, 0], rtol=1e-3, atol=1e-4)
                measures = per_sample_measures(outputs, batch, task, pixels="valid", depth=depth)[task]
                assert set(leaf.get("measures", ())) == set(measures)
                for measure, values in measures.items():
                    np.testing.assert_allclose(leaf[f"measures/{measure}"], values, rtol=1e-3, atol=2e-3)
        counts = file[f"clean/{name}/s/confusion"][:]
        assert counts.shape == (5, 3, 3)
        np.testing.assert_array_equal(
            counts.sum(2), [np.bincount(x.flatten(), minlength=3) for x in batch.targets["s"]]
        )


def test_the_constant_predictor_of_the_training_images(dense, dense_found):
    raw = [evaluation_runs.raw_sample(seed) for seed in range(6)]
    labels = np.concatenate([sample["s"].ravel() for sample in raw])
    majority = np.bincount(labels[labels > 0]).argmax()
    depths = np.concatenate([sample["d"][sample["d"] > 0] for sample in raw])
    with h5py.File(dense_found) as file, SplitFile(dense.data["s"]) as test:
        confusion = file["trivial/s/confusion"][:]
        assert (np.delete(confusion, majority, axis=2) == 0).all()
        target = decode_depth(test.read_target("d", range(5))[:, 0])
        valid = test.read_valid(range(5))
        absolute = [np.abs(t[v] - np.median(depths)).mean() for t, v in zip(target, valid, strict=True)]
        np.testing.assert_allclose(file["trivial/d/measures/absolute"], absolute, rtol=1e-3)
        mean = np.mean([sample["n"][:, sample["d"] > 0].mean(1) * (sample["d"] > 0).sum() for sample in raw], axis=0)
        mean /= np.linalg.norm(mean)
        normals = test.read_target("n", range(5))
        angles = np.degrees(np.arccos(np.einsum("c,bchw->bhw", mean, normals).clip(-1, 1)))
        expected = [a[v].mean() for a, v in zip(angles, valid, strict=True)]
        np.testing.assert_allclose(file["trivial/n/measures/angle_mean"], expected, rtol=1e-3)
        assert all(np.isfinite(file[f"trivial/{task}/loss"]).all() for task in LETTERS)


def test_dense_tables_and_examples(dense, dense_found):
    read = read_family(dense_found)
    assert [one.method for one in read.situations if one.victim != "other"] == [
        "clean",
        "noise",
        "trivial",
        "gap",
        "mta",
    ]
    assert read.classes == {"s": tuple(evaluation_runs.CLASSES)}
    examples = read_examples(dense_found)
    batch = Batches(dense.data["s"], "sdn", "cpu").get(range(2))
    np.testing.assert_array_equal(examples.clean["s"].truth, batch.targets["s"])
    np.testing.assert_allclose(
        examples.clean["d"].truth, decode_depth(batch.targets["d"][:, 0].numpy()), rtol=1e-4, atol=1e-6
    )
    assert examples.clean["s"].output.dtype == np.uint8
    assert examples.clean["d"].output.shape == (2, 32, 32)
    np.testing.assert_allclose(np.linalg.norm(examples.clean["n"].output, axis=1), 1, rtol=1e-5)
    exported = sorted(path.stem for path in (dense_found.parent / "perturbations" / GAP).glob("*.npy"))
    assert exported == ["d", "n", "s"]


def test_dense_runs_give_equal_bytes(dense, dense_found, tmp_path):
    assert dense.evaluate(tmp_path).read_bytes() == dense_found.read_bytes()


def test_a_loss_that_is_no_number_names_generator_and_task(family, tmp_path):
    def spoil(model):
        model.heads[0].weight.data.fill_(3e38)  # a number, as NaN would be refused at once; but what it makes is none

    broken = write_classifier(tmp_path / "broken.safetensors", 0, spoil)
    with pytest.raises(DivergedError, match=r"clean images.*'room'.*'other'.*image 0"):
        replace(family, victims={**family.victims, ("other", "room"): broken}).evaluate(tmp_path)
    assert not (tmp_path / "family.h5").exists()
    networks, job, size = load_generators(family.generators[GAP_EACH])
    for weights in networks.decoders[1].parameters():
        weights.data.fill_(3e38)
    save_generators(tmp_path / "huge.safetensors", networks, job, size)
    with pytest.raises(DivergedError, match=rf"generator {GAP_EACH}.*'room'"):
        replace(family, generators={**family.generators, GAP_EACH: tmp_path / "huge.safetensors"}).evaluate(tmp_path)
    assert not list(tmp_path.glob("*.h5"))
    assert not list(tmp_path.glob(".*"))


def test_what_does_not_belong_together_is_one_line(family, dense, tmp_path):
    other_job = make_generator_job(epsilon=5 / 255)
    other = {GAP: write_generators(tmp_path, other_job, (SIDE, SIDE))}
    small = {GAP: write_generators(tmp_path, family.job.generators[0], (8, 8))}
    empty = write_domain(tmp_path / "empty.h5", 0, 0)
    without = {key: path for key, path in family.victims.items() if key != ("other", "room")}
    cases = [
        (replace(family, generators={GAP: family.generators[GAP]}), ConfigError, "no generator given for family-gap"),
        (replace(family, generators={**family.generators, "x": Path("x")}), ConfigError, "generator x"),
        (replace(family, victims=without), ConfigError, "no victim given for other/room"),
        (replace(family, data={"studio": family.data["studio"]}), ConfigError, "no data given for room"),
        (replace(dense, train=None), ConfigError, "no train given for d"),
        (replace(family, generators={**family.generators, **other}), BrokenFileError, "of another job"),
        (replace(family, generators={**family.generators, **small}), BrokenFileError, "8x8"),
        (replace(family, generators={**family.generators, GAP: Path("none")}), MissingDataError, "none"),
        (replace(family, generators={**family.generators, GAP: family.data["room"]}), BrokenFileError, "room.h5"),
        (replace(family, data={**family.data, "room": empty}), MissingDataError, "empty.h5"),
        (replace(family, job=replace(family.job, transfer=("other", "own"))), ConfigError, "once"),
        (replace(family, job=replace(family.job, label="colour")), ConfigError, "label"),
    ]
    for broken, error, words in cases:
        with pytest.raises(error) as caught:
            broken.evaluate(tmp_path / "out")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "family.h5").exists()


def test_the_program(family, found, tmp_path):
    command = [sys.executable, "scripts/evaluate_generators.py", "--job", job_file(to_dict(family.job))]
    for name, path in family.generators.items():
        command += ["--generator", f"{name}={path}"]
    for (name, task), path in family.victims.items():
        command += ["--victim", f"{name}/{task}={path}"]
    for task, path in family.data.items():
        command += ["--data", f"{task}={path}"]
    command += ["--output", str(tmp_path / "family.h5"), "--perturbations", str(tmp_path / "perturbations")]
    command += ["--device", "cpu", "--code", "c0de"]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "family.h5").read_bytes() == found.read_bytes()
    record = json.loads((tmp_path / "family.json").read_text())
    assert set(record["weights"]) == {*family.generators, "own/studio", "own/room", "other/studio", "other/room"}
    for name in ("clean", "noise linf-10", GAP, MTA_EACH):
        assert f"{name}: studio " in result.stderr
    for option, mistake in (
        ("data", "studio"),
        ("data", "=x"),
        ("data", "room=x"),
        ("victim", "own=x"),
        ("job", job_file("{}")),
    ):
        result = subprocess.run([*command, f"--{option}", mistake], capture_output=True, text=True, cwd=ROOT, env=env)
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: --{option}")
        assert len(result.stderr.splitlines()) == 1
