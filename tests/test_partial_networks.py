"""Networks without some of their heads: the same function as the whole network, and nothing of the other heads."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch

import hidden_runs as runs
from headstrong.data.picture_batches import PictureBatches
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.models import load_model
from headstrong.models.classifier import build_classifier, load_classifier, save_classifier
from headstrong.models.multitask import build_model
from headstrong.models.partial import backbone_parts, head_state, heads_of, load_partial
from headstrong.models.store import read_tensors, write_tensors

LABELS = tuple(runs.CLASSES)
IMAGES = torch.rand(3, 3, runs.SIDE, runs.SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network of each kind."""
    folder = tmp_path_factory.mktemp("networks")
    data = runs.write_classes(folder / "fit.h5", 12, 1)
    return {
        "classes": runs.write_classifier(folder / "classifier.safetensors", data),
        "dense": runs.write_model(folder / "model.safetensors"),
    }


def whole(files: dict[str, Path], kind: str):
    return load_classifier(files[kind]) if kind == "classes" else load_model(files[kind])


def names_of(kind: str) -> tuple[str, ...]:
    return LABELS if kind == "classes" else tuple("sdn")


def overwrite(path: Path, copy: Path, names: list[str]) -> Path:
    """A copy of a file of weights in which every byte of these tensors is 255, which is no number."""
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    places = json.loads(content[8:header])
    for name in names:
        first, last = (header + offset for offset in places[name]["data_offsets"])
        content[first:last] = b"\xff" * (last - first)
    copy.write_bytes(content)
    return copy


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_kept_heads_answer_as_in_the_whole_network_whatever_their_order(files, kind):
    complete = whole(files, kind)
    with torch.no_grad():
        expected = complete(IMAGES)
        features = complete.features(IMAGES)
        for count in (1, 2, 3):
            for outputs in itertools.permutations(names_of(kind), count):
                network, _ = load_partial(files[kind], outputs)
                found = network(IMAGES)
                assert tuple(found) == outputs
                assert all(torch.equal(found[name], expected[name]) for name in outputs)
                assert torch.equal(network.features(IMAGES), features)
                assert not network.training


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_features_and_outputs_are_the_two_halves_of_a_network(files, kind):
    network = whole(files, kind)
    with torch.no_grad():
        expected, found = network(IMAGES), network.outputs(network.features(IMAGES))
    assert all(torch.equal(found[name], expected[name]) for name in names_of(kind))
    if kind == "dense":
        assert list(network.outputs(network.features(IMAGES), "ns")) == ["n", "s"]


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_without_heads_the_backbone_is_the_same_and_the_heads_are_new(files, kind):
    outputs = names_of(kind)[:2]
    complete = whole(files, kind)
    real = head_state(load_partial(files[kind], outputs)[0])
    networks = [load_partial(files[kind], outputs, heads=False, seed=seed)[0] for seed in (5, 5, 6)]
    first, same, other = (head_state(network) for network in networks)
    assert all(torch.equal(first[name], same[name]) for name in first)
    for name in ("heads.0.weight", "heads.1.bias") if kind == "classes" else ("offset_s", "offset_d"):
        assert not torch.equal(first[name], real[name])
    weights = [name for name, tensor in first.items() if tensor.ndim > 1 and tensor.unique().numel() > 2]
    assert weights
    assert not any(torch.equal(first[name], value[name]) for name in weights for value in (other, real))
    state = networks[0].state_dict()
    kept = [name for name in complete.state_dict() if not name.startswith(("heads.", "decoders.", "offset_"))]
    assert all(torch.equal(state[name], complete.state_dict()[name]) for name in kept)
    with torch.no_grad():
        assert torch.equal(networks[0].features(IMAGES), complete.features(IMAGES))


@pytest.mark.parametrize("kind", ["classes", "dense"])
@pytest.mark.parametrize("heads", [True, False])
def test_bytes_of_other_heads_play_no_part(files, kind, heads, tmp_path):
    hidden = runs.HIDDEN[kind]
    outputs = [name for name in names_of(kind) if name != hidden]
    lost = runs.own_heads(files[kind], hidden)
    if not heads:
        lost += [name for task in runs.TASKS[kind] if task != hidden for name in runs.own_heads(files[kind], task)]
    broken = overwrite(files[kind], tmp_path / "broken.safetensors", lost)
    found, expected = (load_partial(path, outputs, heads=heads)[0].state_dict() for path in (broken, files[kind]))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with pytest.raises(BrokenFileError, match="not finite"):
        whole({kind: broken}, kind)  # those bytes are read by who reads that head


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_a_file_without_the_other_heads_serves_as_well(files, kind, tmp_path):
    hidden = runs.HIDDEN[kind]
    outputs = [name for name in names_of(kind) if name != hidden]
    tensors, description = read_tensors(files[kind])
    lost = set(runs.own_heads(files[kind], hidden))
    path = tmp_path / "cut.safetensors"
    write_tensors(path, {name: tensor for name, tensor in tensors.items() if name not in lost}, description)
    with torch.no_grad():
        found, expected = (load_partial(one, outputs)[0](IMAGES) for one in (path, files[kind]))
    assert all(torch.equal(found[name], expected[name]) for name in outputs)
    with pytest.raises(BrokenFileError, match="not those of"):
        load_partial(path, [hidden])


def test_only_wanted_tensors_are_read(files, tmp_path):
    tensors, description = read_tensors(files["classes"], lambda name: name == "heads.1.bias")
    assert list(tensors) == ["heads.1.bias"]
    assert description["labels"] == list(LABELS)
    assert read_tensors(files["classes"], lambda name: False)[0] == {}
    assert len(read_tensors(files["classes"])[0]) > 50


