"""Adversarial training: what its steps see, what it leaves alone, what it is good for; the same bits after any stop."""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys

import pytest
import torch

from headstrong import training
from headstrong.adversarial import adversarial_batch
from headstrong.checkpoints import Termination
from headstrong.data.batches import Batches
from headstrong.errors import ConfigError, DivergedError
from headstrong.jobs import AttackJob, to_dict, training_job_from_dict
from headstrong.loop import optimizer_for, rate_at
from headstrong.losses import per_sample_losses
from headstrong.models import load_metadata, load_model
from headstrong.models.store import read_tensors
from headstrong.training_losses import training_losses
from stopped_runs import ENDED_BY_SIGNALS
from training_runs import (
    CLASSES,
    ROOT,
    check_equal_on_a_gpu,
    history_of,
    interrupted,
    job_with,
    kill_after,
    run,
    same,
    write_data,
)

EPSILON = 8 / 255
FGSM = AttackJob(
    name="fgsm.total.sd.linf.8.1", family="fgsm", balancer="total", attacked="sd", stepper="fgsm", norm="linf",
    epsilon=EPSILON, step_size=EPSILON, steps=1, start="clean", restarts=1,
)  # fmt: skip
PGD = dataclasses.replace(FGSM, name="pgd", stepper="pgd", step_size=EPSILON / 2, steps=2, start="uniform")
NOISE = dataclasses.replace(FGSM, name="noise", stepper="noise")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "train.h5", 10)


@pytest.fixture
def steps(monkeypatch):
    """The batches that optimizer steps were made on, in order."""
    seen, done = [], training.train_step

    def noted(*arguments):
        seen.append(arguments[3])
        return done(*arguments)

    monkeypatch.setattr(training, "train_step", noted)
    return seen


def tensors_of(path):
    return read_tensors(path)[0]


def batch_of(data, tasks="sd", rows=(0, 3, 4, 7)):
    return Batches(data, tasks, "cpu").get(rows)


def adversarial(attack=FGSM, **changes):
    return job_with(adversarial=attack, **changes)


# One adversarial batch


def test_the_attack_climbs_the_unweighted_losses_of_the_training_in_evaluation_mode(data):
    attack = dataclasses.replace(FGSM, attacked="ds")
    job = adversarial(attack, weights=(1.0, 0.001), loss_pixels="valid", class_weights="prior")
    class_weights = training.class_weights_for(job, data, "cpu")
    model, batch = training.model_for(job, len(CLASSES)), batch_of(data)
    found = adversarial_batch(job, attack, model, batch, class_weights, epoch=0).images
    images = batch.images.clone().requires_grad_()
    losses = per_sample_losses(model.eval()(images), batch, "sd", pixels="valid", class_weights=class_weights)
    (gradient,) = torch.autograd.grad(losses.sum(), images)
    expected = (batch.images + EPSILON * gradient.sign()).clamp(0, 1)
    away = gradient.abs() > 1e-6 * gradient.abs().max()  # rounding may turn the sign of what is nearly 0
    assert away.float().mean() > 0.9
    torch.testing.assert_close(found[away], expected[away], rtol=0, atol=1e-6)


def test_targets_stay_those_of_the_clean_image(data):
    job = adversarial(dataclasses.replace(FGSM, attacked="A"), tasks="dA")
    batch = batch_of(data, "dA")
    found = adversarial_batch(job, job.adversarial, training.model_for(job, len(CLASSES)), batch, None, epoch=0)
    assert not torch.equal(found.images, batch.images)
    assert torch.equal(found.targets["A"], 2 * batch.images - 1)
    assert torch.equal(found.masks["d"], batch.masks["d"])


