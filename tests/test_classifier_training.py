"""Training classifiers: it learns, steps add up what they say, the same bits also after a kill; how it fails."""

import hashlib
import json
import logging
import runpy
import sys

import pytest
import torch

from classifier_runs import CLASSES, JOB, ROOT, job_with, kill_after, run, stopped, write_squares
from headstrong import classifier_training
from headstrong.classifier_training import accuracy, augmented, classification_losses
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.jobs import to_dict
from headstrong.loop import optimizer_for
from headstrong.models.classifier import build_classifier, load_classifier, load_classifier_metadata
from job_files import job_file
from training_runs import history_of, outputs_of

torch.set_num_threads(1)
HEADS = {label: len(names) for label, names in CLASSES.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("pictures") / "train.h5", 10)


def fresh(job):
    return build_classifier(job.backbone, HEADS, job.width, job.seed).train()


def test_it_learns_the_colour_and_the_size_of_squares_it_has_not_seen(tmp_path):
    pictures = write_squares(tmp_path / "train.h5", 240)
    unseen = write_squares(tmp_path / "test.h5", 90, seed=1, split="test")
    job = job_with(epochs=12, batch_size=12, learning_rate=2e-3, milestones=(8,))
    model = load_classifier(run(tmp_path, job, pictures))
    assert accuracy(model, unseen, "colour", 32) > 95
    assert accuracy(model, unseen, "size", 32) > 95
    rows = history_of(tmp_path)
    assert all(rows[-1][f"loss_{label}"] < rows[0][f"loss_{label}"] / 2 for label in job.labels)


def test_accuracy_counts_the_pictures_told_right(data):
    model = build_classifier("resnet18", HEADS, 0.125).eval()
    with PictureBatchesOpen(data) as batches:
        batch = batches.get(range(10))
        with torch.no_grad():
            right = (model(batch.images)["colour"].argmax(1) == batch.labels["colour"]).float().mean()
        for size in (1, 3, 64):
            assert accuracy(model, batches, "colour", size) == pytest.approx(100 * float(right))
    assert accuracy(model, data, "colour") == pytest.approx(100 * float(right))


class PictureBatchesOpen(PictureBatches):
    """Batches of all labels, closed at the end of a block."""

    def __init__(self, path):
        super().__init__(path, list(CLASSES), "cpu")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# One step


def test_losses_are_minus_the_logarithm_of_the_probability_of_the_truth():
    logits = {"a": torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]), "b": torch.tensor([[1.0, 1.0], [0.0, 5.0]])}
    labels = {"b": torch.tensor([0, 1]), "a": torch.tensor([1, 2]), "unused": torch.tensor([7, 7])}
    found = classification_losses(logits, labels)
    a = [-logits["a"][0].softmax(0)[1].log(), -logits["a"][1].softmax(0)[2].log()]
    b = [-logits["b"][0].softmax(0)[0].log(), -logits["b"][1].softmax(0)[1].log()]
    torch.testing.assert_close(found, torch.tensor([[a[0], b[0]], [a[1], b[1]]]))
    assert classification_losses({"a": logits["a"].bfloat16()}, labels).dtype == torch.float32


def test_the_gradient_of_a_step_is_that_of_the_mean_of_the_labels_mean_losses(data):
    job = job_with(optimizer="sgd", learning_rate=0.5, momentum=0.0)
    with PictureBatchesOpen(data) as batches:
        batch = batches.get([0, 3, 4, 7])
    taught, by_hand = fresh(job), fresh(job)
    optimizer = optimizer_for(job, taught)
    losses = classifier_training.train_step(job, taught, optimizer, batch.images, batch.labels)
    logits = by_hand(batch.images)
    apart = {label: torch.nn.functional.cross_entropy(logits[label], batch.labels[label]) for label in job.labels}
    ((apart["colour"] + apart["size"]) / 2).backward()
    torch.testing.assert_close(losses, torch.stack([apart["colour"], apart["size"]]).detach())
    before = fresh(job).state_dict()
    for name, parameter in by_hand.named_parameters():
        expected = before[name] - 0.5 * parameter.grad
        torch.testing.assert_close(taught.state_dict()[name], expected, rtol=1e-4, atol=1e-6)


def test_the_history_tells_epochs_rates_and_mean_losses(tmp_path, data):
    job = job_with(epochs=3, milestones=(2,), learning_rate=0.0, augment=False, batch_size=5)
    run(tmp_path, job, data)
    rows = history_of(tmp_path)
    assert list(rows[0]) == ["epoch", "learning_rate", "loss_colour", "loss_size"]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    # At learning rate 0 in training mode, every epoch sees the untrained network, in an order of its own
    model, losses = fresh(job), []
    with PictureBatchesOpen(data) as batches:
        for first in (0, 5):
            batch = batches.get(classifier_training.epoch_order(job, 1, 10)[first : first + 5])
            losses.append(classification_losses(model(batch.images), batch.labels))
    expected = torch.cat(losses).mean(dim=0).tolist()
    assert [rows[1]["loss_colour"], rows[1]["loss_size"]] == pytest.approx(expected, rel=1e-4)