def test_the_description_tells_nothing_of_other_outputs_classes(files):
    classes = load_partial(files["classes"], ["ground", "colour"])[1]
    assert classes["labels"] == ["ground", "colour"]
    assert classes["classes"] == {label: runs.CLASSES[label] for label in ("ground", "colour")}
    assert "sinister" not in json.dumps(classes)
    dense = load_partial(files["dense"], "nd")[1]
    assert not {"classes", "class_weights"} & set(dense)
    assert json.loads(load_partial(files["dense"], "ds")[1]["class_weights"]) == runs.CLASS_WEIGHTS
    assert load_partial(files["dense"], "n")[0].classes == 1


def test_embeddings_and_heads_of_cosines_are_kept(tmp_path):
    sizes = {label: len(names) for label, names in runs.CLASSES.items()}
    model = build_classifier("camri", sizes, runs.WIDTH, 3, feature=6, head="cosine").eval()
    save_classifier(tmp_path / "w.safetensors", model, runs.CLASSES, {})
    network, _ = load_partial(tmp_path / "w.safetensors", ["ground", "side"])
    with torch.no_grad():
        expected, found = load_classifier(tmp_path / "w.safetensors")(IMAGES), network(IMAGES)
    assert all(torch.equal(found[label], expected[label]) for label in ("ground", "side"))


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_the_parts_of_a_network_are_backbone_and_heads(files, kind):
    network, _ = load_partial(files[kind], names_of(kind)[:2])
    parts = [parameter for part in backbone_parts(network) for parameter in part.parameters()]
    heads = list(heads_of(network).parameters())
    known = {id(parameter) for parameter in [*parts, *heads]}
    assert len(known) == len(parts) + len(heads)
    assert known == {id(parameter) for parameter in network.parameters()}
    assert len(backbone_parts(network)) > 1
    named = {id(tensor) for name, tensor in network.state_dict(keep_vars=True).items() if name in head_state(network)}
    assert {id(parameter) for parameter in heads} <= named
    assert not named & {id(parameter) for parameter in parts}


# --- refusals --------------------------------------------------------------------------------------------------------


def refusal(error, *arguments, **keywords) -> str:
    with pytest.raises(error) as caught:
        load_partial(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_outputs_that_a_network_has_not_are_refused(files, kind):
    said = refusal(ConfigError, files[kind], [names_of(kind)[0], "pose"])
    assert str(files[kind]) in said
    assert f"has no output pose; it has {', '.join(names_of(kind))}" in said
    assert "no output to give" in refusal(ConfigError, files[kind], [])


def test_files_that_are_no_networks_are_refused(files, tmp_path):
    path = tmp_path / "w.safetensors"
    assert f"{path}: no such file" in refusal(MissingDataError, path, ["side"])
    path.write_bytes(files["classes"].read_bytes()[:-100])
    assert f"{path}: truncated" in refusal(BrokenFileError, path, ["side"])
    write_tensors(path, {"x": torch.zeros(1)}, {"format": "headstrong-forgetting-1"})
    assert f"{path}: neither a classifier nor a model" in refusal(BrokenFileError, path, ["side"])
    tensors, description = read_tensors(files["classes"])
    write_tensors(path, tensors, {**description, "width": 0.125})
    assert f"{path}: its tensors are not those of" in refusal(BrokenFileError, path, ["side"])
    write_tensors(path, {**tensors, "backbone.more": torch.zeros(1)}, description)
    assert "unexpected ['backbone.more']" in refusal(BrokenFileError, path, ["side"])
    write_tensors(path, tensors, {**description, "backbone": "resnet7"})
    assert str(path) in refusal(BrokenFileError, path, ["side"])


@pytest.mark.parametrize("outputs", ["s", "dn", "sdn"])
@pytest.mark.parametrize("encoder", [{"encoder": "mtan"}, {"encoder": "mobilenet_v2", "layout": 3}])
def test_models_whose_tasks_do_not_share_their_features_are_refused(encoder, outputs, tmp_path):
    path = runs.write_model(tmp_path / "m.safetensors", **encoder)
    said = refusal(ConfigError, path, outputs)
    assert str(path) in said
    assert "do not all see the same features; use another" in said


def test_models_that_share_no_features_have_none_to_give():
    model = build_model("mtan", "sd", 4, width=runs.WIDTH).eval()
    assert not model.shares_features
    with pytest.raises(ConfigError, match="do not all see the same features"):
        model.features(IMAGES)
    with torch.no_grad():
        assert set(model(IMAGES)) == {"s", "d"}


def test_sizes_that_cannot_be_are_refused_where_features_are_asked_for(files):
    network, _ = load_partial(files["dense"], "s")
    with pytest.raises(ConfigError, match="needs multiples of"):
        network.features(IMAGES[:, :, :-1])


def test_pictures_let_go_keep_only_what_was_asked_for(tmp_path):
    data = runs.write_classes(tmp_path / "d.h5", 5, 1)
    batches = PictureBatches(data, ["ground"], "cpu")
    before = batches.get([3, 1])
    batches.release()
    assert batches.classes == {"ground": runs.CLASSES["ground"]}
    after = batches.get([3, 1])
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.labels["ground"], after.labels["ground"])
    with pytest.raises(RuntimeError, match="read from the file"):
        PictureBatches(data, ["ground"], "cpu", memory_bytes=0).release()
