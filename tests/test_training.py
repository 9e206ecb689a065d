"""Training: it learns, it adds up what it says, the same bits always, also after a kill; and how it fails."""

import json
import logging

import numpy as np
import pytest
import torch

from headstrong import runtime, training
from headstrong.data.batches import Batches
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.jobs import to_dict
from headstrong.loop import optimizer_for, rate_at
from headstrong.losses import per_sample_losses, prior_class_weights
from headstrong.models import load_metadata
from training_runs import (
    CLASSES,
    JOB,
    check_equal_on_a_gpu,
    history_of,
    interrupted,
    job_with,
    kill_after,
    raw_samples,
    run,
    same,
    weights_of,
    write_data,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "train.h5", 10)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_tiny_network_learns_its_few_images_by_heart(tmp_path, data, optimizer):
    job = job_with(epochs=40, batch_size=8, optimizer=optimizer, learning_rate=5e-3, loss_pixels="valid", tasks="sdn",
                   weights=(1.0, 1.0, 1.0))  # fmt: skip
    run(tmp_path, job, data)
    rows = history_of(tmp_path)
    for letter in job.tasks:
        assert rows[-1][f"loss_{letter}"] < rows[0][f"loss_{letter}"] / 2


def test_the_gradient_of_a_step_is_that_of_the_weighted_sum_of_the_mean_losses(data):
    job = job_with(weights=(1.0, 0.01), optimizer="sgd", learning_rate=0.5, momentum=0.0, class_weights="prior")
    batch = Batches(data, job.tasks, "cpu").get([0, 3, 4, 7])
    class_weights = training.class_weights_for(job, data, "cpu")
    taught, by_hand = (training.model_for(job, len(CLASSES)) for _ in range(2))
    losses = training.train_step(job, taught, optimizer_for(job, taught), batch, class_weights)
    apart = per_sample_losses(by_hand(batch.images), batch, "sd", pixels="all", class_weights=class_weights)
    total = sum(1.0 * apart[row, 0] + 0.01 * apart[row, 1] for row in range(4)) / 4
    total.backward()
    torch.testing.assert_close(losses, apart.mean(dim=0).detach())
    before = training.model_for(job, len(CLASSES)).state_dict()
    for name, parameter in by_hand.named_parameters():
        expected = before[name] - 0.5 * parameter.grad
        torch.testing.assert_close(taught.state_dict()[name], expected, rtol=1e-4, atol=1e-6)


def test_uniform_weights_of_a_pair_halve_each_task(data):
    batch = Batches(data, "sd", "cpu").get(range(4))
    gradients = []
    for weights in ((0.5, 0.5), (1.0, 0.0), (0.0, 1.0)):
        job = job_with(weights=weights)
        model = training.model_for(job, len(CLASSES))
        training.train_step(job, model, torch.optim.SGD(model.parameters(), lr=0.0), batch, None)
        gradients.append([parameter.grad for parameter in model.encoder.parameters()])
    for both, first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(both, (first + second) / 2, rtol=1e-3, atol=1e-4 * float(both.abs().max()))


def test_class_weights_follow_the_training_split(data):
    job = job_with(class_weights="prior")
    labels = np.concatenate([raw["s"].ravel() for _, raw in raw_samples(10)])
    shares = np.array([0, *((labels == number).sum() / (labels > 0).sum() for number in (1, 2, 3))])
    torch.testing.assert_close(training.class_weights_for(job, data, "cpu"), prior_class_weights(shares))
    assert training.class_weights_for(job_with(class_weights="uniform"), data, "cpu") is None
    assert training.class_weights_for(job_with(class_weights="prior", tasks="dn"), data, "cpu") is None


def test_the_learning_rate_drops_after_each_milestone():
    job = job_with(learning_rate=1e-3, milestones=(120, 140), decay=0.1)
    rates = [rate_at(job, epoch, 0) for epoch in (0, 119, 120, 139, 140, 149)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_a_rate_that_falls_with_steps_is_one_that_falls_with_epochs(tmp_path, data):
    """Of two steps per epoch; and within an epoch it falls as well."""
    rhythms = {"epochs": {"milestones": (1, 2)}, "steps": {"step_milestones": (2, 4)}, "every": {"decay_every": 2}}
    for name, rhythm in rhythms.items():
        run(tmp_path / name, job_with(epochs=3, decay=0.5, **rhythm), data)
        assert (tmp_path / name / "history.csv").read_bytes() == (tmp_path / "epochs" / "history.csv").read_bytes()
    run(tmp_path / "within", job_with(epochs=3, decay=0.5, learning_rate=0.001, decay_every=1), data)
    assert [row["learning_rate"] for row in history_of(tmp_path / "within")] == [0.5e-3, 0.125e-3, 0.03125e-3]


def test_the_optimiser_is_as_the_schedule_says():
    model = training.model_for(JOB, len(CLASSES))
    adam = optimizer_for(job_with(betas=(0.5, 0.9), weight_decay=0.01), model)
    assert (adam.defaults["betas"], adam.defaults["weight_decay"]) == ((0.5, 0.9), 0.01)
    sgd = optimizer_for(job_with(optimizer="sgd", momentum=0.7, weight_decay=0.01), model)
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.7, 0.01)


