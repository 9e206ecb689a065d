"""Victims: the losses of the networks they stand for, to the truth, a target and the least likely class; refusals."""

import json

import pytest
import torch
from torch.nn import functional as F

from classifier_runs import write_squares
from evaluation_runs import CLASSES, write_data
from headstrong.data.batches import Batches
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.losses import per_sample_losses
from headstrong.models import build_model, load_model, save_model
from headstrong.models.classifier import load_classifier
from headstrong.victims import open_victims
from victim_runs import COLOURS, COUNTS, SIDE, TASKS, class_victims, write_classifier

torch.set_num_threads(1)
ROWS = [3, 0, 5, 3]
WEIGHTS = [0.0, 0.5, 2.0]


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return class_victims(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def victims(classes):
    return open_victims("classes", "colour", *classes, "cpu")


def shaken(images):
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(4)) - 0.5
    return (images + 0.2 * noise).clamp(0, 1)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def dense_weights(path, **switches):
    model = build_model("segnet", "sdn", len(CLASSES), width=0.125, seed=3).train()
    with torch.no_grad():  # averages of batch norm away from 0 and 1
        model(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)))
    job = {"tasks": "sdn", "loss_pixels": "valid", **switches}
    save_model(path, model, job, {"class_weights": json.dumps(WEIGHTS)})
    return path


def test_a_victim_knows_its_images(classes, victims):
    assert tuple(victims) == TASKS
    for task, victim in victims.items():
        batches = PictureBatches(classes[1][task], ["colour"], "cpu")
        assert (victim.task, victim.count, victim.size) == (task, COUNTS[task], (SIDE, SIDE))
        assert victim.classes == tuple(COLOURS)
        assert torch.equal(victim.images(ROWS), batches.get(ROWS).images)
        assert torch.equal(victim.batch(ROWS).labels["colour"], batches.get(ROWS).labels["colour"])
    few = open_victims("classes", "colour", *classes, "cpu", limit=7)
    assert [victim.count for victim in few.values()] == [7, 7]


def test_losses_are_the_cross_entropies_of_the_stored_classifier(classes, victims):
    for task, victim in victims.items():
        network = load_classifier(classes[0][task])
        clean = victim.images(ROWS)
        images = shaken(clean)
        with torch.no_grad():
            logits, before = network(images)["colour"], network(clean)["colour"]
        truth = victim.batch(ROWS).labels["colour"]
        close(victim.losses(images, ROWS), F.cross_entropy(logits, truth, reduction="none"))
        close(victim.target_losses(images, 2), F.cross_entropy(logits, torch.tensor([2] * 4), reduction="none"))
        # least likely on the clean images, whatever the perturbed ones look like
        least = victim.least_likely_losses(images, ROWS)
        close(least, F.cross_entropy(logits, before.argmin(dim=1), reduction="none"))
        assert torch.equal(victim.predictions(images), logits.argmax(dim=1))


def test_another_batch_is_another_batch(victims):
    """The last batch is kept: asking in turn must not mix rows up."""
    victim = victims["east"]
    first, second = victim.images([1, 2]), victim.images([2, 1])
    assert torch.equal(first.flip(0), second)
    assert torch.equal(victim.images(torch.tensor([1, 2])), first)
    assert victim.batch([1, 2]) is victim.batch(range(1, 3))


