"""Classifiers of pictures: torchvision's networks to the number, seeds, weights of others, and classifiers on disk."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.folding import fold_batch_norm
from headstrong.models.classifier import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RESNETS,
    build_classifier,
    find_pretrained,
    load_classifier,
    load_classifier_metadata,
    save_classifier,
)

torch.set_num_threads(1)
HEADS = {"shape": 3, "type": 2}
CLASSES = {"shape": ["cube", "ball", "cone"], "type": ["plain", "dotted"]}


def small(heads=HEADS, seed=0, **changes):
    return build_classifier("resnet18", heads, 0.125, seed, **changes)


def images(count=2, side=64):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def published(name, seed=0):
    """torchvision's network with random weights, and statistics that have seen something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torchvision.models.get_model(name, weights=None)
        with torch.no_grad():
            network.train()(torch.rand(4, 3, 64, 64))
    return network.eval()


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# The networks


@pytest.mark.parametrize("name", [*RESNETS, "mobilenet_v2"])
def test_a_backbone_with_torchvisions_weights_computes_what_torchvision_computes(tmp_path, name):
    theirs = published(name)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model = build_classifier(name, {"class": 1000}, pretrained=tmp_path / "weights.pth").eval()
    last = theirs.get_submodule(model.classification_layer)
    model.heads[0].load_state_dict(last.state_dict())
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected, found = theirs((images() - mean) / std), model(images())["class"]
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_images_are_normalised_as_torchvisions_weights_expect():
    theirs = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (list(IMAGENET_MEAN), list(IMAGENET_STD)) == (theirs.mean, theirs.std)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_width_scales_the_channels(name, channels):
    for width in (0.125, 0.25):
        model = build_classifier(name, HEADS, width).eval()
        assert model.channels == channels * width
        assert model.features(images()).shape == (2, model.channels)
        assert model.backbone.conv1.out_channels == 64 * width


@pytest.mark.parametrize("side", [32, 45, 64])
def test_every_label_has_its_logits_and_pictures_may_have_any_size(side):
    model = small().eval()
    found = model(images(side=side))
    assert {label: tuple(logits.shape) for label, logits in found.items()} == {"shape": (2, 3), "type": (2, 2)}
    assert list(found) == list(HEADS) == list(model.classes)
    features = model.features(images(side=side))
    torch.testing.assert_close(found["type"], features @ model.heads[1].weight.T + model.heads[1].bias)


def test_networks_of_torchvision_lose_their_classification_layer():
    for name, channels in {"alexnet": 4096, "mobilenet_v2": 1280, "shufflenet_v2_x0_5": 1024}.items():
        model = build_classifier(name, {"class": 5}).eval()
        assert model.channels == channels == model.features(images()).shape[1]
        assert model(images())["class"].shape == (2, 5)


def test_own_networks_never_load_torchvision(tmp_path):
    code = "import sys; from headstrong.models.classifier import build_classifier as build; build('resnet18', {'a': 2})"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torchvision' not in sys.modules"], check=True)


def test_equal_seeds_give_equal_parts_whatever_the_companions():
    torch.rand(3)  # what happened before must not matter
    model, again, other = small(), small(), small(seed=1)
    assert same(model, again)
    assert not torch.equal(model.backbone.conv1.weight, other.backbone.conv1.weight)
    assert not torch.equal(model.heads[0].weight, other.heads[0].weight)
    alone = small({"type": 2})
    assert same(alone.backbone, model.backbone)
    assert same(alone.heads[0], model.heads[1])
    assert same(build_classifier("mobilenet_v2", HEADS, seed=3), build_classifier("mobilenet_v2", HEADS, seed=3))