def test_the_learning_rate_drops_after_each_milestone(tmp_path, data):
    run(tmp_path, job_with(epochs=3, milestones=(1, 2), batch_size=10), data)
    assert [row["learning_rate"] for row in history_of(tmp_path)] == pytest.approx([1e-3, 1e-4, 1e-5])


def test_orders_are_permutations_that_depend_on_seed_and_epoch():
    def order(epoch=0, seed=7):
        return classifier_training.epoch_order(job_with(seed=seed), epoch, 50).tolist()

    assert sorted(order()) == list(range(50)) != order()
    assert order() == order()
    assert order(seed=8) != order() != order(epoch=1)


def test_the_last_incomplete_batch_is_dropped_unless_it_is_the_only_one(tmp_path, data, monkeypatch):
    sizes = []
    step = classifier_training.train_step
    monkeypatch.setattr(
        classifier_training, "train_step", lambda *given: (sizes.append(len(given[3])), step(*given))[1]
    )
    run(tmp_path / "a", job_with(epochs=1), data)
    run(tmp_path / "b", job_with(epochs=1, batch_size=64), data)
    assert sizes == [4, 4, 10]


# Augmentation


def test_an_augmented_picture_is_the_picture_mirrored_or_moved_its_edges_repeated():
    height, width = 16, 24
    images = torch.rand(200, 3, height, width, generator=torch.Generator().manual_seed(0))
    found, seen = augmented(images, 5), set()
    for before, after in zip(images, found, strict=True):
        padded = torch.nn.functional.pad(before[None], (3, 3, 2, 2), mode="replicate")[0]
        matches = {
            (down, right, mirrored)
            for down in range(5) for right in range(7) for mirrored in (False, True)
            if torch.equal(after.flip(2) if mirrored else after,
                           padded[:, down : down + height, right : right + width])
        }  # fmt: skip
        assert len(matches) == 1
        seen |= matches
    assert {down for down, _, _ in seen} == set(range(5))
    assert {right for _, right, _ in seen} == set(range(7))
    assert {mirrored for _, _, mirrored in seen} == {False, True}


def test_augmentation_depends_on_its_seed_only():
    images = torch.rand(20, 3, 16, 16)
    torch.rand(3)
    assert torch.equal(augmented(images, 5), augmented(images, 5))
    assert not torch.equal(augmented(images, 5), augmented(images, 6))
    tiny = torch.rand(64, 3, 4, 4)  # an eighth of it is less than a pixel: mirrored, never moved
    found = augmented(tiny, 5)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(found, tiny, strict=True))
    mirrored = [not torch.equal(a, b) for a, b in zip(found, tiny, strict=True)]
    assert 16 < sum(mirrored) < 48


# The same bits


def test_equal_runs_give_equal_files(tmp_path, data):
    for name in ("a", "b"):
        torch.rand(3)  # what happened before must not matter
        run(tmp_path / name, JOB, data)
    assert outputs_of(tmp_path / "a") == outputs_of(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["history.csv", "weights.safetensors"]
    for changes in ({"seed": 8}, {"augment": False}):
        run(tmp_path / str(changes), job_with(**changes), data)
        assert outputs_of(tmp_path / str(changes))["history.csv"] != outputs_of(tmp_path / "a")["history.csv"]


def test_killed_and_resumed_gives_the_bits_of_an_undisturbed_run(tmp_path, data, caplog):
    job = job_with(epochs=6, batch_size=2, milestones=(3,))
    run(tmp_path / "whole", job, data)
    kill_after(tmp_path / "killed", data, job, 2, 2)
    assert not [path for path in (tmp_path / "killed").iterdir() if path.is_file()], "outputs appear at the end only"
    with caplog.at_level(logging.INFO):
        run(tmp_path / "killed", job, data)
    assert "classifier squares: goes on after" in caplog.text
    assert outputs_of(tmp_path / "killed") == outputs_of(tmp_path / "whole")
    assert not (tmp_path / "killed" / "work").exists()


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"backbone": "mobilenet_v3_small", "width": 1.0}])
def test_stopped_at_several_steps_gives_the_bits_of_an_undisturbed_run(tmp_path, data, monkeypatch, changes):
    job = job_with(batch_size=5, milestones=(1,), **changes)  # the dropout of mobilenet_v3_small draws in every step
    run(tmp_path / "whole", job, data)
    for _ in range(3):  # one more step each time, over the end of an epoch
        stopped(tmp_path / "stopped", job, data, monkeypatch)
        torch.rand(3)
    run(tmp_path / "stopped", job, data)
    assert outputs_of(tmp_path / "stopped") == outputs_of(tmp_path / "whole")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_equal_runs_on_a_gpu_give_equal_files(tmp_path, data, backbone):
    job = job_with(backbone=backbone, width=1.0, precision="auto", epochs=3)
    for name in ("a", "b"):
        run(tmp_path / name, job, data, minutes=0, device="cuda")
    assert outputs_of(tmp_path / "a") == outputs_of(tmp_path / "b")


