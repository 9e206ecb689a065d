"""Evaluation of a small trained network: what the file holds, that it can be recomputed, that attacks bite."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from evaluation_runs import (
    ATTACKS,
    CLASS_WEIGHTS,
    CLASSES,
    COUNT,
    EPSILON,
    SIDE,
    TASKS,
    attack_job,
    errors_of,
    losses_of,
    make_job,
    run,
    train_briefly,
    write_data,
)
from headstrong.analysis.records import read_evaluation
from headstrong.attacks.run import perturb
from headstrong.attacks.threat import LinfBall
from headstrong.confusion import miou_from_confusion
from headstrong.data.batches import Batches
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.gradients import loss_gradients, subsets_of
from headstrong.jobs import AttackJob, evaluation_job_from_dict
from headstrong.losses import per_sample_losses
from headstrong.measures import per_sample_measures
from headstrong.metrics import per_sample_errors
from headstrong.models import build_model, load_model, save_model
from headstrong.provenance import file_digest

torch.set_num_threads(1)

FEW = 5  # images, where an attack or a check of it is slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "test.h5", COUNT, 1000)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_briefly(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def result(weights: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(make_job(), weights, data, tmp_path_factory.mktemp("out") / "evaluation.h5")


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_says_what_it_is(result: Path, weights: Path) -> None:
    with h5py.File(result) as file:
        attributes = dict(file.attrs)
        assert attributes["format"] == "headstrong-evaluation-2"
        assert (attributes["id"], attributes["tasks"], attributes["code"]) == (make_job().id, TASKS, "c0de")
        assert (attributes["data"], json.loads(attributes["classes"])) == ("sides", CLASSES)
        assert attributes["weights_sha256"] == file_digest(weights)
        assert evaluation_job_from_dict(json.loads(attributes["job"])) == make_job()
        assert [name.decode() for name in file["index"][:]] == [f"frame {1000 + i}" for i in range(COUNT)]


def test_every_task_is_measured_under_every_attack(result: Path) -> None:
    with h5py.File(result) as file:
        assert sorted(file["attacks"]) == sorted(attack.name for attack in ATTACKS)
        assert set(file) == {"index", "clean", "attacks", "flags"}
        groups = ["clean", *(f"attacks/{attack.name}" for attack in ATTACKS)]
        for group in groups:
            curve = set() if group == "clean" or "noise" in group else {"curve"}
            sizes = set() if group == "clean" else {"linf", "l2"}
            assert set(file[group]) == set(TASKS) | sizes | curve
            for letter in TASKS:
                names = {"loss", "error"} | ({"confusion"} if letter == "s" else {"measures"})
                assert set(file[group][letter]) == names
                for name in ("loss", "error"):
                    assert file[group][letter][name].shape == (COUNT,)
                    assert file[group][letter][name].dtype == np.float32
            counts = file[group]["s/confusion"]
            assert (counts.shape, counts.dtype) == ((COUNT, 3, 3), np.uint32)
            assert (counts[:].sum((1, 2)) == SIDE * SIDE).all()
        for attack in ATTACKS:
            assert AttackJob(**{k: v for k, v in file["attacks"][attack.name].attrs.items()}) == attack
            known = {key for key, value in asdict(attack).items() if value is not None}
            assert known == set(file["attacks"][attack.name].attrs)


def test_equal_runs_give_equal_bytes(result: Path, weights: Path, data: Path, tmp_path: Path) -> None:
    torch.rand(7)  # torch's own random state plays no part
    again = run(make_job(), weights, data, tmp_path / "again.h5")
    assert again.read_bytes() == result.read_bytes()
    with h5py.File(result) as file:  # nor does the clock: no dataset carries a time
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) == 2 + 6 * (7 + 5 + 5) + 5 * 2 + 4
        assert {h5py.h5g.get_objinfo(dataset.parent.id, dataset.name.encode()).mtime for dataset in datasets} == {0}


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"error_pixels": "all", "miou": "all", "loss_pixels": "all"}])
def test_clean_numbers_are_those_of_the_plain_network(changes: dict, weights: Path, data: Path, tmp_path: Path) -> None:
    job = make_job(attacks=(), **changes)
    output = run(job, weights, data, tmp_path / "clean.h5")
    batch = Batches(data, TASKS, "cpu").get(range(COUNT))
    with torch.no_grad():
        outputs = load_model(weights)(batch.images)
        losses = per_sample_losses(outputs, batch, TASKS, pixels=job.loss_pixels, class_weights=None)
        errors, counts = per_sample_errors(outputs, batch, TASKS, pixels=job.error_pixels, miou=job.miou)
    with h5py.File(output) as file:
        np.testing.assert_allclose(losses_of(file, "clean"), losses.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(errors_of(file, "clean")[:, 1:], errors.numpy()[:, 1:], rtol=1e-4, atol=1e-7)
        for letter, measures in per_sample_measures(outputs, batch, TASKS, pixels=job.error_pixels).items():
            for name, values in measures.items():
                stored = file[f"clean/{letter}/measures/{name}"][:]
                shares = 3 / SIDE**2 if name.startswith("within") else 0  # of pixels on the border of a threshold
                np.testing.assert_allclose(stored, values.numpy(), rtol=1e-3, atol=1e-4 + shares)
        # A pixel on the border of two classes may fall either way when sums are taken in another order.
        moved = np.abs(file["clean/s/confusion"][:].astype(int) - counts.numpy()).sum()
        assert moved <= 2 * 3


def test_the_network_has_learned(result: Path, data: Path) -> None:
    # Otherwise nothing below would say anything about attacks.
    batch = Batches(data, TASKS, "cpu").get(range(COUNT))
    with h5py.File(result) as file:
        assert file["clean/s/error"][:].mean() < 20
        assert np.sqrt(file["clean/d/error"][:].mean()) < 0.8 * float(batch.targets["d"][batch.masks["d"]].std())


@pytest.mark.parametrize("miou", ["labelled", "all"])
def test_stored_errors_follow_from_stored_confusion(miou: str, weights: Path, data: Path, tmp_path: Path) -> None:
    output = run(make_job(miou=miou, attacks=ATTACKS[:1]), weights, data, tmp_path / "e.h5")
    with h5py.File(output) as file:
        for group in ("clean", f"attacks/{ATTACKS[0].name}"):
            expected = 100 * (1 - miou_from_confusion(file[f"{group}/s/confusion"][:], miou))
            np.testing.assert_array_equal(file[f"{group}/s/error"][:], expected.astype(np.float32))


def test_no_adversarial_image_is_larger_than_its_ball(result: Path) -> None:
    with h5py.File(result) as file:
        for attack in ATTACKS:
            sizes = file["attacks"][attack.name][attack.norm][:]
            assert (sizes <= attack.epsilon + 1e-6).all()
            assert (sizes > 0.5 * attack.epsilon).all()
        noise = file["attacks/noise.total.sdn.linf.8.1"]
        np.testing.assert_allclose(noise["linf"][:], EPSILON, atol=1e-6)
        np.testing.assert_allclose(noise["l2"][:], EPSILON * np.sqrt(3 * SIDE * SIDE), rtol=0.05)


def test_attacks_hurt_far_more_than_noise_of_the_same_size(result: Path) -> None:
    with h5py.File(result) as file:
        clean, noise = losses_of(file, "clean"), losses_of(file, "attacks/noise.total.sdn.linf.8.1")
        by_noise = np.abs(noise - clean).mean(0)
        for column, letter in enumerate("sd"):
            attacked = losses_of(file, f"attacks/pgd.single.{letter}.linf.8.6")[:, column]
            assert (attacked > np.maximum(clean, noise)[:, column]).mean() >= 0.9
            assert (attacked - clean[:, column]).mean() > 3 * by_noise[column]
        for name in ("pgd.total.sdn.linf.8.6", "pgd.total.sdn.l2.128.6"):
            assert (losses_of(file, f"attacks/{name}").sum(1) > noise.sum(1)).all()


def test_attacking_one_task_serves_it_better_than_attacking_another(result: Path) -> None:
    with h5py.File(result) as file:
        on_s, on_d = (losses_of(file, f"attacks/pgd.single.{letter}.linf.8.6").mean(0) for letter in "sd")
    assert on_s[0] > on_d[0]
    assert on_d[1] > on_s[1]


def test_the_attack_is_the_one_asked_for(result: Path, weights: Path, data: Path) -> None:
    attack = ATTACKS[2]
    batch = Batches(data, TASKS, "cpu").get(range(COUNT))
    model = load_model(weights).requires_grad_(False)

    def losses(points: torch.Tensor) -> torch.Tensor:
        return per_sample_losses(model(points), batch, TASKS, pixels="valid", class_weights=None)

    found = perturb(losses, batch.images, attack, TASKS, batch.index, make_job().seed)
    with h5py.File(result) as file:
        # Other batches and folded batch norms round differently; a sign step turns that into a few other pixels.
        np.testing.assert_allclose(losses_of(file, f"attacks/{attack.name}"), losses(found).numpy(), rtol=0.02)


def test_batch_size_and_number_of_samples_do_not_change_a_sample(
    result: Path, weights: Path, data: Path, tmp_path: Path
) -> None:
    output = run(make_job(batch_size=3, samples=5), weights, data, tmp_path / "few.h5")
    with h5py.File(output) as few, h5py.File(result) as all_of_them:
        rows = [all_of_them["index"][:].tolist().index(name) for name in few["index"][:]]
        assert len(rows) == 5
        np.testing.assert_allclose(errors_of(few, "clean"), errors_of(all_of_them, "clean")[rows], rtol=1e-4, atol=1e-6)
        for attack in ATTACKS:
            group = f"attacks/{attack.name}"
            np.testing.assert_allclose(losses_of(few, group), losses_of(all_of_them, group)[rows], rtol=0.02)
            if attack.stepper == "noise":  # drawn, not computed: the very same image
                np.testing.assert_allclose(few[f"{group}/l2"][:], all_of_them[f"{group}/l2"][:][rows], rtol=1e-6)


def test_class_weights_are_those_of_the_training(weights: Path, data: Path, tmp_path: Path) -> None:
    output = run(make_job(attacks=(), class_weights="prior"), weights, data, tmp_path / "weighted.h5")
    batch = Batches(data, TASKS, "cpu").get(range(COUNT))
    with torch.no_grad():
        losses = per_sample_losses(
            load_model(weights)(batch.images), batch, TASKS, pixels="valid", class_weights=torch.tensor(CLASS_WEIGHTS)
        )
    with h5py.File(output) as file:
        np.testing.assert_allclose(losses_of(file, "clean"), losses.numpy(), rtol=1e-4)


def test_bfloat16_is_close_to_float32(result: Path, weights: Path, data: Path, tmp_path: Path) -> None:
    output = run(make_job(attacks=(), precision="bfloat16"), weights, data, tmp_path / "half.h5")
    with h5py.File(output) as half, h5py.File(result) as full:
        assert (half.attrs["precision"], full.attrs["precision"]) == ("bfloat16", "float32")
        difference = np.abs(losses_of(half, "clean") - losses_of(full, "clean"))
        assert 0 < difference.max() < 0.05


@pytest.fixture(scope="module")
def traced(weights: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything an evaluation can hold beside the errors."""
    attacks = (
        attack_job("fgsm", "fgsm", "dgba", "sd", start="clean"),
        attack_job("corner", "pgd", "dgba", "sd", start="corner"),
        attack_job("stuck", "pgd", "dgba", "sd", start="clean", step_size=0.0),
        attack_job("noise", "noise", "total", "sdn"),
        attack_job("box", "ilp_box", "dgba", "sd", start="clean"),
        attack_job("sparse", "ilp_sparse", "single", "d", start="clean", pixels=3),
    )
    job = make_job(attacks=attacks, samples=FEW, batch_size=2, baseline="start", gradients=True)
    return run(job, weights, data, tmp_path_factory.mktemp("traced") / "evaluation.h5")