def test_building_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    small()
    build_classifier("mobilenet_v2", HEADS)
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_norm_folds_into_the_same_function():
    model = small().train()
    with torch.no_grad():
        for _ in range(3):
            model(images(8))
        folded = fold_batch_norm(model, images(1))
        assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
        torch.testing.assert_close(folded(images())["shape"], model.eval()(images())["shape"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"backbone": "lenet"}, "backbone 'lenet': unknown; choose resnet18, resnet34, resnet50, camri, or"),
        ({"backbone": "fcn_resnet50"}, "backbone 'fcn_resnet50': unknown"),  # torchvision's, but no classifier
        ({"backbone": "squeezenet1_1"}, "does not end in a linear layer"),
        ({"backbone": "mnasnet0_5"}, "cannot be stored"),
        (
            {"backbone": "alexnet", "width": 0.5},
            "width 0.5: only resnet18, resnet34, resnet50, camri come in",
        ),
        ({"width": 0}, "width 0"),
        ({"stem": "wide"}, "choose published or unpooled"),
        ({"stem": "unpooled", "backbone": "alexnet"}, "of a ResNet only"),
        ({"heads": {}}, "at least one label"),
        ({"heads": {"shape": 1}}, "2 classes of each"),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_line(arguments, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        build_classifier(**{"backbone": "resnet18", "heads": HEADS, **arguments})
    assert "\n" not in str(caught.value)


# Weights of others


def test_pretrained_weights_are_taken_without_the_classification_layer(tmp_path):
    state = published("resnet18").state_dict()
    torch.save(state, tmp_path / "new.pth")
    # Torch did not always count batches, nor write zip archives; some of torchvision's files are that old.
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "new.safetensors")
    for name in ("new.pth", "old.pth", "new.safetensors"):
        found = build_classifier("resnet18", HEADS, pretrained=tmp_path / name)
        parameters = dict(found.backbone.named_parameters())
        assert parameters.keys() == {key for key in old if not key.startswith("fc.") and "running" not in key}
        assert all(torch.equal(parameters[key], state[key]) for key in parameters)
        assert torch.equal(found.backbone.bn1.running_mean, state["bn1.running_mean"])
        assert same(found.heads, build_classifier("resnet18", HEADS).heads)


