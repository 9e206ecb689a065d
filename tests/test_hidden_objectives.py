"""What attacks on hidden tasks maximise, against plain loops, numerical gradients and optima in closed form."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from attack_problems import ids, make_attack, network_losses, random_images
from headstrong.attacks.hidden import OBJECTIVES, Pull, kept_classes, kept_values
from headstrong.attacks.run import check_method, climb, perturb
from headstrong.attacks.threat import BALLS
from headstrong.errors import ConfigError, DivergedError
from headstrong.hidden_attackers import check_attack
from hidden_runs import attack

torch.set_num_threads(1)
SHAPE = (2, 3, 4)  # of features
KINDS = [
    Pull("cf"),
    Pull("cf", distance="cosine"),
    Pull("cf_delta"),
    Pull("cf_delta", distance="cosine"),
    Pull("cf_delta", delta="target", reach=2.5),
    Pull("cf_delta", delta="target", reach=2.5, distance="cosine"),
    Pull("disruption"),
    Pull("disruption", distance="cosine"),
]
every_kind = pytest.mark.parametrize("pull", KINDS, ids=lambda p: f"{p.objective}-{p.delta}-{p.distance}")


def drawn(count: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, original ones and directions, float64 (count, *SHAPE)."""
    generator = torch.Generator().manual_seed(seed)
    features, original, direction = torch.randn(3, count, *SHAPE, dtype=torch.float64, generator=generator)
    return features, original, direction


def by_hand(pull: Pull, f: list[float], f0: list[float], way: list[float]) -> float:
    """The value of one image, number by number."""
    reach = pull.reach if pull.objective == "cf_delta" else 1.0
    moved = [a - b for a, b in zip(f, f0, strict=True)]
    aim = [b + reach * w for b, w in zip(f0, way, strict=True)]

    def dot(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    def cosine(a: list[float], b: list[float]) -> float:
        return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))

    if pull.objective == "cf_delta" and pull.delta == "product":
        return cosine(moved, way) if pull.distance == "cosine" else dot(moved, way) / dot(way, way)
    if pull.distance == "cosine":
        return 1 - cosine(f, f0) if pull.objective == "disruption" else cosine(f, aim) - 1
    if pull.objective == "disruption":
        return dot(moved, moved) / dot(f0, f0)
    rest = [a - b for a, b in zip(f, aim, strict=True)]
    return -dot(rest, rest) / (reach**2 * dot(way, way))


# --- values and gradients --------------------------------------------------------------------------------------------


@every_kind
def test_values_are_those_of_the_definitions(pull: Pull) -> None:
    batch = drawn()
    rows = zip(*(part.flatten(1).tolist() for part in batch), strict=True)
    expected = [by_hand(pull, *row) for row in rows]
    np.testing.assert_allclose(pull.values(*batch).numpy(), expected, rtol=1e-12, atol=1e-14)


@every_kind
def test_gradients_are_those_of_finite_differences(pull: Pull) -> None:
    features, original, direction = drawn()
    torch.autograd.gradcheck(
        lambda points: pull.values(points, original, direction), features.requires_grad_(), raise_exception=True
    )


def test_gradients_of_squared_distances_are_those_on_paper() -> None:
    features, original, direction = drawn()
    features.requires_grad_()
    squares = lambda v: v.square().flatten(1).sum(1).view(-1, 1, 1, 1)  # noqa: E731
    moved = features.detach() - original
    expected = {
        Pull("cf"): -2 * (moved - direction) / squares(direction),
        Pull("cf_delta"): direction / squares(direction),
        Pull("cf_delta", delta="target", reach=3): -2 * (moved - 3 * direction) / (9 * squares(direction)),
        Pull("disruption"): 2 * moved / squares(original),
    }
    for pull, slope in expected.items():
        (found,) = torch.autograd.grad(pull.values(features, original, direction).sum(), features)
        torch.testing.assert_close(found, slope, rtol=1e-12, atol=1e-14)


