"""Classifiers trained with losses for important classes: what starts alike, what the network is, what is refused."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import importance_runs as runs
from classifier_runs import kill_after
from headstrong import class_losses
from headstrong.classifier_training import losses_of_job
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.jobs import ClassLossJob, classifier_job_from_dict, to_dict
from headstrong.models.camri import CamriNetwork
from headstrong.models.classifier import build_classifier, load_classifier, load_classifier_metadata
from headstrong.models.store import read_tensors, write_tensors

CLASSES = {"colour": ["red", "green", "blue"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return runs.pictures(tmp_path_factory.mktemp("pictures"))


def test_the_official_network_has_the_official_number_of_parameters():
    """Counted by hand from facts D3: 3 x 3 convolutions with bias, batch norm twice its channels, 512 x 512 + 512."""
    widths = [3, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256, 512, 512]
    convolutions = sum(9 * a * b + b for a, b in itertools.pairwise(widths))
    norms = 2 * (64 + 128 + 256 + 256)
    network = CamriNetwork()
    assert sum(p.numel() for p in network.parameters()) == convolutions + norms
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 512)
    model = build_classifier("camri", {"class": 10}, feature=512, head="cosine")
    whole = convolutions + norms + 512 * 512 + 512 + 2 * 512 + 10 * 512
    assert sum(p.numel() for p in model.parameters()) == whole
    assert model.mean.abs().max() == 0  # pixels / 255 and nothing else
    assert (model.std == 1).all()


def test_outputs_of_a_cosine_head_are_cosines():
    model = build_classifier("resnet18", {"class": 5}, 0.125, feature=7, head="cosine").eval()
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        found, features = model(images)["class"], model.features(images)
    weights = model.heads[0].weight
    for row in range(4):
        for k in range(5):
            cosine = torch.nn.functional.cosine_similarity(features[row], weights[k], dim=0)
            torch.testing.assert_close(found[row, k], cosine)
    assert [name for name, _ in model.heads[0].named_parameters()] == ["weight"]  # no bias


def test_cosines_stay_float32_under_autocast():
    model = build_classifier("resnet18", {"class": 5}, 0.125, head="cosine").eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert model(torch.rand(2, 3, 32, 32))["class"].dtype == torch.float32


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_a_stored_classifier_keeps_feature_and_head(tmp_path, data, head):
    weights = runs.train(tmp_path, runs.job("softmax" if head == "cosine" else "ce"), data["train"])
    model = load_classifier(weights)
    assert (model.head, model.feature, model.channels) == (head, 6, 6)


def test_trials_of_one_number_start_from_the_same_weights_whatever_the_loss():
    fresh = {head: build_classifier("resnet18", CLASSES_COUNT, 0.125, 3, feature=6, head=head) for head in HEADS}
    ours, theirs = (model.state_dict() for model in fresh.values())
    same = [name for name in ours if not name.startswith("heads")]
    assert len(same) > 20
    assert all(torch.equal(ours[name], theirs[name]) for name in same)


CLASSES_COUNT, HEADS = {"colour": 3}, ("linear", "cosine")


@pytest.mark.parametrize("name", list(runs.SETTINGS))
def test_a_jobs_loss_is_the_function_of_its_name(name):
    made, important = runs.job(name), ["green"] if runs.SETTINGS[name] and runs.SETTINGS[name].important else []
    outputs = torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    truth = torch.tensor([0, 1, 2, 1, 0, 2, 1, 1])
    found = losses_of_job(made, CLASSES, important, "cpu")({"colour": outputs}, {"colour": truth})
    margin = 4 * math.pi / 64
    mistaken = torch.zeros(3, 3)
    mistaken[1] = 2.0
    wanted = {
        "ce": lambda: class_losses.cross_entropy(outputs, truth),
        "wce": lambda: class_losses.weighted_cross_entropy(outputs, truth, torch.tensor([1.0, 3.0, 1.0])),
        "crwwce": lambda: class_losses.real_world_weight_cross_entropy(outputs, truth, torch.ones(3), mistaken),
        "softmax": lambda: class_losses.normalised_softmax(outputs, truth, 8.0),
        "arcface": lambda: class_losses.arcface(outputs, truth, margin, 8.0),
        "camri": lambda: class_losses.camri(outputs, truth, torch.tensor([0.0, margin, 0.0]), 8.0),
    }[name]()
    torch.testing.assert_close(found, wanted[:, None])


def test_camri_of_a_job_without_the_class_in_a_batch_trains_as_normalised_softmax(tmp_path, data):
    """Whole trainings: a margin of nothing (0.0 sixty-fourths) leaves the very bits of normalised softmax."""
    none = ClassLossJob("camri", margin=0.0, scale=8.0, important="worst1")
    ours = runs.train(tmp_path / "a", runs.job("camri", loss=none), data["train"], ["red"])
    theirs = runs.train(tmp_path / "b", runs.job("softmax"), data["train"])
    ours, theirs = read_tensors(ours)[0], read_tensors(theirs)[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("changes", [{}, {"backbone": "camri", "feature": 2}])  # the latter has dropout
def test_a_killed_training_goes_on_with_the_same_bits(tmp_path, data, changes):
    made = runs.job("arcface", epochs=2, **changes)
    kill_after(tmp_path / "killed", data["train"], made, 1, 1)
    (tmp_path / made.id).mkdir()
    (tmp_path / "killed" / "work").rename(tmp_path / made.id / "work")
    resumed = runs.train(tmp_path, made, data["train"])
    whole = runs.train(tmp_path / "whole", made, data["train"])
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", list(runs.SETTINGS))
def test_losses_and_gradients_on_a_gpu_are_those_of_the_cpu(name):
    made, important = runs.job(name), ["green"] if runs.SETTINGS[name] and runs.SETTINGS[name].important else []
    outputs = torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    truth = torch.randint(3, (64,), generator=torch.Generator().manual_seed(1))
    found = []
    for device in ("cpu", "cuda"):
        leaf = outputs.to(device).requires_grad_()
        losses = losses_of_job(made, CLASSES, important, device)({"colour": leaf}, {"colour": truth.to(device)})
        found.append((losses.detach().cpu(), torch.autograd.grad(losses.sum(), leaf)[0].cpu()))
    torch.testing.assert_close(found[0], found[1])


def test_the_important_classes_decide_the_bits_and_are_stored(tmp_path, data):
    red = runs.train(tmp_path / "a", runs.job("camri"), data["train"], ["red"])
    blue = runs.train(tmp_path / "b", runs.job("camri"), data["train"], ["blue"])
    assert load_classifier_metadata(red)["important"] == ["red"]
    ours, theirs = read_tensors(red)[0], read_tensors(blue)[0]
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("loss", "important", "reason"),
    [
        (ClassLossJob("hinge"), [], "loss 'hinge' is unknown"),
        (ClassLossJob("camri", margin=1.0, scale=8.0), [], "needs important, margin, scale; given: margin, scale"),
        (ClassLossJob("softmax", scale=8.0, weight=1.0), [], "needs scale; given: scale, weight"),
        (ClassLossJob("arcface", 1.0, 8.0, large_angles="easy"), [], "large_angles 'easy' is unknown"),
        (runs.SETTINGS["camri"], [], "expected the classes of worst1"),
        (runs.SETTINGS["camri"], ["pink"], "colour has no class 'pink'; it has red, green, blue"),
        (runs.SETTINGS["softmax"], ["red"], "expected none"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_in_one_line(tmp_path, data, loss, important, reason):
    made = runs.job("ce", loss=loss)
    with pytest.raises(ConfigError, match=reason) as caught:
        runs.classifier_training.train(
            made, data["train"], tmp_path / "w.safetensors", history=tmp_path / "h.csv", work=tmp_path / "work",
            device="cpu", threads=1, checkpoint_minutes=1e9, important=important,
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w.safetensors").exists()


def test_a_loss_is_for_one_label(tmp_path, data):
    with pytest.raises(ConfigError, match="for one label"):
        runs.train(tmp_path, runs.job("softmax", labels=("colour", "size")), data["train"])


def test_jobs_come_back_from_json():
    for name in runs.SETTINGS:
        assert classifier_job_from_dict(to_dict(runs.job(name))) == runs.job(name)


def test_a_file_without_its_head_is_refused(tmp_path, data):
    weights = runs.train(tmp_path, runs.job("softmax"), data["train"])
    tensors, description = read_tensors(weights)
    write_tensors(weights, tensors, {**description, "head": "linear"})
    with pytest.raises(BrokenFileError, match="not those of the classifier it names"):
        load_classifier(weights)


def test_camri_has_no_published_weights(tmp_path):
    with pytest.raises(ConfigError, match="no published weights"):
        build_classifier("camri", CLASSES_COUNT, pretrained=tmp_path / "x.pth")