class Bomb:
    """A pickle that makes a file when it is read carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_bomb(folder):
    torch.save({"conv1.weight": Bomb(folder / "exploded")}, folder / "bad.pth")


def write_plain_bomb(folder):
    (folder / "bad.pth").write_bytes(pickle.dumps(Bomb(folder / "exploded")))


def write_truncated(folder):
    torch.save({"conv1.weight": torch.zeros(1000)}, folder / "bad.pth")
    (folder / "bad.pth").write_bytes((folder / "bad.pth").read_bytes()[:-100])


def write_text(folder):
    (folder / "bad.pth").write_text("<html>404</html>")


def write_nothing(folder):
    (folder / "bad.pth").touch()


def write_list(folder):
    torch.save([torch.zeros(3)], folder / "bad.pth")


def write_training_state(folder):
    torch.save({"epoch": 3, "state_dict": {"conv1.weight": torch.zeros(3)}}, folder / "bad.pth")


def write_other_network(folder):
    torch.save({"features.0.weight": torch.zeros(3)}, folder / "bad.pth")


def write_other_width(folder):
    torch.save(build_classifier("resnet18", HEADS, 0.25).backbone.state_dict(), folder / "bad.pth")


WRITERS = [
    write_bomb, write_plain_bomb, write_truncated, write_text, write_nothing, write_list, write_training_state,
    write_other_network, write_other_width,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_files_that_are_not_this_backbones_weights_are_refused_in_one_line(tmp_path, write):
    write(tmp_path)
    with pytest.raises(BrokenFileError, match=r"bad\.pth") as caught:
        small(pretrained=tmp_path / "bad.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_the_bombs_of_this_file_are_alive(tmp_path):
    write_bomb(tmp_path)
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert (tmp_path / "exploded").exists()


def test_a_pickle_named_safetensors_is_refused(tmp_path):
    torch.save(published("resnet18").state_dict(), tmp_path / "bad.safetensors")
    with pytest.raises(BrokenFileError, match=r"bad\.safetensors"):
        small(pretrained=tmp_path / "bad.safetensors")


def test_pretrained_weights_lie_beside_the_real_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"weights/resnet18\.pth: no such file.*https://") as caught:
        find_pretrained("resnet18.pth")
    assert str(tmp_path) in str(caught.value)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18.pth").touch()
    assert find_pretrained("resnet18.pth") == tmp_path / "weights" / "resnet18.pth"
    with pytest.raises(ConfigError, match="expected the name of a file"):
        find_pretrained("../resnet18.pth")


# On disk


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_a_stored_classifier_comes_back_as_it_was(tmp_path, backbone):
    model = build_classifier(backbone, HEADS, 0.125 if backbone == "resnet18" else 1.0)
    with torch.no_grad():
        model.train()(images(4))  # running statistics are stored as well
    save_classifier(tmp_path / "a.safetensors", model, CLASSES, {"id": "try"}, {"code": "abc"})
    found = load_classifier(tmp_path / "a.safetensors")
    assert not found.training
    assert same(found, model)
    assert found.classes == model.classes
    assert list(found.classes) == list(HEADS)
    with torch.no_grad():
        torch.testing.assert_close(found(images()), model.eval()(images()), rtol=1e-4, atol=1e-5)
    described = load_classifier_metadata(tmp_path / "a.safetensors")
    assert (described["backbone"], described["width"], described["code"]) == (backbone, model.width, "abc")
    assert (described["classes"], described["job"]) == (CLASSES, {"id": "try"})


def test_the_order_of_the_labels_is_kept(tmp_path):
    model = small({"type": 2, "shape": 3})
    save_classifier(tmp_path / "a.safetensors", model, CLASSES, {})
    assert list(load_classifier(tmp_path / "a.safetensors")(images())) == ["type", "shape"]


def test_equal_classifiers_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_classifier(tmp_path / name, small(), CLASSES, {"id": "try"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_that_are_not_the_heads_are_not_stored(tmp_path):
    with pytest.raises(ValueError, match="names of"):
        save_classifier(tmp_path / "a", small(), {**CLASSES, "shape": ["cube"]}, {})


def test_files_that_are_no_classifiers_are_refused_in_one_line(tmp_path):
    with pytest.raises(MissingDataError, match=r"none\.safetensors"):
        load_classifier(tmp_path / "none.safetensors")
    save_classifier(tmp_path / "whole", small(), CLASSES, {})
    (tmp_path / "truncated").write_bytes((tmp_path / "whole").read_bytes()[:-10])
    (tmp_path / "pickle").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign")
    renamed = (tmp_path / "whole").read_bytes().replace(b'\\"resnet18\\"', b'\\"resnet34\\"')
    (tmp_path / "renamed").write_bytes(renamed)
    for name in ("truncated", "pickle", "foreign", "renamed"):
        with pytest.raises(BrokenFileError, match=name) as caught:
            load_classifier(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_an_unpooled_stem_keeps_the_weights_and_twice_the_resolution(tmp_path):
    pooled, unpooled = (build_classifier("resnet18", HEADS, 0.125, stem=stem) for stem in ("published", "unpooled"))
    assert same(pooled, unpooled)
    seen = {}
    for name, model in (("pooled", pooled), ("unpooled", unpooled)):
        hook = model.backbone.layer1.register_forward_hook(
            lambda *given, name=name: seen.update({name: given[2].shape})
        )
        model.eval()(torch.rand(1, 3, 32, 32))
        hook.remove()
    assert (seen["pooled"][-1], seen["unpooled"][-1]) == (8, 16)
    names = {label: [str(number) for number in range(count)] for label, count in HEADS.items()}
    save_classifier(tmp_path / "c.safetensors", unpooled, names, {})
    images = torch.rand(2, 3, 32, 32)
    assert load_classifier(tmp_path / "c.safetensors").stem == "unpooled"
    again = load_classifier(tmp_path / "c.safetensors")(images)
    assert all(torch.allclose(again[label], logits, atol=1e-6) for label, logits in unpooled(images).items())
