"""Absent is absent: a study on partial labels gives the numbers of one that never asked for what is not there."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import forgetting_runs
import training_runs
from attack_problems import ids, make_attack, network_losses, random_images
from evaluation_runs import CLASSES, TASKS, attack_job, make_job, run, write_data
from headstrong import training
from headstrong.adversarial import adversarial_batch
from headstrong.analysis import balanced, curves, marginal, theory, vulnerability
from headstrong.analysis.records import read_evaluation
from headstrong.attacks.generators import TaskWeights, fooling_loss
from headstrong.attacks.run import climb
from headstrong.data.batches import Batches
from headstrong.losses import batch_means
from headstrong.models import build_model, save_model
from headstrong.training_losses import training_losses

COUNT = 6
WITHOUT_D = (0, 3, 4)  # rows of frames without depth
CLEAN_START = {"start": "clean", "steps": 3}
ATTACKS = (
    attack_job("single d", "pgd", "single", "d", **CLEAN_START),
    attack_job("single s", "pgd", "single", "s", **CLEAN_START),
    attack_job("total sd", "pgd", "total", "sd", **CLEAN_START),
    attack_job("dgba sd", "apgd", "dgba", "sd", **CLEAN_START),
    attack_job("noise d", "noise", "total", "d", **CLEAN_START),
)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of six frames of which three have no depth; and of the three that have one."""
    folder = tmp_path_factory.mktemp("absent")
    save_model(folder / "weights.safetensors", build_model("xception", TASKS, len(CLASSES), width=0.125, seed=1), {})
    mixed = write_data(folder / "mixed.h5", COUNT, 0, dict.fromkeys(WITHOUT_D, "dD"))
    whole = write_data(folder / "whole.h5", COUNT, 0)
    job = make_job(attacks=ATTACKS, gradients=True)
    found = run(job, folder / "weights.safetensors", mixed, folder / "mixed-evaluation.h5")
    alone = run(job, folder / "weights.safetensors", whole, folder / "whole-evaluation.h5")
    return found, alone