def test_the_start_of_an_attack_is_measured_as_any_image(traced: Path, weights: Path, data: Path) -> None:
    batch = Batches(data, TASKS, "cpu", limit=FEW).get(range(FEW))
    with torch.no_grad():
        outputs = load_model(weights)(LinfBall(EPSILON).corner(batch.images))
        losses = per_sample_losses(outputs, batch, TASKS, pixels="valid", class_weights=None)
        errors, counts = per_sample_errors(outputs, batch, TASKS, pixels="valid", miou="labelled")
    with h5py.File(traced) as file:
        start = "attacks/corner/start"
        assert set(file[start]) == set(TASKS)
        assert [set(file[start][letter]) for letter in "sd"] == [{"loss", "error", "confusion"}, {"loss", "error"}]
        np.testing.assert_allclose(losses_of(file, start), losses.numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(errors_of(file, start)[:, 1:], errors.numpy()[:, 1:], rtol=1e-4, atol=1e-7)
        assert np.abs(file[f"{start}/s/confusion"][:].astype(int) - counts.numpy()).sum() <= 2 * 3
        assert (losses_of(file, start) != losses_of(file, "clean")).any()
        for name in ("fgsm", "noise"):
            np.testing.assert_array_equal(losses_of(file, f"attacks/{name}/start"), losses_of(file, "clean"))


def test_curves_are_mean_losses_on_the_way(traced: Path) -> None:
    with h5py.File(traced) as file:
        curves = {name: group["curve"][:] for name, group in file["attacks"].items() if "curve" in group}
        assert {name: curve.shape for name, curve in curves.items()} == {
            "fgsm": (1, 2), "corner": (6, 2), "stuck": (6, 2), "box": (1, 2), "sparse": (1, 1),
        }  # fmt: skip
        clean = losses_of(file, "clean")[:, :2].mean(0)
        np.testing.assert_allclose(curves["stuck"], np.broadcast_to(clean, (6, 2)), rtol=1e-5)
        np.testing.assert_allclose(
            curves["corner"][0], losses_of(file, "attacks/corner/start")[:, :2].mean(0), rtol=1e-5
        )
        assert (curves["corner"][-1] / clean).mean() > (curves["corner"][0] / clean).mean()


def test_gradients_are_those_of_the_plain_network(traced: Path, weights: Path, data: Path) -> None:
    batch = Batches(data, TASKS, "cpu", limit=FEW).get(range(FEW))
    model = load_model(weights).requires_grad_(False)

    def losses(points: torch.Tensor) -> torch.Tensor:
        return per_sample_losses(model(points), batch, TASKS, pixels="valid", class_weights=None)

    expected = loss_gradients(losses, batch.images).flatten(2).double().numpy()
    with h5py.File(traced) as file:
        group = file["gradients"]
        assert (group.attrs["tasks"], json.loads(group.attrs["subsets"])) == (TASKS, list(subsets_of(TASKS)))
        scale = np.abs(group["gram"][:]).max(0)
        off = np.abs(group["gram"][:] - expected @ expected.transpose(0, 2, 1))
        assert (off <= 1e-3 * scale).all()
        mean = expected.mean(0)
        np.testing.assert_allclose(group["mean_gram"][:], mean @ mean.T, rtol=1e-2, atol=1e-3 * scale.max())
        np.testing.assert_allclose(group["l1"][:, -1], np.abs(expected.sum(1)).sum(1), rtol=1e-2)
        np.testing.assert_allclose(group["l2"][:, -1], np.sqrt((expected.sum(1) ** 2).sum(1)), rtol=1e-2)


def test_the_tables_read_what_was_written(traced: Path) -> None:
    record = read_evaluation(traced)
    box = record.attacks["box"]
    with h5py.File(traced) as file:
        np.testing.assert_array_equal(record.gradients.gram, file["gradients/gram"][:])
        np.testing.assert_array_equal(box.curve, file["attacks/box/curve"][:])
        np.testing.assert_array_equal(box.at_start["d"].error, errors_of(file, "attacks/box/start")[:, 1])


def test_programs_tell_how_they_ended(traced: Path) -> None:
    with h5py.File(traced) as file:
        assert [name for name, group in file["attacks"].items() if "program" in group] == ["box", "sparse"]
        assert file["attacks/sparse"].attrs["pixels"] == 3
        for name in ("box", "sparse"):
            program = file[f"attacks/{name}/program"]
            assert set(program) == {"status", "fallback", "gap", "bound", "value"}
            assert {len(values) for values in program.values()} == {FEW}
            assert set(program["status"].asstr()[:]) <= {"optimal", "gap"}
            value, bound, gap = (program[key][:] for key in ("value", "bound", "gap"))
            assert ((value > 0) & (value <= bound * (1 + 1e-9))).all()
            np.testing.assert_allclose(gap, (bound - value) / bound, atol=1e-9)
        # The box program is stated in relative changes of the losses, and its result is fgsm's.
        np.testing.assert_array_equal(losses_of(file, "attacks/box"), losses_of(file, "attacks/fgsm"))
        assert (file["attacks/sparse/l2"][:] <= EPSILON * 3 + 1e-6).all()


def test_an_attack_that_does_not_move_is_flagged(traced: Path, result: Path) -> None:
    with h5py.File(traced) as file:
        found = [(flag["attack"], flag["flag"]) for flag in json.loads(file["flags"].asstr()[()])]
    assert ("stuck", "single step beats iterative") in found
    assert ("fgsm", "weaker than noise") not in found
    with h5py.File(result) as file:
        assert json.loads(file["flags"].asstr()[()]) == []


def test_the_log_tells_clean_and_adversarial_error(
    weights: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="headstrong.progress"):
        output = run(make_job(attacks=ATTACKS[:1]), weights, data, tmp_path / "e.h5")
    line = next(message for message in caplog.messages if message.startswith(ATTACKS[0].name))
    with h5py.File(output) as file:
        clean, found = errors_of(file, "clean").mean(0), errors_of(file, f"attacks/{ATTACKS[0].name}").mean(0)
    for column, letter in enumerate(TASKS):
        assert f"{letter} {clean[column]:.4g} -> {found[column]:.4g}" in line


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"attacks": (ATTACKS[0], ATTACKS[0])}, ConfigError, "two attacks are called"),
        ({"attacks": (replace(ATTACKS[0], attacked="K"),)}, ConfigError, "task 'K'"),
        ({"attacks": (replace(ATTACKS[0], stepper="cw"),)}, ConfigError, "stepper 'cw' is unknown"),
        ({"tasks": "sdnE"}, BrokenFileError, "a model of tasks 'sdn'"),
        ({"precision": "float8"}, ConfigError, "precision 'float8'"),
        ({"baseline": "end"}, ConfigError, "baseline 'end' is unknown"),
        ({"curvature": "colour"}, ConfigError, "curvature 'colour'"),
    ],
)
def test_impossible_jobs_are_refused_and_leave_nothing(
    changes: dict, error: type, words: str, weights: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        run(make_job(**changes), weights, data, tmp_path / "out.h5")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_class_weights_that_were_not_stored_are_refused(weights: Path, data: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    save_model(plain, load_model(weights), {}, {})
    with pytest.raises(ConfigError, match="trained without class weights"):
        run(make_job(class_weights="prior"), plain, data, tmp_path / "out.h5")


def test_missing_files_are_named(weights: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="absent"):
        run(make_job(), tmp_path / "absent.safetensors", data, tmp_path / "out.h5")
    with pytest.raises(MissingDataError, match="absent"):
        run(make_job(), weights, tmp_path / "absent.h5", tmp_path / "out.h5")


def test_a_network_of_other_classes_is_refused(data: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", build_model("resnet18", TASKS, 7, 0.125), {}, {})
    with pytest.raises(BrokenFileError, match="7 classes"):
        run(make_job(), tmp_path / "m.safetensors", data, tmp_path / "out.h5")


def test_a_network_that_gives_no_numbers_is_refused(weights: Path, data: Path, tmp_path: Path) -> None:
    model = load_model(weights)
    with torch.no_grad():
        list(model.decoders["d"].parameters())[-1].fill_(3e38)  # a number, but what is made of it is none
    save_model(tmp_path / "m.safetensors", model, {}, {})
    with pytest.raises(DivergedError, match="task 'd'"):
        run(make_job(), tmp_path / "m.safetensors", data, tmp_path / "out.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors"]