def test_the_model_is_left_as_it_was(data):
    job = adversarial(PGD)
    model = training.model_for(job, len(CLASSES))
    model.decoders["d"].eval()
    frozen = next(model.encoder.parameters()).requires_grad_(False)
    training_losses(job, model, batch_of(data), None).mean().backward()  # gradients that a caller may still need

    def state():
        return (
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()],
            {name: value.clone() for name, value in model.state_dict().items()},
        )

    before = state()
    images = adversarial_batch(job, PGD, model, batch_of(data), None, epoch=0).images
    modes, trained, gradients, tensors = state()
    assert (modes, trained) == before[:2]
    assert not frozen.requires_grad
    assert not images.requires_grad
    for now, then in zip(gradients, before[2], strict=True):
        assert (now is None and then is None) or torch.equal(now, then)
    assert same(tensors, before[3]), "batch norm must not learn from the images on the attack's way"


def test_the_model_is_left_as_it_was_when_the_attack_fails(data):
    job = adversarial()
    model = training.model_for(job, len(CLASSES))
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"^model pair: epoch 3: attack .*; lower its learning rate$") as caught:
        adversarial_batch(job, FGSM, model, batch_of(data), None, epoch=2)
    assert "\n" not in str(caught.value)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_draws_depend_on_seed_epoch_and_row_only(data):
    model = training.model_for(job_with(), len(CLASSES))

    def images(rows, epoch=0, **changes):
        return adversarial_batch(adversarial(NOISE, **changes), NOISE, model, batch_of(data, rows=rows), None, epoch)

    first = images([1, 2, 5]).images
    assert torch.equal(images([5, 1]).images, first[[2, 0]])
    assert not torch.equal(images([1, 2, 5], epoch=1).images, first)
    assert not torch.equal(images([1, 2, 5], seed=8).images, first)
    assert (first - batch_of(data, rows=[1, 2, 5]).images).abs().max() <= EPSILON + 1e-6


# The training


def test_a_clean_step_comes_first_then_one_on_what_the_attack_made_of_the_batch(tmp_path, data, steps):
    run(tmp_path, adversarial(epochs=3), data)
    assert len(steps) == 2 * 3 * 2  # two iterations per epoch
    for clean, attacked in zip(steps[::2], steps[1::2], strict=True):
        assert torch.equal(clean.images, batch_of(data, rows=clean.index).images)
        assert torch.equal(attacked.index, clean.index)
        assert 0.99 * EPSILON < (attacked.images - clean.images).abs().max() <= EPSILON + 1e-6


def test_without_clean_steps_there_are_half_as_many(tmp_path, data, steps):
    run(tmp_path, adversarial(epochs=3, clean_steps=False), data)
    assert len(steps) == 3 * 2
    for attacked in steps:
        assert not torch.equal(attacked.images, batch_of(data, rows=attacked.index).images)


def test_radius_0_without_clean_steps_is_clean_training_bit_for_bit(tmp_path, data, steps):
    nothing = dataclasses.replace(PGD, epsilon=0.0)
    clean = run(tmp_path / "clean", job_with(epochs=3, class_weights="prior"), data)
    job = adversarial(nothing, epochs=3, class_weights="prior", clean_steps=False)
    attacked = run(tmp_path / "attacked", job, data)
    half = len(steps) // 2
    for one, other in zip(steps[:half], steps[half:], strict=True):
        assert torch.equal(one.images, other.images)
    assert same(tensors_of(clean), tensors_of(attacked))
    old, new = history_of(tmp_path / "clean"), history_of(tmp_path / "attacked")
    assert [row["adversarial_loss_s"] for row in new] == [row["loss_s"] for row in old]


def test_clean_training_is_one_step_per_batch_and_nothing_else(tmp_path, data):
    job = job_with(epochs=3, class_weights="prior", milestones=(1,))
    batches, class_weights = Batches(data, "sd", "cpu"), training.class_weights_for(job, data, "cpu")
    model = training.use_channels_last(training.model_for(job, len(CLASSES))).train()
    optimizer = optimizer_for(job, model)
    with training.reproducible("cpu", 1):
        for epoch in range(3):
            optimizer.param_groups[0]["lr"] = rate_at(job, epoch, 0)
            for rows in training.epoch_order(job, epoch, 10)[:8].split(4):
                training.train_step(job, model, optimizer, batches.get(rows), class_weights)
    found = tensors_of(run(tmp_path, job, data))
    assert same(found, {name: value.contiguous() for name, value in model.state_dict().items()})


