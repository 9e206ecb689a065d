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

from headstrong.attacks.run import perturb
from headstrong.confusion import miou_from_confusion
from headstrong.data.batches import Batches
from headstrong.data.cache import write_split
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.evaluation import evaluate, fold_batch_norm
from headstrong.jobs import AttackJob, EvaluationJob, evaluation_job_from_dict
from headstrong.losses import per_sample_losses
from headstrong.metrics import per_sample_errors
from headstrong.models import ENCODERS, build_model, load_model, save_model
from headstrong.provenance import file_digest

torch.set_num_threads(1)

SIDE, COUNT, TASKS = 32, 10, "sdn"
CLASSES = ["unlabelled", "dark", "bright"]
CLASS_WEIGHTS = [0.0, 0.5, 2.0]
EPSILON = 8 / 255


def attack_job(name: str, stepper: str, balancer: str, attacked: str, **changes: object) -> AttackJob:
    fields = {"norm": "linf", "epsilon": EPSILON, "step_size": 2 / 255, "steps": 6, "start": "uniform", "restarts": 1}
    return AttackJob(
        name=name, family=stepper, stepper=stepper, balancer=balancer, attacked=attacked, **{**fields, **changes}
    )


ATTACKS = (
    attack_job("pgd.single.s.linf.8.6", "pgd", "single", "s"),
    attack_job("pgd.single.d.linf.8.6", "pgd", "single", "d"),
    attack_job("pgd.total.sdn.linf.8.6", "pgd", "total", "sdn"),
    attack_job("pgd.total.sdn.l2.128.6", "pgd", "total", "sdn", norm="l2", epsilon=0.5, step_size=0.2),
    attack_job("noise.total.sdn.linf.8.1", "noise", "total", "sdn", steps=1),
)


def make_job(**changes: object) -> EvaluationJob:
    base = EvaluationJob(
        id="combinations-xception-sdn",
        tasks=TASKS,
        attacks=ATTACKS,
        samples=None,
        batch_size=4,
        error_pixels="valid",
        miou="labelled",
        loss_pixels="valid",
        class_weights="uniform",
        precision="float32",
        seed=3,
    )
    return replace(base, **changes)


def raw_sample(seed: int) -> dict[str, np.ndarray]:
    """A dark and a bright side, cut at a random column: labels follow. Some pixels have no depth or no label."""
    rng = np.random.default_rng(seed)
    bright = np.broadcast_to((np.arange(SIDE) < rng.integers(6, SIDE - 6)) ^ (rng.random() < 0.5), (SIDE, SIDE))
    rgb = (np.where(bright, 150, 105) + rng.normal(0, 12, (3, SIDE, SIDE))).clip(0, 255).astype(np.uint8)
    labels = np.where(bright, 2, 1).astype(np.uint8)
    labels[:3] = 0
    depth = np.where(bright, 0.1, 20.0).astype(np.float32)
    depth[:, :2] = 0
    tilt = np.where(bright, 0.8, -0.8)
    normals = np.stack([np.sin(tilt), np.zeros_like(tilt), -np.cos(tilt)]).astype(np.float32)
    others = {letter: np.zeros((SIDE, SIDE), np.float32) for letter in "kKeEr"}
    curvature = np.zeros((2, SIDE, SIDE), np.float32)
    return {"rgb": rgb, "s": labels, "d": depth, "D": depth, "n": normals, "p": curvature, **others}