def test_the_history_tells_epochs_rates_and_mean_losses(tmp_path, data):
    job = job_with(epochs=3, milestones=(2,), learning_rate=0.0, shuffle=False)
    run(tmp_path, job, data)
    rows = history_of(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert list(rows[0]) == ["epoch", "learning_rate", "loss_s", "loss_d"]
    # At learning rate 0 in training mode, every epoch sees the untrained network
    model, batches = training.model_for(job, len(CLASSES)).train(), Batches(data, "sd", "cpu")
    losses = []
    for first in (0, 4):  # the incomplete third batch is dropped
        batch = batches.get(range(first, first + 4))
        losses.append(per_sample_losses(model(batch.images), batch, "sd", pixels="all", class_weights=None))
    expected = torch.cat(losses).mean(dim=0).tolist()
    for row in rows:
        assert [row["loss_s"], row["loss_d"]] == pytest.approx(expected, rel=1e-4)


def test_orders_are_permutations_that_depend_on_seed_and_epoch():
    def order(epoch=0, **changes):
        return training.epoch_order(job_with(**changes), epoch, 50).tolist()

    assert sorted(order()) == list(range(50)) == order(shuffle=False)
    assert order() == order() != order(shuffle=False)
    assert order(seed=8) != order() != order(epoch=1)


def test_a_split_smaller_than_a_batch_is_one_batch(tmp_path, data):
    whole = run(tmp_path / "a", job_with(batch_size=10, shuffle=False), data)
    larger = run(tmp_path / "b", job_with(batch_size=64, shuffle=False), data)
    assert same(weights_of(whole), weights_of(larger))


def test_equal_runs_give_equal_files(tmp_path, data):
    files = []
    for name in ("a", "b"):
        torch.rand(3)  # what happened before must not matter
        run(tmp_path / name, job_with(class_weights="prior"), data, snapshots=(1,))
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert sorted(files[0]) == ["epoch-1.safetensors", "history.csv", "weights.safetensors"]
    assert files[0] == files[1]
    other = run(tmp_path / "c", job_with(class_weights="prior", seed=8), data)
    assert not same(weights_of(other), weights_of(tmp_path / "a" / "weights.safetensors"))


def test_a_snapshot_is_the_model_of_a_shorter_run(tmp_path, data):
    run(tmp_path / "long", job_with(epochs=4, milestones=(2,)), data, snapshots=(1, 2, 4))
    run(tmp_path / "short", job_with(epochs=2), data)
    short, long = tmp_path / "short" / "weights.safetensors", tmp_path / "long"
    assert same(weights_of(long / "epoch-2.safetensors"), weights_of(short))
    assert same(weights_of(long / "epoch-4.safetensors"), weights_of(long / "weights.safetensors"))
    assert not same(weights_of(long / "epoch-1.safetensors"), weights_of(short))
    assert load_metadata(long / "epoch-2.safetensors")["epoch"] == "2"
    assert history_of(long)[:2] == history_of(tmp_path / "short")


def test_the_weights_file_says_what_it_is(tmp_path, data):
    path = run(tmp_path, JOB, data)
    found = load_metadata(path)
    assert found["job"] == json.loads(json.dumps(to_dict(JOB)))
    assert (found["encoder"], found["tasks"], found["classes"], found["epoch"]) == ("resnet18", "sd", 4, "2")
    assert not (tmp_path / "work").exists()


# Resume: the program is really killed, at a step of an epoch that is not its first


def test_killed_and_resumed_gives_the_bits_of_an_undisturbed_run(tmp_path, data, caplog):
    job = job_with(epochs=8, batch_size=2, milestones=(3,), snapshots=(2,))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run(whole, job, data, snapshots=(2,))
    kill_after(killed, data, job, 2, 2)
    assert not [path for path in killed.iterdir() if path.is_file()], "outputs appear at the end only"
    with caplog.at_level(logging.INFO):
        run(killed, job, data, snapshots=(2,))
    assert "goes on after" in caplog.text
    for name in ("weights.safetensors", "epoch-2.safetensors", "history.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (killed / "work").exists()


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"encoder": "xception"}, {"precision": "bfloat16"}])
def test_stopped_at_several_steps_gives_the_bits_of_an_undisturbed_run(tmp_path, data, monkeypatch, caplog, changes):
    job = job_with(epochs=3, milestones=(1,), step_milestones=(3,), **changes)
    run(tmp_path / "whole", job, data)
    for _ in range(4):  # one more step each time, over the end of an epoch
        interrupted(tmp_path / "stopped", data, job, monkeypatch, step=1)
    with caplog.at_level(logging.INFO):
        run(tmp_path / "stopped", job, data)
    assert "goes on after 1 epochs and 2 of 2 steps" in caplog.text
    for name in ("weights.safetensors", "history.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def other_seed(folder, data):
    return job_with(seed=8), data


def other_data(folder, data):
    return JOB, write_data(folder / "other.h5", 9)


def damaged(folder, data):
    path = folder / "run" / "work" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-10])
    return JOB, data