def test_the_history_has_the_losses_of_the_steps_that_were_made(tmp_path, data):
    clean, attacked = ["loss_s", "loss_d"], ["adversarial_loss_s", "adversarial_loss_d"]
    for name, job, columns in (
        ("clean", job_with(), clean),
        ("both", adversarial(), clean + attacked),
        ("attacked", adversarial(clean_steps=False), attacked),
    ):
        run(tmp_path / name, job, data)
        assert list(history_of(tmp_path / name)[0]) == ["epoch", "learning_rate", *columns]


def test_the_adversarial_losses_of_the_history_are_those_before_the_step(tmp_path, data, steps):
    """At learning rate 0 every step sees the untrained network, in training mode."""
    job = adversarial(epochs=1, learning_rate=0.0)
    run(tmp_path, job, data)
    model = training.model_for(job, len(CLASSES)).train()
    losses = torch.stack([training_losses(job, model, batch, None).mean(dim=0) for batch in steps[1::2]])
    row = history_of(tmp_path)[0]
    expected = losses.mean(dim=0).tolist()
    assert [row["adversarial_loss_s"], row["adversarial_loss_d"]] == pytest.approx(expected, rel=1e-4)


def adversarial_losses(path, data, attack):
    """Mean losses (T,) of a trained model under an attack on the training images."""
    job, model, batch = adversarial(attack, loss_pixels="valid"), load_model(path), batch_of(data, rows=range(10))
    with torch.no_grad():
        return training_losses(job, model, adversarial_batch(job, attack, model, batch, None, 0), None).mean(dim=0)


