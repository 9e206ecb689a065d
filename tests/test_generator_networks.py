"""Networks that make perturbations: their sizes, what is shared, their random numbers."""

import pytest
import torch
from torch import nn

from headstrong.models.generators import Generators, ReflectionPad, count_parameters, reflected

torch.set_num_threads(1)


def small(tasks="abc", **changes):
    return Generators(tasks, **{"shared": True, "filters": 4, "blocks": 1, "seed": 3, **changes})


def images(batch=2, side=16, seed=0):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def same(first: nn.Module, second: nn.Module) -> bool:
    values = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in values)


@pytest.mark.parametrize(
    ("blocks", "gap", "mta", "encoder"),
    [(4, 16_440_201, 6_236_937, 5_101_632), (10, 37_692_297, 13_320_969, 12_185_664)],
)
def test_the_sizes_are_those_of_mtas_table_7(blocks, gap, mta, encoder):
    """Printed as 1.64, 3.77, 0.62 and 1.33 of a unit that must be ten million."""
    with torch.device("meta"):
        apart = Generators("sdn", shared=False, blocks=blocks)
        shared = Generators("sdn", shared=True, blocks=blocks)
    assert count_parameters(apart) == gap
    assert count_parameters(shared) == mta
    assert count_parameters(shared.encoders) == encoder
    assert [count_parameters(decoder) for decoder in shared.decoders] == [378_435] * 3
    printed = {4: (1.64, 0.62), 10: (3.77, 1.33)}[blocks]
    assert (round(gap / 1e7, 2), round(mta / 1e7, 2)) == printed


def test_one_task_gives_the_same_network_either_way():
    assert same(small("a", shared=True), small("a", shared=False))


def test_the_first_encoder_and_all_decoders_are_the_same_either_way():
    shared, apart = small(shared=True), small(shared=False)
    assert same(shared.encoders[0], apart.encoders[0])
    assert not same(apart.encoders[0], apart.encoders[1])
    assert all(same(one, other) for one, other in zip(shared.decoders, apart.decoders, strict=True))


def test_weights_follow_from_the_seed_and_leave_torchs_random_state_alone():
    before = torch.get_rng_state()
    first, again, other = small(), small(), small(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("options", [{}, {"shared": False}, {"normalization": "instance", "activation": "selu"}])
def test_outputs_are_in_range_and_as_large_as_the_image(options):
    made = small(("amazon.2", "dslr"), **options)({"amazon.2": images(3), "dslr": images(2)})
    assert {task: tuple(raw.shape) for task, raw in made.items()} == {
        "amazon.2": (3, 3, 16, 16),
        "dslr": (2, 3, 16, 16),
    }
    assert all(raw.abs().max() <= 1 for raw in made.values())


def test_instance_norm_has_offsets_in_its_convolutions_and_batch_norm_has_not():
    def offsets(network):
        return sum(layer.bias is not None for layer in network.modules() if isinstance(layer, nn.Conv2d))

    assert offsets(small("a")) == 1  # the last
    assert offsets(small("a", normalization="instance")) == 6
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in small(normalization="instance").modules())


def test_tasks_that_share_an_image_cost_one_pass_of_a_shared_encoder():
    for shared, runs in ((True, 1), (False, 3)):
        network, seen = small(shared=shared).eval(), []
        for encoder in network.encoders:
            encoder.register_forward_hook(lambda *_: seen.append(1))  # noqa: B023
        made = network.together(images())
        assert len(seen) == runs
        apart = network(dict.fromkeys("abc", images()))
        assert all(torch.allclose(made[task], apart[task], atol=1e-6) for task in "abc")
    # a shared encoder sees the batches of all tasks as one
    network, sizes = small(), []
    network.encoders[0].register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    network({"a": images(1), "b": images(2), "c": images(3)})
    assert sizes == [6]


def test_without_running_statistics_use_is_as_training():
    network = small(running_statistics=False)
    pattern = {task: images(1, seed=number) for number, task in enumerate("abc")}
    in_training = network(pattern)
    in_use = network.eval()(pattern)
    assert all(torch.equal(in_training[task], in_use[task]) for task in "abc")
    assert not any("running" in name for name in network.state_dict())


def test_dropout_leaves_its_share_out_and_can_be_resumed():
    network = small("a", dropout=0.25)
    plain = small("a").eval()
    assert torch.equal(network.eval()({"a": images()})["a"], plain({"a": images()})["a"])
    network.train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    first, second = (network({"a": images()})["a"] for _ in range(2))
    assert not torch.equal(first, second)
    network.load_state_dict(state)
    assert torch.equal(network({"a": images()})["a"], first)
    dropout = next(layer for layer in network.modules() if type(layer).__name__ == "SeededDropout")
    ones = dropout(torch.ones(8, 16, 32, 32))
    assert ones.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float((ones == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_dropout_of_nearly_everything_still_trains():
    network = small("a", dropout=0.999)
    network({"a": images()})["a"].sum().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


def test_the_encoder_does_not_depend_on_the_tasks():
    assert same(small("ab").encoders, small("xyz").encoders)


@pytest.mark.parametrize("width", [1, 3])
def test_reflection_is_torchs_with_its_gradient(width):
    """The parts serve CUDA, where torch's own has no deterministic gradient."""
    x = torch.randn(2, 3, 9, 10, dtype=torch.float64, requires_grad=True)
    theirs = nn.ReflectionPad2d(width)(x)
    weight = torch.randn_like(theirs)
    expected = torch.autograd.grad((theirs * weight).sum(), x)[0]
    for ours in (reflected(x, width), ReflectionPad(width)(x)):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(torch.autograd.grad((ours * weight).sum(), x)[0], expected)
