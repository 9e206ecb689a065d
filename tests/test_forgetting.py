"""Copies of backbones that forget a task: what learns and what stays, the same bits after a kill, how it fails."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.nn import functional as F

import forgetting_runs as runs
from forgetting_runs import PROBING, TRAIN, changed_tensors, is_head, outputs_of, run, started, state_of, take_epoch
from headstrong.data.batches import Batches
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.feature_files import FeatureFile
from headstrong.losses import per_sample_losses
from headstrong.models import load_model
from headstrong.models.classifier import load_classifier
from headstrong.seeds import derive_seed
from training_runs import history_of

torch.set_num_threads(1)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return runs.class_setting(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return runs.dense_setting(tmp_path_factory.mktemp("dense"))


@pytest.fixture
def setting(request, classes, dense):
    return {"classes": classes, "dense": dense}[request.param]


BOTH = pytest.mark.parametrize("setting", ["classes", "dense"], indirect=True)


def order_of(job, epoch):
    generator = torch.Generator().manual_seed(derive_seed(job.seed, "order", epoch))
    return torch.randperm(TRAIN, generator=generator)


# What learns, and what stays


@BOTH
def test_the_attackers_own_heads_learn_first_and_the_backbone_keeps_every_bit(setting):
    copy = started(setting.changed(**PROBING))
    before = state_of(copy.network)
    take_epoch(copy, 0)
    probed = state_of(copy.network)
    assert changed_tensors(before, probed)
    assert all(name.startswith(("heads.", "decoders.")) for name in changed_tensors(before, probed))
    take_epoch(copy, 1)
    probed = state_of(copy.network)
    take_epoch(copy, 2)  # the first of forgetting
    changed = changed_tensors(probed, state_of(copy.network))
    assert not [name for name in changed if is_head(name)]
    assert any(name.endswith("running_mean") for name in changed)


@BOTH
def test_real_heads_stay_unless_they_are_told_to_learn(setting):
    fixed, moved = started(setting), started(setting.changed(train_heads=True))
    before = state_of(fixed.network)
    assert not changed_tensors(before, state_of(moved.network))
    for copy in (fixed, moved):
        take_epoch(copy, 0)
    changed = changed_tensors(before, state_of(fixed.network))
    assert changed
    assert not [name for name in changed if is_head(name)]
    parameters = {name for name, _ in fixed.network.named_parameters()}
    assert {name for name in parameters if not is_head(name)} <= changed, "all of the backbone learns"
    learnt = changed_tensors(before, state_of(moved.network))
    assert changed <= learnt
    assert {name for name in parameters if is_head(name)} <= learnt


LAST = {
    "classes": [("backbone.layer4.1.",), ("backbone.layer4.",)],
    "dense": [("encoder.blocks.7.",), ("encoder.blocks.6.", "encoder.blocks.7.")],
}


@BOTH
def test_only_the_last_blocks_learn_and_statistics_of_the_others_stay(setting):
    before = state_of(started(setting).network)
    for layers, parts in enumerate(LAST[setting.job.kind], start=1):
        copy = started(setting.changed(layers=layers))
        take_epoch(copy, 0)
        changed = changed_tensors(before, state_of(copy.network))
        assert changed == {name for name in before if name.startswith(parts)}
        assert any(name.endswith(STATISTICS) for name in changed)


@BOTH
def test_losses_are_those_of_the_visible_tasks_before_the_step(setting):
    """Against the whole network, loaded as its trainer does; the backbone learns, the heads do not."""
    job = setting.job
    rows = order_of(job, 0)[:3]
    if job.kind == "classes":
        network, batch = load_classifier(setting.victim), PictureBatches(
            setting.train, list(runs.CLASSES), "cpu"
        ).get(rows)  # fmt: skip
        network.backbone.train()
        logits = network(batch.images)
        apart = {name: F.cross_entropy(logits[name], batch.labels[name]) for name in ("size", "parity", "third")}
        expected = torch.stack([apart["size"], (apart["parity"] + apart["third"]) / 2])
    else:
        network = load_model(setting.victim)
        batch = Batches(setting.train, "sdn", "cpu").get(rows)
        network.encoder.train()
        expected = per_sample_losses(network(batch.images), batch, "sn", pixels="valid", class_weights=None).mean(dim=0)
    torch.testing.assert_close(started(setting).step(0, 0)[0], expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_two_steps_are_those_of_a_plain_loop(classes, optimizer):
    setting = classes.changed(optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, layers=6)
    job, copy = setting.job, started(setting)
    for group in copy.optimizer.param_groups:
        group["lr"] = 0.01
    for number in range(2):
        copy.step(0, number)

    network = load_classifier(classes.victim).requires_grad_(False)
    parts = [network.backbone.layer2, network.backbone.layer3, network.backbone.layer4]
    parameters = [parameter for part in parts for parameter in part.train().requires_grad_(True).parameters()]
    # The same kernels: Adam's first steps have the size of the rate whatever that of the gradient, rounding and all.
    plain = (
        torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1, fused=True)
        if optimizer == "adam"
        else torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.1, fused=True)
    )
    batches = PictureBatches(classes.train, list(runs.CLASSES), "cpu")
    for number in range(2):
        batch = batches.get(order_of(job, 0)[3 * number :][:3])
        logits = network(batch.images)
        size, parity, third = (
            F.cross_entropy(logits[name], batch.labels[name]) for name in ("size", "parity", "third")
        )
        plain.zero_grad()
        ((size + (parity + third) / 2) / 2).backward()
        plain.step()
    expected, found = network.state_dict(), copy.network.state_dict()
    for name in found:
        if not is_head(name):
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_the_copy_starts_as_the_network_and_own_heads_do_not(classes):
    real, own = started(classes), started(classes.changed(**PROBING))
    changed = changed_tensors(state_of(real.network), state_of(own.network))
    assert changed
    assert all(is_head(name) for name in changed)


def test_samples_are_the_first_training_images(tmp_path, classes):
    limited = classes.changed(samples=7)
    few = classes._replace(train=runs.write_squares(tmp_path / "few.h5", 7))
    paths = [run(tmp_path / name, chosen) for name, chosen in (("limited", limited), ("few", few))]
    assert not changed_tensors(*(runs.tensors_of(path, "copy") for path in paths))
    directions = []
    for path in paths:
        with FeatureFile(path.with_name("features.h5")) as file:
            directions.append(file.mean_direction())
    assert torch.equal(*directions)


def test_labels_of_the_hidden_task_change_nothing(tmp_path, classes):
    garbage = runs.write_squares(tmp_path / "garbage.h5", TRAIN, hidden_seed=5)
    run(tmp_path / "a", classes)
    run(tmp_path / "b", classes._replace(train=garbage))
    assert garbage.read_bytes() != classes.train.read_bytes()
    assert outputs_of(tmp_path / "a") == outputs_of(tmp_path / "b")


# History


def test_the_history_has_a_row_per_epoch_with_rates_by_phase_and_a_loss_per_task(tmp_path, classes):
    setting = classes.changed(
        **PROBING, epochs=3, curve=(2, 3), milestones=(1, 2), learning_rate=0.002, optimizer="sgd"
    )
    run(tmp_path, setting)
    rows = history_of(tmp_path)
    assert list(rows[0]) == ["epoch", "learning_rate", "loss_size", "loss_number"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01, 0.01, 0.002, 0.0002, 0.00002])
    in_steps = {"milestones": (), "decay_every": started(setting).run.steps}  # counted from where probing ends
    run(tmp_path / "steps", setting.changed(**in_steps))
    assert history_of(tmp_path / "steps") == rows
    copy = started(setting)
    for epoch in range(5):
        means = take_epoch(copy, epoch).mean(dim=0).tolist()
        assert [rows[epoch]["loss_size"], rows[epoch]["loss_number"]] == pytest.approx(means, rel=1e-5)
    with FeatureFile(tmp_path / "features.h5") as file:
        assert file.epochs == (2, 3), "epochs of forgetting, not of probing"


def test_the_last_incomplete_batch_is_dropped_unless_it_is_the_only_one(classes):
    assert len(take_epoch(started(classes), 0)) == 3
    assert len(take_epoch(started(classes.changed(batch_size=64)), 0)) == 1


# The same bits


@BOTH
@pytest.mark.parametrize("access", [{}, PROBING])
def test_equal_jobs_give_equal_files(tmp_path, setting, access):
    chosen = setting.changed(**access)
    for name in ("a", "b"):
        torch.rand(3)  # what happened before must not matter
        run(tmp_path / name, chosen)
    assert outputs_of(tmp_path / "a") == outputs_of(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(outputs_of(tmp_path / "a"))
    run(tmp_path / "c", chosen.changed(seed=8))
    assert outputs_of(tmp_path / "c")["history.csv"] != outputs_of(tmp_path / "a")["history.csv"]


@pytest.mark.parametrize(
    ("setting", "place"),
    [("classes", (1, 1)), ("dense", (3, 2))],
    indirect=["setting"],
    ids=["classes-probing", "dense-forgetting"],
)
def test_killed_and_resumed_gives_the_bits_of_an_undisturbed_run(tmp_path, setting, place, caplog):
    probing = setting.changed(**PROBING)
    run(tmp_path / "whole", probing)
    runs.kill_at(tmp_path / "killed", probing, *place)
    assert not [path for path in (tmp_path / "killed").iterdir() if path.is_file()], "outputs appear at the end only"
    with caplog.at_level(logging.INFO):
        run(tmp_path / "killed", probing)
    assert f"goes on after {place[0]} epochs and {place[1]} of 3 steps" in caplog.text
    assert outputs_of(tmp_path / "killed") == outputs_of(tmp_path / "whole")
    assert not (tmp_path / "killed" / "work").exists()


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {**PROBING, "layers": 1, "train_heads": True}])
def test_stopped_after_every_step_gives_the_bits_of_an_undisturbed_run(tmp_path, classes, monkeypatch, changes):
    setting = classes.changed(batch_size=5, milestones=(1,), **changes)
    run(tmp_path / "whole", setting)
    for _ in range(2 * (setting.job.probe_epochs + setting.job.epochs) - 1):
        runs.stopped(tmp_path / "stopped", setting, monkeypatch)
        torch.rand(3)
    run(tmp_path / "stopped", setting)
    assert outputs_of(tmp_path / "stopped") == outputs_of(tmp_path / "whole")


def test_a_network_with_dropout_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    """Behind the last block of mobilenet_v3_small, a linear layer, comes one that draws in every step."""
    setting = runs.class_setting(tmp_path, "mobilenet_v3_small", 1.0).changed(layers=1, batch_size=5)
    run(tmp_path / "whole", setting)
    for step in (1, 2):
        runs.stopped(tmp_path / "stopped", setting, monkeypatch, step)
        torch.rand(3)
    run(tmp_path / "stopped", setting)
    assert outputs_of(tmp_path / "stopped") == outputs_of(tmp_path / "whole")
    drawing, quiet = started(setting), started(setting)
    for layer in quiet.network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    assert not torch.equal(drawing.step(0, 0)[0], quiet.step(0, 0)[0])


def test_a_checkpoint_of_another_job_network_or_data_is_not_used(tmp_path, classes, monkeypatch, caplog):
    other = runs.class_setting(_folder(tmp_path / "other"), seed=4)
    for name, before in {
        "job": classes.changed(learning_rate=0.5),
        "network": classes._replace(victim=other.victim),
        "data": classes._replace(train=other.test),
    }.items():
        runs.stopped(tmp_path / name, before, monkeypatch)
        caplog.clear()
        run(tmp_path / name, classes)
        assert "starting from scratch" in caplog.text
        run(tmp_path / "fresh", classes)
        assert outputs_of(tmp_path / name) == outputs_of(tmp_path / "fresh")


def _folder(path):
    path.mkdir()
    return path


# Failures


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 5, "curve": (5,)}, r"^forgetting squares-colour: the loss of task (size|number) became (nan|inf)"),
        ({"epochs": 1, "curve": (1,), "batch_size": 10, "weight_decay": 1e10}, r"is not finite; lower the learning"),
    ],
)
def test_forgetting_that_diverges_ends_in_one_line_and_leaves_nothing(tmp_path, classes, changes, reason):
    setting = classes.changed(optimizer="sgd", learning_rate=1e30, momentum=0.0, **changes)
    with pytest.raises(DivergedError, match=reason) as caught:
        run(tmp_path, setting, minutes=0)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_own_heads_that_diverge_are_blamed_on_the_rate_of_probing(tmp_path, classes):
    probing = {**PROBING, "probe_rate": 1e30, "batch_size": 10, "weight_decay": 1e10}
    setting = classes.changed(**probing, optimizer="sgd", momentum=0.0)
    with pytest.raises(DivergedError, match=r"lower (its|the) learning rate \(1e\+30\)"):
        run(tmp_path, setting, minutes=0)
    once = classes.changed(**{**probing, "probe_epochs": 1}, optimizer="sgd", momentum=0.0)
    with pytest.raises(DivergedError, match=r"heads.* is not finite; lower the learning rate \(1e\+30\)"):
        run(tmp_path, once, minutes=0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_epoch_on_the_curve_that_diverged_leaves_nothing_either(tmp_path, classes):
    setting = classes.changed(
        **PROBING, optimizer="sgd", learning_rate=1e30, momentum=0.0, batch_size=10, weight_decay=1e10
    )
    with pytest.raises(DivergedError, match="is not finite"):
        run(tmp_path, setting, minutes=0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"access": "none"}, "access 'none'"),
        ({"optimizer": "lion"}, "optimizer 'lion'"),
        ({"precision": "float8"}, "precision 'float8'"),
        ({"kind": "sounds"}, "kind 'sounds'"),
        ({"hidden": "size"}, "hidden size"),
        ({"visible": ()}, "visible tasks"),
        ({"visible": (("size", ()),)}, "each needs an output"),
        ({"visible": (("size", ("size",)), ("large", ("size",)))}, "no two the same"),
        ({"visible": (("shape", ("shape",)),)}, "has no output shape; it has colour, size, parity, third"),
        ({"epochs": 0, "curve": ()}, "epochs 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"probe_epochs": -1}, "probe_epochs -1"),
        ({"probe_epochs": 1}, "who has the real heads trains none"),
        ({"layers": 11}, r"layers 11; the backbone has 10 blocks"),
        ({"layers": 0}, "layers 0"),
        ({"layers": -1}, "layers -1"),
        ({"curve": ()}, "curve"),
        ({"curve": (1,)}, "curve"),
        ({"curve": (2, 1, 2)}, "curve"),
        ({"curve": (0, 2)}, "curve"),
        ({"batch_size": 1}, "batches of 1 images"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_is_refused_in_one_line(tmp_path, classes, changes, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        run(tmp_path, classes.changed(**changes))
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_missing_and_broken_files_are_told_apart(tmp_path, classes, dense):
    (tmp_path / "broken").write_bytes(b"no")
    for key in ("victim", "train", "test"):
        with pytest.raises(MissingDataError, match="absent"):
            run(tmp_path / key, classes._replace(**{key: tmp_path / "absent"}))
        with pytest.raises(BrokenFileError, match="broken"):
            run(tmp_path / key, classes._replace(**{key: tmp_path / "broken"}))
        assert not (tmp_path / key / "weights.safetensors").exists()
    with pytest.raises(BrokenFileError):
        run(tmp_path / "other", classes._replace(train=dense.train))