def write_data(path: Path, count: int, first_seed: int) -> Path:
    samples = ((f"frame {seed}", raw_sample(seed)) for seed in range(first_seed, first_seed + count))
    known = {"size": (SIDE, SIDE), "dataset": "sides", "split": "test", "classes": CLASSES, "settings": {}, "code": "0"}
    write_split(path, samples, count=count, **known)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "test.h5", COUNT, 1000)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for a moment, so that it answers better than chance."""
    folder = tmp_path_factory.mktemp("model")
    batches = Batches(write_data(folder / "train.h5", 64, 0), TASKS, "cpu")
    model = build_model("xception", TASKS, len(CLASSES), width=0.125, seed=1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        batch = batches.get(torch.arange(16) + 16 * (step % 4))
        losses = per_sample_losses(model(batch.images), batch, TASKS, pixels="valid", class_weights=None)
        optimizer.zero_grad()
        losses.mean(0).sum().backward()
        optimizer.step()
    extra = {"class_weights": json.dumps(CLASS_WEIGHTS)}
    save_model(folder / "weights.safetensors", model, {}, extra)
    return folder / "weights.safetensors"


def run(job: EvaluationJob, weights: Path, data: Path, output: Path) -> Path:
    evaluate(job, weights, data, output, device="cpu", threads=1, code="c0de")
    return output


@pytest.fixture(scope="module")
def result(weights: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(make_job(), weights, data, tmp_path_factory.mktemp("out") / "evaluation.h5")


def losses_of(file: h5py.File, group: str) -> np.ndarray:
    return np.stack([file[f"{group}/{letter}/loss"][:] for letter in TASKS], 1)


def errors_of(file: h5py.File, group: str) -> np.ndarray:
    return np.stack([file[f"{group}/{letter}/error"][:] for letter in TASKS], 1)


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_says_what_it_is(result: Path, weights: Path) -> None:
    with h5py.File(result) as file:
        attributes = dict(file.attrs)
        assert attributes["format"] == "headstrong-evaluation-1"
        assert (attributes["id"], attributes["tasks"], attributes["code"]) == (make_job().id, TASKS, "c0de")
        assert (attributes["data"], json.loads(attributes["classes"])) == ("sides", CLASSES)
        assert attributes["weights_sha256"] == file_digest(weights)
        assert evaluation_job_from_dict(json.loads(attributes["job"])) == make_job()
        assert [name.decode() for name in file["index"][:]] == [f"frame {1000 + i}" for i in range(COUNT)]


def test_every_task_is_measured_under_every_attack(result: Path) -> None:
    with h5py.File(result) as file:
        assert sorted(file["attacks"]) == sorted(attack.name for attack in ATTACKS)
        groups = ["clean", *(f"attacks/{attack.name}" for attack in ATTACKS)]
        for group in groups:
            sizes = set() if group == "clean" else {"linf", "l2"}
            assert set(file[group]) == set(TASKS) | sizes
            for letter in TASKS:
                names = {"loss", "error"} | ({"confusion"} if letter == "s" else set())
                assert set(file[group][letter]) == names
                for name in ("loss", "error"):
                    assert file[group][letter][name].shape == (COUNT,)
                    assert file[group][letter][name].dtype == np.float32
            counts = file[group]["s/confusion"]
            assert (counts.shape, counts.dtype) == ((COUNT, 3, 3), np.uint32)
            assert (counts[:].sum((1, 2)) == SIDE * SIDE).all()
        for attack in ATTACKS:
            assert AttackJob(**{k: v for k, v in file["attacks"][attack.name].attrs.items()}) == attack
            assert asdict(attack).keys() == set(file["attacks"][attack.name].attrs)


def test_equal_runs_give_equal_bytes(result: Path, weights: Path, data: Path, tmp_path: Path) -> None:
    torch.rand(7)  # torch's own random state plays no part
    again = run(make_job(), weights, data, tmp_path / "again.h5")
    assert again.read_bytes() == result.read_bytes()
    with h5py.File(result) as file:  # nor does the clock: no dataset carries a time
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) == 1 + 6 * 7 + 5 * 2
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
        assert few["index"].shape == (5,)
        np.testing.assert_allclose(errors_of(few, "clean"), errors_of(all_of_them, "clean")[:5], rtol=1e-4, atol=1e-6)
        for attack in ATTACKS:
            group = f"attacks/{attack.name}"
            np.testing.assert_allclose(losses_of(few, group), losses_of(all_of_them, group)[:5], rtol=0.02)
            if attack.stepper == "noise":  # drawn, not computed: the very same image
                np.testing.assert_allclose(few[f"{group}/l2"][:], all_of_them[f"{group}/l2"][:5], rtol=1e-6)


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


@pytest.mark.parametrize("encoder", ENCODERS)
def test_folding_batch_norm_keeps_the_function(encoder: str) -> None:
    model = build_model(encoder, "sn", 5, width=0.125, seed=2).train()
    with torch.no_grad():
        for _ in range(3):  # running statistics away from 0 and 1
            model(torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
    model.eval()
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    folded = fold_batch_norm(model, images[:1])
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules())
    with torch.no_grad():
        for letter, output in model(images).items():
            torch.testing.assert_close(folded(images)[letter], output, rtol=1e-5, atol=1e-5 * float(output.abs().max()))


def test_the_log_tells_clean_and_adversarial_error(
    weights: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="headstrong.evaluation"):
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
        list(model.decoders["d"].parameters())[-1].fill_(float("nan"))
    save_model(tmp_path / "m.safetensors", model, {}, {})
    with pytest.raises(DivergedError, match="task 'd'"):
        run(make_job(), tmp_path / "m.safetensors", data, tmp_path / "out.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors"]