def only_rows(path: Path, rows: list[int], folder: Path) -> Path:
    """An evaluation of these rows alone: nothing in a file but the means depends on other samples."""
    copy = folder / "subset.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        places: list[str] = []
        file.visititems(lambda name, item: places.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in places:
            values = file[name]
            if values.shape and values.shape[0] == COUNT and not name.endswith("curve"):
                kept = values[:][rows]
                kind = values.dtype
                del file[name]
                file.create_dataset(name, data=kept, dtype=kind)
    return copy


def test_a_loss_is_the_mean_over_the_images_that_have_the_task(evaluations: tuple[Path, Path], tmp_path: Path) -> None:
    mixed, whole = evaluations
    rows = [row for row in range(COUNT) if row not in WITHOUT_D]
    found, alone = read_evaluation(mixed), read_evaluation(only_rows(whole, rows, tmp_path))
    protocol = vulnerability.Protocol()
    ours = vulnerability.rows(found, protocol, draws=0)
    theirs = vulnerability.rows(alone, protocol, draws=0)
    # The depth of six frames of which three have one is that of these three, also where it is attacked with s.
    compared = 0
    for one, other in zip(ours, theirs, strict=True):
        if "d" in one["attacked"] or one["task"] == "d":
            if one["task"] in ("s", "n", "") and "s" in one["attacked"]:
                continue  # s is attacked, and n measured, on all six
            if one["metric"] == "largest_perturbation" and "s" in one["attacked"]:
                continue
            if one["attack"] == "clean" and one["task"] != "d":
                continue
            assert one["n"] == other["n"], one
            np.testing.assert_allclose(one["mean"], other["mean"], rtol=1e-4, atol=1e-6, err_msg=str(one))
            compared += 1
    assert compared > 20
    clean = {row["metric"]: row for row in ours if row["task"] == "d" and row["attack"] == "clean"}
    assert clean["clean_loss"]["n"] == len(rows)
    joint = {row["attack"]: row for row in ours if row["metric"] == "adversarial_vulnerability"}
    assert joint["total sd"]["n"] == len(rows)


def test_an_absent_task_is_not_attacked(evaluations: tuple[Path, Path]) -> None:
    with h5py.File(evaluations[0]) as file:
        lacking = list(WITHOUT_D)
        for name in ("single d", "noise d"):
            group = file[f"attacks/{name}"]
            assert not group["linf"][:][lacking].any()
            for letter in TASKS:
                assert np.isnan(group[f"{letter}/loss"][:]).tolist() == [row in lacking for row in range(COUNT)]
            assert group["s/confusion"][:].any(axis=(1, 2)).tolist() == [row not in lacking for row in range(COUNT)]
        # Of two tasks the one that is there is attacked, as if it were the only one.
        alone = file["attacks/single s/s/loss"][:]
        np.testing.assert_allclose(file["attacks/total sd/s/loss"][:][lacking], alone[lacking], rtol=1e-4)
        assert np.isnan(file["attacks/total sd/d/loss"][:][lacking]).all()
        assert (file["attacks/dgba sd/linf"][:][lacking] > 0).all()


def test_curves_and_gradients_are_of_the_images_that_have_the_task(
    evaluations: tuple[Path, Path], tmp_path: Path
) -> None:
    mixed, whole = evaluations
    rows = [row for row in range(COUNT) if row not in WITHOUT_D]
    found, alone = read_evaluation(mixed), read_evaluation(only_rows(whole, rows, tmp_path))
    start = [row["loss"] for row in curves.rows(found) if (row["attack"], row["step"]) == ("single d", 0)]
    assert start == pytest.approx([alone.clean["d"].loss.mean()], rel=1e-5)
    assert found.gradients is not None
    assert alone.gradients is not None
    assert found.gradients.with_tasks("d").tolist() == [row in rows for row in range(COUNT)]
    for subset in ("d", "sd"):
        weights = np.ones((1, COUNT))
        ours = theory.quantities(found.gradients, subset, weights)["mean_gradient"]
        theirs = theory.quantities(alone.gradients, subset, weights[:, : len(rows)])["mean_gradient"]
        assert (ours.n, ours.value) == (len(rows), pytest.approx(theirs.value, rel=1e-4))
    for ours, theirs in zip(marginal.rows(found), marginal.rows(alone), strict=True):
        assert ours["n"] == len(rows)
        for name in ("measured", "first_order", "bound"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-7)
    assert all(row["n"] == len(rows) for row in balanced.rows(found, draws=2) if row["attacked"] == "d")


@pytest.mark.parametrize("stepper", ["pgd", "mim", "apgd", "ilp_max_min"])
@pytest.mark.parametrize("balancer", ["total", "sign_sum", "wgd_published", "wgd_released", "wgd_cyclic", "dgba"])
def test_an_attack_sees_only_the_tasks_an_image_has(balancer: str, stepper: str) -> None:
    if stepper == "ilp_max_min" and balancer == "sign_sum":
        pytest.skip("programs need weights")
    losses, images = network_losses(3, seed=2, dtype=torch.float64), random_images(4)
    labelled = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    attack = make_attack(balancer=balancer, stepper=stepper, attacked="sdn", steps=6)

    def partial(points: torch.Tensor) -> torch.Tensor:
        return torch.where(labelled, losses(points), torch.nan)

    found = climb(partial, images, attack, ids(images), 0, labelled=labelled)
    for row, has in enumerate(labelled):
        if has.any():
            one = images[row : row + 1]
            alone = climb(lambda points, has=has: losses(points)[:, has], one, attack, ids(images)[row : row + 1], 0)
            torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-6)
        else:
            assert torch.equal(found[row], images[row])


@pytest.fixture(scope="module")
def partial_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("partial") / "train.h5", 4, 0, {0: "dD", 1: "dD"})


