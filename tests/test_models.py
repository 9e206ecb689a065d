"""Networks: published parameter counts, another implementation of the trunks, seeds, and models on disk."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.models import ENCODERS, build_model, load_metadata, load_model, save_model
from headstrong.models.encoders import RESNETS, build_encoder, scaled

torch.set_num_threads(1)
JOB = {"id": "try", "weights": [0.5, 0.5]}

# Ghamizi et al. (2022), counted from the released models (facts, section 3): encoder, and decoder by output channels
PUBLISHED = {
    "resnet18": (11_176_512, {1: 1_504_801, 2: 1_505_090, 3: 1_505_379, 18: 1_509_714}),
    "resnet50": (23_508_032, {1: 3_077_665, 3: 3_078_243, 18: 3_082_578}),
    "resnet152": (58_143_808, {1: 3_077_665, 3: 3_078_243, 18: 3_082_578}),
    "wide_resnet50_2": (66_834_240, {1: 3_077_665, 3: 3_078_243, 18: 3_082_578}),
    "xception": (4_089_192, {1: 115_808, 3: 115_904, 18: 116_624}),
}
LETTER = {1: "d", 2: "p", 3: "n", 18: "s"}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def small(tasks="sd", encoder="resnet18", width=0.125, seed=0, classes=5):
    return build_model(encoder, tasks, classes, width, seed)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_parameter_counts_are_the_published_ones_to_the_digit(encoder):
    with torch.device("meta"):
        model = build_model(encoder, "sdnp", 18)
    body, heads = PUBLISHED[encoder]
    assert count(model.encoder) == body
    assert {channels: count(model.decoders[LETTER[channels]]) for channels in heads} == heads


@pytest.mark.parametrize(
    ("encoder", "millions"),
    [("resnet18", 14.19), ("resnet50", 29.66), ("resnet152", 64.30), ("wide_resnet50_2", 72.99), ("xception", 4.32)],
)
def test_two_task_sizes_in_millions(encoder, millions):
    # Table 1 of the paper, but for xception: it prints 4.33, and no pair of tasks gives more than 4.322
    with torch.device("meta"):
        assert round(count(build_model(encoder, "nd", 18)) / 1e6, 2) == millions


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_a_trunk_computes_what_torchvisions_network_computes(name):
    with torch.device("meta"):
        ours, theirs = build_encoder(name), getattr(torchvision.models, name)()
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.rand(tensor.shape, generator=generator) / max(1, tensor[0].numel()) if tensor.is_floating_point() else
        torch.zeros(tensor.shape, dtype=tensor.dtype)
        for tensor in ours.state_dict().values()
    ]  # fmt: skip
    for network in (ours, theirs):
        names = [key for key in network.state_dict() if not key.startswith("fc.")]
        network.load_state_dict(dict(zip(names, values, strict=True)), assign=True, strict=False)
    theirs.fc, theirs.avgpool = torch.nn.Identity(), torch.nn.Identity()
    images = torch.rand(2, 3, 64, 32, generator=generator) * 2 - 1
    with torch.no_grad():
        expected, found = theirs.eval()(images), ours.eval()(images).flatten(1)
    assert found.std() > 0
    torch.testing.assert_close(found, expected)


def test_width_scales_every_channel_count_to_a_multiple_of_eight():
    for channels in (16, 24, 32, 48, 64, 96, 192, 256, 512):
        assert scaled(channels, 1.0) == channels
        for width in (0.1, 0.25, 0.5, 2.0):
            assert scaled(channels, width) % 8 == 0
            assert scaled(channels, width) == max(8, scaled(channels, width))
            assert abs(scaled(channels, width) - channels * width) <= max(4, 8 - channels * width)
    for name in RESNETS:
        assert build_encoder(name, 0.25).channels * 4 == PUBLISHED_CHANNELS[name]
    assert build_encoder("xception", 0.25).channels == 64


PUBLISHED_CHANNELS = {"resnet18": 512, "resnet50": 2048, "resnet152": 2048, "wide_resnet50_2": 2048}


@pytest.mark.parametrize(("encoder", "size"), [("resnet18", (32, 96)), ("resnet50", (64, 32)), ("xception", (48, 80))])
def test_outputs_have_the_images_size_and_the_tasks_channels(encoder, size):
    model = small("sdDnkKeEprA", encoder).eval()
    channels = {letter: output.shape for letter, output in model(torch.rand(2, 3, *size)).items()}
    expected = dict.fromkeys("dDkKeEr", 1) | {"s": 5, "n": 3, "A": 3, "p": 2}
    assert channels == {letter: (2, number, *size) for letter, number in expected.items()}
    assert "".join(channels) == model.tasks


@pytest.mark.parametrize(("encoder", "size", "multiple"), [("resnet18", (64, 48), 32), ("xception", (40, 32), 16)])
def test_an_image_size_that_cannot_be_is_refused_in_one_line(encoder, size, multiple):
    with pytest.raises(ConfigError, match=rf"image size {size[0]}x{size[1]}: {encoder} needs multiples of {multiple}"):
        small(encoder=encoder)(torch.rand(1, 3, *size))


@pytest.mark.parametrize("encoder", ["resnet18", "xception"])
def test_a_subset_of_tasks_runs_only_its_decoders(encoder):
    model = small("sdn", encoder).eval()
    images = torch.rand(2, 3, 64, 64)
    some, everything = model(images, "nd"), model(images)
    assert list(some) == ["n", "d"]
    assert all(torch.equal(some[letter], everything[letter]) for letter in "nd")
    sum(output.sum() for output in some.values()).backward()
    reached = {letter for letter in "sdn" for p in model.decoders[letter].parameters() if p.grad is not None}
    assert reached == {"n", "d"}


def test_the_encoder_sees_images_scaled_to_minus_one_and_one():
    model, seen = small().eval(), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 32, 32))
    assert [image.unique().tolist() for image in seen[0]] == [[-1.0], [0.0], [1.0]]


def test_a_seed_decides_the_weights_and_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    first, again, other = (small(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.stem.0.weight"], other["encoder.stem.0.weight"])


def test_a_task_starts_from_the_same_weights_whatever_its_companions():
    alone, pair, swapped = small("d"), small("sd"), small("ds")
    for model in (pair, swapped):
        for name, value in alone.state_dict().items():
            assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize("encoder", ["resnet18", "xception"])
def test_convolutions_start_with_the_published_variance(encoder):
    model = build_model(encoder, "s", 18)
    tested = 0
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 20_000:
            side, tested = layer.kernel_size[0], tested + 1
            ratio = layer.weight.std().item() / (2 / (side * side * layer.out_channels)) ** 0.5
            assert ratio == pytest.approx(1, abs=0.03)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.weight.eq(1).all()
            assert layer.bias.eq(0).all()
    assert tested > 10


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(("vgg", "s", 5), "encoder 'vgg'"), (("resnet18", "sx", 5), "'sx'"), (("resnet18", "ss", 5), "'ss'"),
     (("resnet18", "", 5), "tasks ''"), (("resnet18", "s", 5, 0.0), "width 0.0")],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        build_model(*arguments)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_stored_model_comes_back_with_the_same_bits(tmp_path, encoder):
    model = small("sE", encoder, width=0.125)
    model(torch.rand(2, 3, 64, 64))  # so that the batch norm statistics are not the initial ones
    save_model(tmp_path / "m.safetensors", model, JOB, {"code": "abc"})
    loaded = load_model(tmp_path / "m.safetensors")
    assert not loaded.training
    assert (loaded.encoder_name, loaded.tasks, loaded.classes, loaded.width) == (encoder, "sE", 5, 0.125)
    stored = model.state_dict()
    assert list(stored) == list(loaded.state_dict())
    assert all(torch.equal(stored[name], value) for name, value in loaded.state_dict().items())
    assert load_metadata(tmp_path / "m.safetensors")["job"] == JOB
    assert load_metadata(tmp_path / "m.safetensors")["code"] == "abc"
    images = torch.rand(2, 3, 32, 32)
    expected, found = model.eval()(images), loaded(images)
    for letter in "sE":
        torch.testing.assert_close(found[letter], expected[letter])
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_equal_models_give_equal_bytes_in_another_process(tmp_path):
    script = (
        "import sys; from pathlib import Path; from headstrong.models import build_model, save_model\n"
        "model = build_model('resnet18', 'sdE', 5, 0.125, 1)\n"
        "save_model(Path(sys.argv[1]), model, {'b': 1, 'a': [2.5]}, {'code': 'x'})"
    )
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    save_model(files[0], small("sdE", seed=1), {"a": [2.5], "b": 1}, {"code": "x"})
    for number, path in enumerate(files[1:]):
        environment = {**os.environ, "PYTHONPATH": "src", "PYTHONHASHSEED": str(number)}
        subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=True, cwd=ROOT)
    assert len({path.read_bytes() for path in files}) == 1


ROOT = Path(__file__).parent.parent


def _pickle(path, good):
    torch.save(torch.load, path)  # a pickle that names a function


def _plain_pickle(path, good):
    path.write_bytes(pickle.dumps({"weights": [1, 2, 3]}))


def _truncated(path, good):
    path.write_bytes(good[: len(good) - 100])


def _truncated_header(path, good):
    path.write_bytes(good[:50])


def _empty(path, good):
    path.write_bytes(b"")


def _foreign(path, good):
    save_file({"layer.weight": torch.zeros(3)}, path, {"framework": "pt"})


def _of_another_format(path, good):
    save_file({"layer.weight": torch.zeros(3)}, path, {"headstrong": '{"format": "headstrong-checkpoint-1"}'})


def _of_another_width(path, good):
    path.write_bytes(good.replace(b'\\"width\\": 0.125', b'\\"width\\": 0.625'))
    assert path.read_bytes() != good


@pytest.mark.parametrize(
    "damage",
    [_pickle, _plain_pickle, _truncated, _truncated_header, _empty, _foreign, _of_another_format, _of_another_width],
)
def test_anything_but_a_whole_model_of_ours_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "m.safetensors"
    save_model(path, small(), JOB, {})
    damage(path, path.read_bytes())
    with pytest.raises(BrokenFileError) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_missing_data(tmp_path):
    with pytest.raises(MissingDataError, match=r"none\.safetensors"):
        load_model(tmp_path / "none.safetensors")


def ptflops_count(model, size):
    """Multiply-adds in 1e9 by the rules of ptflops 0.6, which counts a transposed convolution four times."""
    total = 0

    def add(layer, inputs, output):
        nonlocal total
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            total += layer.weight.numel() * output[0, 0].numel()
            total += output.numel() if layer.bias is not None else 0
        elif isinstance(layer, torch.nn.BatchNorm2d):
            total += 2 * output.numel()
        elif isinstance(layer, torch.nn.ReLU):
            total += output.numel()
        elif isinstance(layer, torch.nn.MaxPool2d):
            total += inputs[0].numel()

    for layer in model.modules():
        layer.register_forward_hook(add)
    model(torch.rand(1, 3, size, size))
    return total / 1e9


@pytest.mark.parametrize(
    ("encoder", "published"),
    [("resnet18", 6.090), ("resnet50", 9.897), ("resnet152", 19.639), ("wide_resnet50_2", 19.457)],
)
def test_the_work_of_a_pair_is_the_published_cost(encoder, published):
    # Table 1, "Cost": ptflops of a network with the tasks n and d at 256x256
    with torch.device("meta"):
        assert ptflops_count(build_model(encoder, "nd", 18).eval(), 256) == pytest.approx(published, abs=6e-4)


def test_the_small_xception_joins_both_branches_before_a_relu():
    model, seen = small("d", "xception").eval(), []
    model.decoders["d"].out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.rand(2, 3, 32, 32))
    main, side = seen[0].split(8, dim=1)  # 32 and 16 channels at width 1/8, rounded up to 8
    assert seen[0].min() == 0
    assert main.max() > 0
    assert side.max() > 0