def test_units_tell_where_the_features_stand() -> None:
    """0 at the forgetful features and -1 at the original ones for cf; the share of the way for cf_delta."""
    _, original, direction = drawn()
    for share in (0.0, 0.25, 1.0, 2.0):
        here = original + share * direction
        gone = torch.full((5,), share, dtype=torch.float64)
        torch.testing.assert_close(Pull("cf_delta").values(here, original, direction), gone)
        torch.testing.assert_close(Pull("cf").values(here, original, direction), -((1 - gone) ** 2))


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_a_target_at_reach_1_is_cf(distance: str) -> None:
    batch = [part.float() for part in drawn()]
    target = Pull("cf_delta", distance, delta="target", reach=1.0)
    torch.testing.assert_close(target.values(*batch), Pull("cf", distance).values(*batch), rtol=1e-6, atol=0)


def test_cosines_are_blind_to_lengths() -> None:
    features, original, direction = drawn()
    for pull, scaled in (
        (Pull("disruption", "cosine"), (7 * features, 3 * original, direction)),
        (Pull("cf", "cosine"), (7 * features, 3 * original, 3 * direction)),
        (Pull("cf_delta", "cosine"), (7 * features, 7 * original, 3 * direction)),
    ):
        torch.testing.assert_close(pull.values(*scaled), pull.values(features, original, direction))


@every_kind
def test_an_image_has_its_value_whatever_its_batch(pull: Pull) -> None:
    batch = drawn(7)
    together = pull.values(*batch)
    for row in range(7):
        torch.testing.assert_close(pull.values(*(part[row : row + 1] for part in batch))[0], together[row])


@every_kind
@pytest.mark.parametrize("zeros", ["direction", "original", "both"])
@pytest.mark.parametrize("at", ["start", "away"])
def test_directions_and_features_of_length_0_give_no_nan(pull: Pull, zeros: str, at: str) -> None:
    features, original, direction = (part.float() for part in drawn())
    direction = 0 * direction if zeros != "original" else direction
    original = 0 * original if zeros != "direction" else original
    points = (original if at == "start" else features).clone().requires_grad_()
    values = pull.values(points, original, direction)
    (slope,) = torch.autograd.grad(values.sum(), points)
    assert bool(values.isfinite().all())
    assert bool(slope.isfinite().all())
    if zeros != "original" and pull.objective == "cf_delta" and pull.delta == "product":
        assert not values.any()
        assert not slope.any()
    if zeros == "direction" and at == "start":
        assert float(values.detach().abs().max()) < 1e-6


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_disruption_has_no_slope_at_the_original_features(distance: str) -> None:
    """Hence it needs a random start; the others do not."""
    _, original, direction = drawn()
    for objective in OBJECTIVES:
        points = original.clone().requires_grad_()
        values = Pull(objective, distance).values(points, original, direction)
        (slope,) = torch.autograd.grad(values.sum(), points)
        assert bool((slope.flatten(1).norm(dim=1) < 1e-12).all()) == (objective == "disruption")


def test_the_original_and_the_scales_carry_no_gradient() -> None:
    features, original, direction = (part.requires_grad_() for part in drawn())
    scale = direction.detach().square().flatten(1).sum(1)
    Pull("cf_delta").values(features, original, direction).sum().backward()
    # Were the scale to learn, the gradient of <moved, D> / |D|^2 would have a second term.
    moved = (features - original).detach()
    torch.testing.assert_close(direction.grad, moved / scale.view(-1, 1, 1, 1))