def test_gradients_reach_the_images_and_nothing_else(victims):
    victim = victims["west"]
    images = shaken(victim.images(ROWS)).requires_grad_()
    for losses in (
        victim.losses(images, ROWS),
        victim.target_losses(images, 1),
        victim.least_likely_losses(images, ROWS),
    ):
        (gradient,) = torch.autograd.grad(losses.sum(), images)
        assert (gradient.flatten(1).abs().amax(dim=1) > 0).all()
    layers = list(victim._network.modules())
    assert not any(parameter.requires_grad for layer in layers for parameter in layer.parameters())
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in layers), "folded"
    assert not any(layer.training for layer in layers if not isinstance(layer, torch.nn.Identity))


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"loss_pixels": "all", "normals": "l1", "depth": "encoded"},
        {"depth": "metres", "normals": "cosine"},
    ],
)
def test_a_dense_victim_takes_its_losses_as_its_training_did(switches, tmp_path):
    weights, data = dense_weights(tmp_path / "weights.safetensors", **switches), write_data(tmp_path / "d.h5", 6, 0)
    opened = open_victims("dense", "", dict.fromkeys("dns", weights), dict.fromkeys("dns", data), "cpu")
    model = load_model(weights)
    batch = Batches(data, "sdn", "cpu", depth=switches.get("depth", "encoded")).get(ROWS)
    images = shaken(batch.images).requires_grad_()
    expected = per_sample_losses(
        model(images), batch, "sdn", pixels=switches.get("loss_pixels", "valid"),
        class_weights=torch.tensor(WEIGHTS), normals=switches.get("normals", "l1"),
    )  # fmt: skip
    for column, task in enumerate("sdn"):
        victim = opened[task]
        found = victim.losses(images, ROWS)
        close(found, expected[:, column])
        mine, theirs = (
            torch.autograd.grad(x.sum(), images, retain_graph=True)[0] for x in (found, expected[:, column])
        )
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
        close(victim.outputs(images), model(images)[task])
        assert (victim.count, victim.size, victim.classes) == (6, (32, 32), ())
        assert victim.least_likely_losses(images, ROWS) is None
        with pytest.raises(ConfigError, match=f"task {task}: a dense task has no classes to aim at"):
            victim.target_losses(images, 0)
    assert opened["s"].batch(ROWS) is opened["n"].batch(ROWS), "tasks of one model read their images once"


def other_classes(folder, weights, data):
    other = write_classifier(folder / "other.safetensors", data["east"], 0, ["red", "green", "violet"])
    return "classes", "colour", {"east": other}, {"east": data["east"]}


def no_such_label(folder, weights, data):
    return "classes", "size", weights, data  # the pictures have it, the classifiers not


def no_such_task(folder, weights, data):
    model = dense_weights(folder / "dense.safetensors")
    return "dense", "", {"D": model}, {"D": write_data(folder / "dense.h5", 2, 0)}


def two_models(folder, weights, data):
    models = {letter: dense_weights(folder / f"{letter}.safetensors") for letter in "sd"}
    return "dense", "", models, dict.fromkeys("sd", write_data(folder / "dense.h5", 2, 0))


def classifiers_as_dense(folder, weights, data):
    return "dense", "", {"s": weights["east"]}, {"s": data["east"]}


def no_weights(folder, weights, data):
    return "classes", "colour", {"east": folder / "none.safetensors"}, data


def no_pictures(folder, weights, data):
    return "classes", "colour", weights, dict.fromkeys(data, folder / "none.h5")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (other_classes, ConfigError, "other classes of 'colour'"),
        (no_such_label, ConfigError, "has no label 'size'; it has colour"),
        (no_such_task, ConfigError, "has no task D; it has sdn"),
        (two_models, ConfigError, "one model and one data file"),
        (classifiers_as_dense, BrokenFileError, "not a model of headstrong"),
        (no_weights, MissingDataError, "train this classifier first"),
        (no_pictures, MissingDataError, "none.h5"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(arguments, error, said, classes, tmp_path):
    with pytest.raises(error, match=said) as caught:
        open_victims(*arguments(tmp_path, *classes), "cpu")
    assert "\n" not in str(caught.value)


def test_a_dense_model_of_other_classes_is_refused(tmp_path):
    path, data = tmp_path / "weights.safetensors", write_data(tmp_path / "d.h5", 2, 0)
    save_model(path, build_model("segnet", "s", len(CLASSES) + 4, width=0.125), {"tasks": "s", "loss_pixels": "all"})
    with pytest.raises(ConfigError, match=f"knows {len(CLASSES) + 4} classes, .* has {len(CLASSES)}"):
        open_victims("dense", "", {"s": path}, {"s": data}, "cpu")


def test_squares_of_another_seed_are_other_pictures(tmp_path, victims):
    """The victims' images are those of the file that was named, not those of the classifier's training."""
    other = write_squares(tmp_path / "other.h5", 6, seed=9, side=SIDE)
    weights = {"east": write_classifier(tmp_path / "w.safetensors", other, 0)}
    opened = open_victims("classes", "colour", weights, {"east": other}, "cpu")["east"]
    assert not torch.equal(opened.images([0]), victims["east"].images([0]))