@pytest.mark.parametrize("change", [other_seed, other_data, damaged])
def test_a_checkpoint_of_something_else_is_named_and_not_used(tmp_path, data, monkeypatch, caplog, change):
    interrupted(tmp_path / "run", data, JOB, monkeypatch)
    job, data = change(tmp_path, data)
    with caplog.at_level(logging.INFO):
        found = run(tmp_path / "run", job, data)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "starting from scratch" in warnings[0]
    assert "last.ckpt" in warnings[0]
    assert same(weights_of(found), weights_of(run(tmp_path / "fresh", job, data)))


def test_a_checkpoint_whose_kept_weights_are_gone_is_not_used(tmp_path, data, monkeypatch, caplog):
    interrupted(tmp_path / "run", data, JOB, monkeypatch, step=3, snapshots=(1,))
    (tmp_path / "run" / "work" / "epoch-1.safetensors").unlink()
    run(tmp_path / "run", JOB, data, snapshots=(1,))
    run(tmp_path / "fresh", JOB, data, snapshots=(1,))
    for name in ("epoch-1.safetensors", "weights.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert "has lost the weights" in caplog.text


def test_a_loss_that_is_not_a_number_ends_training_and_leaves_nothing(tmp_path, data):
    job = job_with(optimizer="sgd", learning_rate=1e30, momentum=0.0, epochs=5)
    with pytest.raises(DivergedError, match=r"^model pair: the loss of task [sd] became (nan|inf) in epoch \d+, step"):
        run(tmp_path, job, data, snapshots=(1,), minutes=0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_weights_that_are_not_numbers_after_the_last_step_are_not_stored(tmp_path, data):
    job = job_with(optimizer="sgd", learning_rate=1e30, weights=(1e15, 1e15), momentum=0.0, epochs=1, batch_size=10)
    with pytest.raises(DivergedError, match="not finite after the last step of epoch 1"):
        run(tmp_path, job, data)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optimizer": "lion"}, "optimizer 'lion'"),
        ({"precision": "float8"}, "precision 'float8'"),
        ({"loss_pixels": "some"}, "loss_pixels 'some'"),
        ({"class_weights": "odd"}, "class_weights 'odd'"),
        ({"weights": (1.0,)}, "1 loss weights for tasks 'sd'"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 1}, "batch norm"),
        ({"encoder": "vgg"}, "encoder 'vgg'"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_one_line(tmp_path, data, changes, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        run(tmp_path, job_with(**changes), data)
    assert "\n" not in str(caught.value)


def test_snapshots_beyond_the_last_epoch_are_refused(tmp_path, data):
    with pytest.raises(ConfigError, match="snapshots after"):
        run(tmp_path, JOB, data, snapshots=(3,))


def test_missing_and_broken_data_are_told_apart(tmp_path):
    with pytest.raises(MissingDataError):
        run(tmp_path, JOB, tmp_path / "none.h5")
    (tmp_path / "broken.h5").write_bytes(b"no")
    with pytest.raises(BrokenFileError):
        run(tmp_path, JOB, tmp_path / "broken.h5")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_a_configuration_error():
    with pytest.raises(ConfigError, match="no CUDA device"), runtime.reproducible("cuda", 1):
        pass


def test_reproducible_work_leaves_cudnn_on_and_its_choices_off():
    before = torch.backends.cudnn.enabled
    with runtime.reproducible("cpu", 1):
        flags = torch.backends.cudnn
        assert (flags.enabled, flags.deterministic, flags.benchmark, flags.allow_tf32) == (True, True, False, False)
    assert torch.backends.cudnn.enabled == before


def test_bfloat16_trains_close_to_float32(tmp_path, data):
    for precision in ("float32", "bfloat16"):
        run(tmp_path / precision, job_with(epochs=1, precision=precision), data)
    full, half = (history_of(tmp_path / precision)[0] for precision in ("float32", "bfloat16"))
    assert half != full
    assert half == pytest.approx(full, rel=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("encoder", ["resnet18", "xception"])
def test_equal_runs_on_a_gpu_give_equal_files(tmp_path, data, encoder):
    job = job_with(encoder=encoder, precision="auto", batch_size=5, epochs=3)
    check_equal_on_a_gpu(tmp_path, job, data)