def test_training_goes_down_the_mean_of_the_labelled_part(partial_data: Path) -> None:
    job = training_runs.job_with(tasks="sd", loss_pixels="valid")
    batches = Batches(partial_data, "sd", "cpu")
    gradients = []
    for rows in ([0, 1, 2, 3], [2, 3]):
        model = training.model_for(job, len(CLASSES)).eval()
        batch = batches.get(rows)
        losses = batch_means(training_losses(job, model, batch, None), batch.labelled("sd"))
        losses[1].backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    # An image whose attacked task is absent is no adversarial image: nothing of it counts in the adversarial step.
    attack = make_attack(balancer="single", attacked="d", steps=1, stepper="fgsm")
    attacked = adversarial_batch(job, attack, training.model_for(job, len(CLASSES)), batches.get(range(4)), None, 0)
    assert torch.equal(attacked.images[:2], batches.get([0, 1]).images)
    assert attacked.labelled("sd").tolist() == [[False, False]] * 2 + [[True, True]] * 2


def test_an_image_without_any_label_of_the_model_is_not_trained_on(tmp_path: Path) -> None:
    job = training_runs.job_with(tasks="d", weights=(1.0,), batch_size=2, epochs=2, output_start="mean")
    datasets = {
        "mixed": write_data(tmp_path / "mixed.h5", 6, 0, {4: "dD", 5: "dD"}),
        "labelled": write_data(tmp_path / "labelled.h5", 4, 0),
    }
    found = [load_file(training_runs.run(tmp_path / name, job, data)) for name, data in datasets.items()]
    for ours, theirs in zip(*(tensors.values() for tensors in found), strict=True):
        assert torch.equal(ours, theirs)


def test_nothing_is_forgotten_on_an_image_without_any_visible_label(tmp_path: Path) -> None:
    setting = forgetting_runs.dense_setting(tmp_path)
    more = forgetting_runs.TRAIN + 2
    absent = {row: "sn" for row in range(forgetting_runs.TRAIN, more)}
    mixed = setting._replace(train=training_runs.write_data(tmp_path / "mixed.h5", more, absent))
    weights = []
    for name, one in (("labelled", setting), ("mixed", mixed)):
        (tmp_path / name).mkdir()
        weights.append(load_file(forgetting_runs.run(tmp_path / name, one)))
    for ours, theirs in zip(*(tensors.values() for tensors in weights), strict=True):
        assert torch.equal(ours, theirs)


def test_a_batch_without_a_label_counts_in_no_mean_of_the_history(partial_data: Path, tmp_path: Path) -> None:
    job = training_runs.job_with(batch_size=2, shuffle=False, epochs=1, optimizer="sgd", learning_rate=0.0)
    training_runs.run(tmp_path, job, partial_data)
    model = training.model_for(job, len(CLASSES)).train()
    batch = Batches(partial_data, "sd", "cpu").get([2, 3])
    expected = training_losses(job, model, batch, None).mean(dim=0)
    (row,) = training_runs.history_of(tmp_path)
    assert row["loss_d"] == pytest.approx(float(expected[1].detach()), rel=1e-6)
    job = training_runs.job_with(batch_size=2, shuffle=False, epochs=1, tasks="sd")
    only = write_data(tmp_path / "some.h5", 5, 0, dict.fromkeys(range(4), "dD"))
    training_runs.run(tmp_path / "some", job, only)  # the fifth, which alone has a depth, is in no whole batch
    (row,) = training_runs.history_of(tmp_path / "some")
    assert math.isnan(row["loss_d"])
    assert row["loss_s"] > 0


@pytest.mark.parametrize("log_mean", ["outside", "inside"])
def test_generators_fool_the_victims_of_labelled_images(log_mean: str) -> None:
    losses, labelled = torch.tensor([0.5, torch.nan, 2.0]), torch.tensor([True, False, True])
    found = fooling_loss(losses, "untargeted", log_mean, labelled)
    torch.testing.assert_close(found, fooling_loss(losses[labelled], "untargeted", log_mean))
    weights = TaskWeights(2, "learned")
    weights(torch.tensor([0.3, 0.7]), torch.tensor([True, False])).backward()
    assert weights.offsets.grad is not None
    assert weights.offsets.grad[1] == 0
