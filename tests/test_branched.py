"""Branched networks: torchvision's trunks, what a layout shares, dropout that can be resumed, and models on disk."""

import copy

import pytest
import torch
import torchvision
from safetensors.torch import load, save
from torch.nn import functional as F

from headstrong import layouts
from headstrong.errors import BrokenFileError, ConfigError
from headstrong.folding import fold_batch_norm
from headstrong.models import BRANCHED, build_model, load_model, save_model, use_channels_last
from headstrong.models.aspp import RATES, DilatedConvolution, SeededDropout
from headstrong.models.branched import STAGES, STRIDES, build_stage, trunk_channels

torch.set_num_threads(1)
MIXED = 46  # of three tasks: three levels shared, then the third task parts, at last all do
LAYOUTS = (0, 2, MIXED)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def small(encoder="resnet34", layout=0, tasks="snd", width=0.125, seed=0):
    return build_model(encoder, tasks, 5, width, seed, layout)


def images(batch=2, size=64, seed=0):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def unsettle(model):
    """Batch norms as after some training: neither their statistics nor their weights are 0 and 1."""
    generator = torch.Generator().manual_seed(5)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return model


# --- trunks ----------------------------------------------------------------------------------------------------------


def torchvisions_trunk(encoder):
    if encoder == "mobilenet_v2":
        return torchvision.models.mobilenet_v2().features
    network = torchvision.models.resnet34()
    for stage, dilation in [(network.layer3, 2), (network.layer4, 4)]:
        for layer in stage.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.stride = (1, 1)
                if layer.kernel_size == (3, 3):
                    layer.dilation = layer.padding = (dilation, dilation)
    return torch.nn.Sequential(*list(network.children())[:-2])