def test_it_lowers_the_adversarial_loss_of_every_task(tmp_path, data):
    """Against a twin that makes as many optimizer steps on clean batches, under the attack trained on and another."""
    settings = {"batch_size": 10, "learning_rate": 3e-3, "loss_pixels": "valid", "output_start": "mean"}
    dgba = dataclasses.replace(FGSM, name="dgba", balancer="dgba")
    hardened = run(tmp_path / "hardened", adversarial(dgba, epochs=50, **settings), data)
    clean = run(tmp_path / "clean", job_with(epochs=100, **settings), data)
    for attack in (dgba, FGSM, dataclasses.replace(PGD, start="clean", steps=5)):
        assert (adversarial_losses(hardened, data, attack) < 0.8 * adversarial_losses(clean, data, attack)).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"adversarial": dataclasses.replace(FGSM, attacked="sn")}, "attacks task 'n'"),
        ({"adversarial": dataclasses.replace(FGSM, attacked="")}, "attacked must name tasks"),
        ({"adversarial": dataclasses.replace(FGSM, stepper="jump")}, "stepper 'jump' is unknown"),
        ({"clean_steps": False}, "clean_steps is off"),
        ({"curvature": "odd"}, "curvature 'odd' is unknown"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_one_line(tmp_path, data, changes, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        run(tmp_path, job_with(**changes), data)
    assert str(caught.value).startswith("model pair: ")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_diverging_adversarial_training_ends_in_one_line_and_leaves_nothing(tmp_path, data):
    job = adversarial(optimizer="sgd", learning_rate=1e30, momentum=0.0, epochs=5)
    with pytest.raises(DivergedError, match=r"^model pair: .*lower its learning rate") as caught:
        run(tmp_path, job, data, snapshots=(1,), minutes=0)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_weights_file_holds_the_whole_job(tmp_path, data):
    job = adversarial(PGD)
    found = load_metadata(run(tmp_path, job, data))["job"]
    assert training_job_from_dict(found) == job


# Resume


@pytest.mark.parametrize("calls", [3, 4])  # in the middle of the second iteration, and after it
@pytest.mark.parametrize("network", [{}, {"encoder": "resnet34", "layout": 1, "width": 0.0625}])  # with dropout
def test_stopped_within_an_iteration_gives_the_bits_of_an_undisturbed_run(tmp_path, data, monkeypatch, calls, network):
    job = adversarial(PGD, epochs=3, milestones=(1,), **network)
    run(tmp_path / "whole", job, data)
    for _ in range(2):
        interrupted(tmp_path / "stopped", data, job, monkeypatch, step=calls)
    run(tmp_path / "stopped", job, data)
    for name in ("weights.safetensors", "history.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_killed_and_resumed_gives_the_bits_of_an_undisturbed_run(tmp_path, data):
    job = adversarial(PGD, epochs=8, batch_size=4, milestones=(3,), snapshots=(2,))
    run(tmp_path / "whole", job, data, snapshots=(2,))
    kill_after(tmp_path / "killed", data, job, 2, 1)
    run(tmp_path / "killed", job, data, snapshots=(2,))
    for name in ("weights.safetensors", "epoch-2.safetensors", "history.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


TERMINATED = """
import argparse, json, os, sys
from pathlib import Path
from headstrong import program, training
from headstrong.jobs import training_job_from_dict
folder, data, job = Path(sys.argv[1]), Path(sys.argv[2]), training_job_from_dict(json.loads(sys.argv[3]))
done, calls = training.train_step, iter(range(100))
def step(*arguments):
    if next(calls) == 5:
        os.kill(os.getpid(), int(sys.argv[4]))
    return done(*arguments)
training.train_step = step
def main(_):
    training.train(job, data, folder / "weights.safetensors", snapshots={}, history=folder / "history.csv",
                   work=folder / "work", device="cpu", threads=1, checkpoint_minutes=1e9)
sys.exit(program.run(main, argparse.ArgumentParser(), []))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_of_the_step_under_way_and_ends_as_ever(tmp_path, data, number, code):
    job, folder = adversarial(epochs=4), tmp_path / "terminated"
    command = [*ENDED_BY_SIGNALS, sys.executable, "-c", TERMINATED, folder, data, json.dumps(to_dict(job)), str(number)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    assert f"{number.name} after 1 epochs and 1 steps" in ended.stderr
    description = read_tensors(folder / "work" / "last.ckpt")[1]
    # The sixth step is that on the adversarial batch of the third iteration; an epoch has two.
    assert (description["epoch"], description["step"]) == (1, 1)
    assert [path.name for path in folder.iterdir()] == ["work"]
    run(folder, job, data)
    run(tmp_path / "whole", job, data)
    for name in ("weights.safetensors", "history.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_training_that_nobody_ends_leaves_the_handler_as_it_was(tmp_path, data):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(tmp_path, job_with(epochs=1), data)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_someone_handles_is_passed_on_once(number):
    heard = []
    before = signal.signal(number, lambda *_: heard.append("heard"))
    try:
        with Termination() as termination:
            os.kill(os.getpid(), number)
            assert termination.asked == number
            assert not heard
            termination.obey()
            assert heard == ["heard"]
        assert heard == ["heard"]
    finally:
        signal.signal(number, before)


def test_a_second_ctrl_c_does_not_wait_and_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Termination():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Termination() as termination:
            os.kill(os.getpid(), signal.SIGINT)
            assert not termination.asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_log_names_both_kinds_of_loss(tmp_path, data, caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO):
        run(tmp_path, adversarial(epochs=1), data)
    assert "loss s" in caplog.text
    assert "adversarial loss d" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_equal_adversarial_runs_on_a_gpu_give_equal_files(tmp_path, data):
    job = adversarial(PGD, precision="auto", batch_size=5, epochs=3)
    check_equal_on_a_gpu(tmp_path, job, data)