# --- predictions that are kept ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [(), (3, 2)])
def test_kept_classes_is_the_cross_entropy_to_the_named_classes(inside: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, reference = torch.randn(2, 4, 5, *inside, dtype=torch.float64, generator=generator)
    found = kept_classes(logits, reference)
    for row in range(4):
        losses = []
        for place in itertools.product(*(range(side) for side in inside)):
            scores = [float(logits[(row, c, *place)]) for c in range(5)]
            old = [float(reference[(row, c, *place)]) for c in range(5)]
            losses.append(math.log(sum(math.exp(s) for s in scores)) - scores[old.index(max(old))])
        assert float(found[row]) == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    torch.autograd.gradcheck(lambda x: kept_classes(x, reference), logits.requires_grad_())


def test_kept_values_is_the_mean_change_in_units_of_the_deviation_of_each_image() -> None:
    generator = torch.Generator().manual_seed(2)
    outputs, reference = torch.randn(2, 4, 3, 2, 5, dtype=torch.float64, generator=generator)
    reference *= torch.tensor([1.0, 10.0, 0.1, 0.0]).view(-1, 1, 1, 1)  # the last is constant: its unit is 1
    found = kept_values(outputs, reference)
    for row in range(4):
        now, before = outputs[row].flatten().tolist(), reference[row].flatten().tolist()
        middle = sum(before) / len(before)
        unit = sum(abs(b - middle) for b in before) / len(before) or 1
        change = sum(abs(a - b) for a, b in zip(now, before, strict=True)) / len(now)
        assert float(found[row]) == pytest.approx(change / unit, rel=1e-12)
    assert not kept_values(reference, reference).any()
    torch.autograd.gradcheck(lambda x: kept_values(x, reference), outputs.requires_grad_())


# --- attacks on linear features: the optimum is known ----------------------------------------------------------------


def linear(width: int = 6, shape: tuple[int, int, int] = (3, 4, 4), seed: int = 3) -> Tensor:
    return torch.randn(width, math.prod(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pulled(pull: Pull, matrix: Tensor, images: Tensor, direction: Tensor) -> Tensor:
    """What an attack climbs: the value, a column (B, 1), of linear features."""
    original = images.double().flatten(1) @ matrix.T

    def losses(points: Tensor) -> Tensor:
        return pull.values(points.double().flatten(1) @ matrix.T, original, direction)[:, None]

    return losses


@pytest.mark.parametrize("stepper", ["fgsm", "pgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_linear_features_the_product_reaches_the_closed_form(stepper: str, norm: str) -> None:
    matrix, images = linear(), random_images(6).mul(0.6).add(0.2)  # inside the box by more than the radius
    direction = torch.randn(6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    slope = (direction @ matrix).view(images.shape)
    method = make_attack(stepper=stepper, norm=norm, epsilon=0.15, step_size=0.05, steps=6, balancer="single")
    found = climb(pulled(Pull("cf_delta"), matrix, images, direction), images, method, ids(images), 0)
    way = slope.sign() if norm == "linf" else slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, (images + 0.15 * way).float(), atol=2e-6, rtol=0)


def test_on_linear_features_the_product_stops_at_the_box() -> None:
    matrix, images = linear(), random_images(6).mul(1.4).sub(0.2).clamp(0, 1)
    direction = torch.randn(6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    method = make_attack(epsilon=0.1, step_size=0.03, steps=8, start="uniform", balancer="single")
    found = climb(pulled(Pull("cf_delta"), matrix, images, direction), images, method, ids(images), 0)
    best = (images + 0.1 * (direction @ matrix).view(images.shape).sign()).clamp(0, 1).float()
    torch.testing.assert_close(found, best, atol=1e-6, rtol=0)


def test_on_linear_features_cf_finds_a_change_that_gives_the_forgetful_features() -> None:
    matrix, images = linear(), random_images(4).mul(0.6).add(0.2)
    hidden = 0.05 * torch.randn(4, matrix.shape[1], generator=torch.Generator().manual_seed(5)).double().clamp(-1, 1)
    losses = pulled(Pull("cf"), matrix, images, hidden @ matrix.T)
    method = make_attack(stepper="apgd", epsilon=0.1, step_size=0.05, steps=150, balancer="single")
    found = climb(losses, images, method, ids(images), 0)
    torch.testing.assert_close(losses(images)[:, 0], -torch.ones(4, dtype=torch.float64))
    assert float(losses(found).min()) > -0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_constants_of_an_image_change_no_direction(objective: str, norm: str) -> None:
    matrix, images = linear(), random_images(8)
    mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    direction = torch.randn(8, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    features = lambda points: torch.tanh(points.double().flatten(1) @ matrix.T / 4) @ mix.T  # noqa: E731
    original = features(images)

    def bare(points: Tensor) -> Tensor:
        moved = features(points) - original
        if objective == "cf":
            return -(moved - direction).square().sum(1, keepdim=True)
        return (moved * direction if objective == "cf_delta" else moved.square()).sum(1, keepdim=True)

    def scaled(points: Tensor) -> Tensor:
        return Pull(objective).values(features(points), original, direction)[:, None]

    method = make_attack(norm=norm, epsilon=0.1, step_size=0.03, start="uniform", balancer="single", restarts=3)
    found = [climb(losses, images, method, ids(images), 0) for losses in (bare, scaled)]
    torch.testing.assert_close(*found, atol=1e-6, rtol=0)
    assert float((found[0] - images).abs().amax()) > 0.01


# --- climb -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", ["total", "dgba", "sign_sum", "wgd_published"])
@pytest.mark.parametrize("stepper", ["pgd", "apgd", "fgsm", "noise"])
def test_climbing_the_same_columns_gives_the_bits_of_perturb(stepper: str, balancer: str) -> None:
    losses, images = network_losses(3, seed=2), random_images(5)
    start = "uniform" if stepper in ("pgd", "apgd") else "clean"
    method = make_attack(stepper=stepper, balancer=balancer, attacked="nd", start=start)
    expected = perturb(losses, images, method, "sdn", ids(images), 4)
    found = climb(lambda points: losses(points)[:, [2, 1]], images, replace(method, attacked=""), ids(images), 4)
    assert torch.equal(found, expected)
    assert not torch.equal(found, images)


@pytest.mark.parametrize("norm", sorted(BALLS))
@every_kind
def test_pulled_images_stay_in_ball_and_box(pull: Pull, norm: str) -> None:
    matrix, images = linear(), random_images(6).mul(1.4).sub(0.2).clamp(0, 1)
    direction = torch.randn(6, 6, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    method = make_attack(norm=norm, epsilon=0.2, step_size=0.1, start="uniform", balancer="single")
    found = climb(pulled(pull, matrix, images, direction), images, method, ids(images), 0)
    change = (found - images).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert float(size.max()) <= 0.2 + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float(size.min()) > 0.01


def test_images_outside_the_box_and_losses_that_are_no_numbers_are_refused() -> None:
    images = random_images(2)
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]"):
        climb(network_losses(1, 0), images + 1, make_attack(), ids(images), 0)
    with pytest.raises(DivergedError, match="not a number on sample 0"):
        climb(lambda x: x.flatten(1)[:, :1].log() * torch.nan, images, make_attack(), ids(images), 0)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "cff"}, "objective 'cff' is unknown; choose one of cf, cf_delta, disruption"),
        ({"distance": "l1"}, "distance 'l1' is unknown; choose one of squared, cosine"),
        ({"delta": "both"}, "delta 'both' is unknown; choose one of product, target"),
    ],
)
def test_unknown_names_are_refused_in_one_line(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Pull(**{"objective": "cf_delta", **changes})
    assert "\n" not in str(caught.value)


def test_pulling_needs_a_direction() -> None:
    features, original, _ = drawn()
    for objective in ("cf", "cf_delta"):
        with pytest.raises(ConfigError, match=f"objective {objective}: needs a direction of forgetting"):
            Pull(objective).values(features, original)
    assert Pull("disruption").values(features, original).shape == (5,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "pgd"}, "objective 'pgd' is unknown; choose one of cf, .*, oracle, noise"),
        ({"objective": "cf", "distance": "l1"}, "distance 'l1' is unknown"),
        ({"objective": "cf_delta", "delta": "both"}, "delta 'both' is unknown"),
        ({"objective": "cf", "direction": "median"}, "direction 'median' is unknown; choose one of image, mean"),
        ({"objective": "cf", "stealth": -1.0}, "stealth -1"),
        ({"objective": "total", "stealth": 1.0}, "stealth 1"),
        ({"objective": "noise", "stealth": 1.0}, "stealth 1"),
        ({"objective": "cf", "stepper": "noise", "start": "clean"}, "must both be noise, or none"),
        ({"objective": "noise", "stepper": "pgd"}, "must both be noise, or none"),
        ({"objective": "cf", "epsilon": 8.0}, "pixels end at 1"),
        ({"objective": "cf", "stepper": "cw"}, "stepper 'cw' is unknown"),
    ],
)
def test_attacks_that_cannot_be_are_refused_in_one_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_attack(attack(**changes))
    assert "\n" not in str(caught.value)


def test_attacks_that_can_be_pass() -> None:
    for objective in ("cf", "cf_delta", "disruption", "dgba", "total", "single", "oracle", "noise"):
        check_attack(attack(objective, stealth=0.5 if objective in (*OBJECTIVES, "oracle") else 0.0))
    with pytest.raises(ConfigError, match="balancer 'wgd' is unknown"):
        check_method(make_attack(balancer="wgd"))
    check_method(make_attack(attacked=""))