@pytest.mark.parametrize(("encoder", "parameters"), [("resnet34", 21_284_672), ("mobilenet_v2", 2_223_872)])
def test_a_trunk_computes_what_torchvisions_network_computes(encoder, parameters):
    # ResNet-34 has as many parameters as torchvision's, without its classifier: dilation adds no shortcuts, since the
    # released network projects in the first block of a layer only, where the width changes anyway
    theirs = unsettle(torchvisions_trunk(encoder)).eval()
    ours = torch.nn.Sequential(*(build_stage(encoder, level) for level in range(5))).eval()
    assert count(ours) == count(theirs) == parameters
    for mine, value in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        mine.copy_(value)
    with torch.no_grad():
        expected = theirs(images(1))
        torch.testing.assert_close(ours(images(1)), expected)
    assert expected.shape == (1, trunk_channels(encoder), 64 // STRIDES[encoder], 64 // STRIDES[encoder])


def test_the_coarse_points_are_treemtls():
    # ResNet-34: stem, then residual blocks. MobileNetV2: a block with a shortcut cannot be cut, any other after each
    # of its convolutions
    assert [list(range(*stage)) for stage in STAGES["resnet34"]] == [
        [0], [1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11, 12, 13], [14, 15, 16],
    ]  # fmt: skip
    sizes = []
    for level in range(5):
        blocks = 0
        for layer in build_stage("mobilenet_v2", level):
            convolutions = sum(isinstance(part, torch.nn.Conv2d) for part in layer.modules())
            blocks += 1 if getattr(layer, "use_res_connect", False) else convolutions
        sizes.append(blocks)
    assert sizes == [7, 11, 5, 8, 1]  # {0-6}, {7-17}, {18-22}, {23-30}, {31}


def test_a_narrow_mobilenet_has_the_shortcuts_of_the_published_one():
    def shortcuts(width):
        stages = [build_stage("mobilenet_v2", level, width) for level in range(5)]
        return [getattr(layer, "use_res_connect", None) for stage in stages for layer in stage]

    assert shortcuts(0.05) == shortcuts(1.0)
    assert shortcuts(1.0).count(True) == 10


@pytest.mark.parametrize("encoder", BRANCHED)
def test_convolutions_start_as_released(encoder):
    model = build_model(encoder, "s", 18, width=0.5)
    for layer in model.encoder.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 10_000:
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.04)
    for layer in model.decoders["s"].dilated:
        bound = (layer.in_channels * 9) ** -0.5  # torch's: uniform
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", BRANCHED)
def test_parameters_by_layout(encoder):
    with torch.device("meta"):
        shared, apart, mixed = (build_model(encoder, "snd", 18, layout=layout) for layout in LAYOUTS)
        alone = build_model(encoder, "n", 18)
        stages = [count(build_stage(encoder, level)) for level in range(5)]
    assert count(shared.encoder) == count(alone.encoder) == sum(stages)
    assert count(apart.encoder) == 3 * sum(stages)
    assert count(mixed.encoder) == sum(stages[:3]) + 2 * stages[3] + 3 * stages[4]
    assert len({count(model.decoders) for model in (shared, apart, mixed)}) == 1
    before, hidden = trunk_channels(encoder), 1024
    branch = (9 * before + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * 3
    assert count(alone.decoders["n"]) == 4 * branch


def test_a_task_trains_the_stages_on_its_path_and_no_others():
    model = small(layout=MIXED)
    model(images())["n"].square().mean().backward()
    touched = {
        (number, block)
        for number, level in enumerate(model.encoder.levels)
        for block, stage in level.items()
        if any(parameter.grad is not None and parameter.grad.any() for parameter in stage.parameters())
    }
    assert touched == {(0, "snd"), (1, "snd"), (2, "snd"), (3, "sn"), (4, "n")}
    heads = {letter for letter in "snd" for p in model.decoders[letter].parameters() if p.grad is not None}
    assert heads == {"n"}


@pytest.mark.parametrize("layout", range(0, 51, 7))
def test_tasks_share_the_stages_that_the_layout_says(layout):
    model = small(layout=layout)
    for (i, one), (j, other) in [((0, "s"), (1, "n")), ((1, "n"), (2, "d")), ((0, "s"), (2, "d"))]:
        shared = sum(any(one in block and other in block for block in level) for level in model.encoder.levels)
        assert shared == layouts.shared_levels(layouts.layout(layout, 3), i, j)


@pytest.mark.parametrize("encoder", BRANCHED)
@pytest.mark.parametrize("wanted", ["d", "ds", "snd"])
def test_a_subset_of_tasks_runs_each_of_its_stages_once_and_nothing_else(encoder, wanted):
    model, runs = small(encoder, MIXED).eval(), []
    everything = model(images())
    for number, level in enumerate(model.encoder.levels):
        for block, stage in level.items():
            stage.register_forward_pre_hook(lambda *_, name=(number, block): runs.append(name))
    some = model(images(), wanted)
    assert list(some) == list(wanted)
    assert all(torch.equal(some[letter], everything[letter]) for letter in wanted)
    blocks = [("snd",)] * 3 + [("sn", "d"), ("s", "n", "d")]
    expected = [(level, block) for level in range(5) for block in blocks[level] if set(block) & set(wanted)]
    assert sorted(runs) == sorted(expected)


@pytest.mark.parametrize("encoder", BRANCHED)
def test_all_layouts_and_companions_start_as_the_same_function(encoder):
    shared = small(encoder).eval()(images())
    for other in (*(small(encoder, layout).eval() for layout in LAYOUTS[1:]), small(encoder, 1, "dn").eval()):
        for letter, output in other(images()).items():
            assert torch.equal(output, shared[letter])
    assert not torch.equal(small(encoder, seed=1).eval()(images())["s"], shared["s"])


def test_copies_of_a_stage_learn_apart():
    model = small(layout=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(output.square().mean() for output in model(images()).values()).backward()
    optimizer.step()
    first = [stage[0][0].weight for stage in model.encoder.levels[0].values()]
    assert not any(torch.equal(first[i], first[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


@pytest.mark.parametrize(("encoder", "size"), [("resnet34", (40, 64)), ("mobilenet_v2", (64, 32))])
def test_outputs_have_the_images_size_and_the_tasks_channels(encoder, size):
    model = small(encoder, 3, "snpE").eval()
    shapes = {letter: tuple(output.shape) for letter, output in model(torch.rand(2, 3, *size)).items()}
    assert shapes == {letter: (2, channels, *size) for letter, channels in [("s", 5), ("n", 3), ("p", 2), ("E", 1)]}
    assert model.stride == STRIDES[encoder] == {"resnet34": 8, "mobilenet_v2": 32}[encoder]
    inside = model.encoder(torch.rand(2, 3, *size), "n")["n"]
    assert inside.shape == (2, trunk_channels(encoder, 0.125), size[0] // model.stride, size[1] // model.stride)
    with pytest.raises(ConfigError, match=rf"needs multiples of {model.stride}"):
        model(torch.rand(1, 3, size[0], size[1] + 4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_can_start_as_the_constant_predictor(layout):
    model = small(layout=layout)
    model.start_from({"n": [0.25, -1.0, 0.5]})
    outputs = model(images())
    assert torch.equal(outputs["n"], torch.tensor([0.25, -1.0, 0.5])[:, None, None].expand(2, 3, 64, 64))
    assert not outputs["s"].any()
    outputs["n"].sum().backward()
    assert all(last.weight.grad.any() for last in model.decoders["n"].outputs)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(("resnet18", "s", 5, 1.0, 0, 0), "layout 0: encoder 'resnet18' has no branches"),
     (("xception", "sd", 5, 1.0, 0, 1), "layout 1: encoder 'xception' has no branches"),
     (("resnet34", "snd", 5, 1.0, 0, 51), "layout 51: expected a number from 0 to 50 for 3 tasks"),
     (("mobilenet_v2", "s", 5, 1.0, 0, -1), "layout -1: expected a number from 0 to 0"),
     (("resnet35", "s", 5), "choose one of resnet18.*resnet34, mobilenet_v2")],
)  # fmt: skip
def test_a_network_that_cannot_be_is_refused_in_one_line(arguments, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        build_model(*arguments)
    assert "\n" not in str(caught.value)


def test_a_branched_network_without_a_layout_shares_everything():
    model = build_model("resnet34", "snd", 5, 0.125)
    assert model.layout == 0
    assert list(model.state_dict()) == list(small().state_dict())


@pytest.mark.parametrize("encoder", BRANCHED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_folding_batch_norm_keeps_the_function(encoder, layout):
    model = unsettle(small(encoder, layout)).eval()
    folded = fold_batch_norm(model, images(1))
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    with torch.no_grad():
        for letter, output in model(images()).items():
            scale = float(output.abs().max())
            torch.testing.assert_close(folded(images())[letter], output, rtol=1e-4, atol=1e-4 * scale)


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("size", [(2, 2), (6, 6), (7, 5), (8, 16), (30, 13)])
def test_a_dilated_convolution_is_the_whole_convolution(rate, size):
    layer = DilatedConvolution(3, 4, rate).double()
    whole = torch.nn.Conv2d(3, 4, 3, padding=rate, dilation=rate).double()
    whole.load_state_dict(layer.state_dict())
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(layer(x), whole(x))
    for module in (layer, whole):
        module(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, whole.weight.grad)


def test_a_head_is_the_sum_of_its_branches_upsampled():
    head = small().decoders["n"].eval()
    seen = torch.rand(2, trunk_channels("resnet34", 0.125), 9, 30)
    total = 0
    for number, rate in enumerate((6, 12, 18, 24)):
        dilated, inner, last = head.dilated[number], head.inner[number], head.outputs[number]
        hidden = F.conv2d(seen, dilated.weight, dilated.bias, padding=rate, dilation=rate).relu()
        total = total + last(inner(hidden).relu())
    expected = F.interpolate(total, size=(72, 240), mode="bilinear")
    torch.testing.assert_close(head(seen), expected)


def test_dropout_keeps_half_of_the_numbers_doubled_and_passes_gradients_alike():
    dropout = SeededDropout(3)
    x = torch.ones(4, 64, 16, 16, requires_grad=True)
    dropped = dropout(x)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)  # eight standard deviations
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())
    second = dropout(x)
    agreement = (second == dropped).float().mean().item()
    assert agreement == pytest.approx(0.5, abs=0.015)
    assert dropout.eval()(x) is x


def test_dropout_depends_on_seed_and_calls_only():
    x = torch.rand(2, 5, 3, 7)
    before = torch.get_rng_state()
    masks = [SeededDropout(3)(x), SeededDropout(3)(x.to(memory_format=torch.channels_last)), SeededDropout(4)(x)]
    torch.manual_seed(99)
    assert torch.equal(SeededDropout(3)(x), masks[0])
    torch.set_rng_state(before)
    SeededDropout(3)(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    half = SeededDropout(3)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(half == 0, masks[0] == 0)


def test_each_heads_dropout_is_its_own():
    decoders = small(tasks="nA").decoders
    x = torch.rand(1, 8, 16, 16)
    assert not torch.equal(decoders["n"].dropout(x), decoders["A"].dropout(x))


def train(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        sum(output.square().mean() for output in model(images(4, 32, seed=step)).values()).backward()
        optimizer.step()


def test_a_training_resumed_from_its_tensors_has_the_same_bits():
    def start():
        model = use_channels_last(small(layout=MIXED)).train()
        return model, torch.optim.SGD(model.parameters(), lr=0.05)

    whole, optimizer = start()
    train(whole, optimizer, range(4))

    first, optimizer = start()
    train(first, optimizer, range(2))
    first.eval()(images())  # as an attack or an evaluation in between does
    file = save({name: tensor.contiguous() for name, tensor in first.state_dict().items()})
    torch.manual_seed(7)
    second, optimizer = start()
    second.load_state_dict(load(file))
    train(second, optimizer, range(2, 4))

    expected, found = whole.state_dict(), second.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    # and it is the calls so far that decide, not only the weights
    for letter in "snd":
        second.decoders[letter].dropout.calls = 0
    same = copy.deepcopy(whole)
    train(second, torch.optim.SGD(second.parameters(), lr=0.05), [4])
    train(same, torch.optim.SGD(same.parameters(), lr=0.05), [4])
    assert not torch.equal(second.decoders["s"].inner[0].weight, same.decoders["s"].inner[0].weight)


# --- disk ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", BRANCHED)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stored_model_comes_back_with_the_same_bits(tmp_path, encoder, layout):
    model = small(encoder, layout, seed=3)
    model(images())  # batch norm statistics and dropout calls as after a step
    save_model(tmp_path / "m.safetensors", model, {"id": "try"})
    loaded = load_model(tmp_path / "m.safetensors")
    assert (loaded.encoder_name, loaded.tasks, loaded.layout) == (encoder, "snd", layout)
    stored, found = model.state_dict(), loaded.state_dict()
    assert list(stored) == list(found)
    assert all(torch.equal(stored[name], found[name]) for name in stored)
    expected, outputs = model.eval()(images()), loaded(images())
    for letter in "snd":
        torch.testing.assert_close(outputs[letter], expected[letter])
    save_model(tmp_path / "again.safetensors", loaded, {"id": "try"})
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_a_file_whose_tensors_are_of_another_layout_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    save_model(path, small(layout=7), {"id": "try"})
    good = path.read_bytes()
    path.write_bytes(good.replace(b'\\"layout\\": 7', b'\\"layout\\": 8'))
    assert path.read_bytes() != good
    with pytest.raises(BrokenFileError, match=r"m\.safetensors: its tensors are not those of the model it names"):
        load_model(path)