# Pretrained weights


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path / "real"))
    (tmp_path / "real" / "weights").mkdir(parents=True)
    return tmp_path / "real" / "weights"


def store_backbone(path, seed):
    torch.save(build_classifier("resnet18", HEADS, JOB.width, seed).backbone.state_dict(), path)


def test_training_starts_from_the_pretrained_weights_and_names_them(tmp_path, data, weights_folder):
    store_backbone(weights_folder / "start.pth", seed=99)
    path = run(tmp_path / "a", job_with(pretrained="start.pth", learning_rate=0.0), data)
    found, other = load_classifier(path), build_classifier("resnet18", HEADS, JOB.width, 99)
    for name, parameter in other.backbone.named_parameters():
        assert torch.equal(found.backbone.get_parameter(name), parameter)
    expected = hashlib.sha256((weights_folder / "start.pth").read_bytes()).hexdigest()
    assert load_classifier_metadata(path)["pretrained_sha256"] == expected


def test_a_checkpoint_that_started_from_other_weights_of_that_name_is_not_used(
    tmp_path, data, weights_folder, monkeypatch, caplog
):
    job = job_with(pretrained="start.pth")
    store_backbone(weights_folder / "start.pth", seed=99)
    stopped(tmp_path / "run", job, data, monkeypatch)
    store_backbone(weights_folder / "start.pth", seed=98)
    run(tmp_path / "run", job, data)
    assert "starting from scratch" in caplog.text
    run(tmp_path / "fresh", job, data)
    assert outputs_of(tmp_path / "run") == outputs_of(tmp_path / "fresh")


def test_pretrained_weights_that_are_not_there_are_missing_data(tmp_path, data, weights_folder):
    with pytest.raises(MissingDataError, match=r"none\.pth"):
        run(tmp_path / "a", job_with(pretrained="none.pth"), data)


# Failures


def test_a_loss_that_is_not_a_number_ends_training_and_leaves_nothing(tmp_path, data):
    job = job_with(optimizer="sgd", learning_rate=1e30, momentum=0.0, epochs=5)
    with pytest.raises(DivergedError, match=r"^classifier squares: the loss of task (colour|size) became (nan|inf)"):
        run(tmp_path, job, data, minutes=0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_weights_that_are_not_numbers_after_the_last_step_are_not_stored(tmp_path, data):
    job = job_with(optimizer="sgd", learning_rate=1e30, weight_decay=1e10, momentum=0.0, epochs=1, batch_size=10)
    with pytest.raises(DivergedError, match=r"is not finite after the last step of epoch 1"):
        run(tmp_path, job, data)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"optimizer": "lion"}, "optimizer 'lion'"),
        ({"precision": "float8"}, "precision 'float8'"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 1}, "resnet18 cannot learn from batches of 1 pictures of 32x32"),
        ({"backbone": "vit_b_32", "width": 1.0}, "vit_b_32 cannot learn from batches of 4 pictures of 32x32"),
        ({"backbone": "lenet", "width": 1.0}, "backbone 'lenet'"),
        ({"labels": ()}, "labels"),
        ({"labels": ("size", "size")}, "labels"),
        ({"labels": ("shape",)}, "shape"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_one_line(tmp_path, data, changes, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        run(tmp_path, job_with(**changes), data)
    assert "\n" not in str(caught.value)
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_missing_and_broken_pictures_are_told_apart(tmp_path):
    with pytest.raises(MissingDataError):
        run(tmp_path, JOB, tmp_path / "none.h5")
    (tmp_path / "broken.h5").write_bytes(b"no")
    with pytest.raises(BrokenFileError):
        run(tmp_path, JOB, tmp_path / "broken.h5")


# The program


def test_the_program_writes_weights_history_and_a_record(tmp_path, data, monkeypatch):
    arguments = [
        "--job",
        job_file(to_dict(JOB)),
        "--data",
        data,
        "--weights",
        tmp_path / "weights.safetensors",
    ]
    arguments += ["--history", tmp_path / "history.csv", "--work", tmp_path / "work", "--device", "cpu"]
    program = ROOT / "scripts" / "train_classifier.py"
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in (program, *arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(program), run_name="__main__")
    assert ended.value.code == 0
    run(tmp_path / "here", JOB, data)
    assert outputs_of(tmp_path) == outputs_of(tmp_path / "here")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["sha256"] == hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    assert record["job"] == json.loads(json.dumps(to_dict(JOB)))
    assert record["code"] == load_classifier_metadata(tmp_path / "weights.safetensors")["code"]


def test_what_a_kill_left_of_a_checkpoint_goes_with_it(tmp_path, data):
    stray = tmp_path / "work" / ".last.part.ckpt"
    stray.parent.mkdir()
    stray.write_bytes(b"half a checkpoint")
    run(tmp_path, JOB, data)
    assert not stray.parent.exists()
