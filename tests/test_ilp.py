"""The integer programs against enumeration and closed forms, and solvers without time, broken or missing."""

from __future__ import annotations

import itertools
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, milp

from attack_problems import ids, linear_losses, make_attack, network_losses, random_images
from headstrong.attacks import ilp
from headstrong.attacks.run import perturb
from headstrong.attacks.steppers import Notes
from headstrong.errors import ConfigError, DivergedError

pytest.importorskip("pulp")
torch.set_num_threads(1)

EPSILON = 8 / 255


def instance(
    seed: int, tasks: int, shape: tuple[int, int, int], scale: float = 1e-3
) -> tuple[ilp.Array, ilp.Array, ilp.Array]:
    """Slopes with zeros, and a box clipped at 0 and 1, at some channels to nothing on one side."""
    rng = np.random.default_rng(seed)
    slopes = scale * rng.standard_normal((tasks, *shape)) * np.exp(rng.standard_normal((tasks, *shape)))
    slopes[rng.random(slopes.shape) < 0.1] = 0
    slopes[:, rng.random(shape) < 0.1] = 0  # no task has a slope
    image = np.clip(rng.uniform(-0.1, 1.1, shape), 0, 1)
    return slopes, np.maximum(-EPSILON, -image), np.minimum(EPSILON, 1 - image)


def enumerated(
    slopes: ilp.Array, low: ilp.Array, high: ilp.Array, objective: ilp.Objective, pixels: int | None
) -> float:
    """The best value over all changes, one by one."""
    states = np.array(list(itertools.product((-1, 0, 1), repeat=low.size)))
    changes = np.where(states > 0, high.ravel(), np.where(states < 0, low.ravel(), 0.0))
    if pixels is not None:
        moved = (changes.reshape(len(changes), len(low), -1) != 0).any(axis=1).sum(axis=1)
        changes = changes[moved <= pixels]
    values = changes @ slopes.reshape(len(slopes), -1).T
    return float((values.mean(axis=1) if objective == "mean" else values.min(axis=1)).max())


def check_solution(solution: ilp.Solution, program: tuple[ilp.Array, ...], objective: ilp.Objective) -> None:
    """What holds for every solution: the change is allowed, its value is its own, and the bound is above it."""
    slopes, low, high = program
    change = solution.change
    assert ((change == low) | (change == 0) | (change == high)).all()
    assert solution.value == ilp.value_of(change, slopes, objective) <= solution.bound
    if np.isfinite(solution.bound) and solution.gap:
        assert solution.gap == pytest.approx((solution.bound - solution.value) / abs(solution.bound))


@pytest.mark.parametrize("pixels", [None, 3])
def test_the_mean_program_has_the_value_of_its_closed_form(pixels: int | None) -> None:
    for seed in range(50):
        program = instance(seed, tasks=1 + seed % 5, shape=(3, 3, 4), scale=10.0 ** -(seed % 9))
        solution = ilp.solve(*program, objective="mean", pixels=pixels)
        check_solution(solution, program, "mean")
        rule = ilp.closed_form(*program, pixels)
        assert (solution.status, solution.fallback, solution.gap) == ("optimal", "", 0.0)
        assert solution.value == pytest.approx(ilp.value_of(rule, program[0], "mean"), rel=1e-9, abs=0)
        if pixels is None:
            np.testing.assert_array_equal(solution.change, rule)
        assert pixels is None or (rule != 0).any(axis=0).sum() <= pixels


@pytest.mark.parametrize("objective", ["mean", "least"])
@pytest.mark.parametrize("pixels", [None, 1, 2])
def test_no_enumerated_change_beats_a_solution(objective: ilp.Objective, pixels: int | None) -> None:
    for seed in range(12):
        program = instance(seed, tasks=2 + seed % 3, shape=(2, 2, 2), scale=10.0 ** -(seed % 9))
        solution = ilp.solve(*program, objective=objective, pixels=pixels, gap=0.0)
        check_solution(solution, program, objective)
        best = enumerated(*program, objective, pixels)
        largest = np.abs(program[0]).max() * EPSILON
        assert solution.status == "optimal"
        assert solution.gap <= 1e-8
        assert solution.value == pytest.approx(best, rel=1e-6, abs=1e-8 * largest)
        assert solution.bound >= best - 1e-6 * abs(best) - 1e-8 * largest
        assert pixels is None or (solution.change != 0).any(axis=0).sum() <= pixels


@pytest.mark.parametrize("pixels", [None, 12])
def test_another_solver_on_the_whole_program_agrees(pixels: int | None) -> None:
    for seed in range(4):
        slopes, low, high = program = instance(seed, tasks=2 + seed, shape=(3, 8, 8))
        solution = ilp.solve(*program, objective="least", pixels=pixels, gap=1e-3)
        value, bound = solved_by_highs(slopes, low, high, pixels, gap=1e-3)
        assert (solution.status in ("optimal", "gap"), solution.fallback) == (True, "")
        assert solution.value <= bound * (1 + 1e-6)
        assert value <= solution.bound * (1 + 1e-6)


def solved_by_highs(
    slopes: ilp.Array, low: ilp.Array, high: ilp.Array, pixels: int | None, gap: float
) -> tuple[float, float]:
    """Max-min value and bound by HiGHS. Columns: up, down (channels), chosen (positions), the least change."""
    n, positions, tasks = low.size, low[0].size, len(slopes)
    flat = slopes.reshape(tasks, -1)
    unit = np.abs(flat).sum(axis=1).max() * EPSILON
    gains = np.hstack(
        [flat * high.ravel(), flat * low.ravel(), np.zeros((tasks, positions)), -unit * np.ones((tasks, 1))]
    )
    choose = np.tile(np.eye(positions), (len(low), 1))
    moves = np.hstack([np.eye(n), np.eye(n), -choose, np.zeros((n, 1))])
    count = np.hstack([np.zeros((1, 2 * n)), np.ones((1, positions)), np.zeros((1, 1))])
    found = milp(
        np.append(np.zeros(2 * n + positions), -1.0),
        integrality=np.append(np.ones(2 * n + positions), 0),
        bounds=Bounds(np.append(np.zeros(2 * n + positions), -1), np.ones(2 * n + positions + 1)),
        constraints=[
            LinearConstraint(gains / unit, 0, np.inf),
            LinearConstraint(moves, -np.inf, 0),
            LinearConstraint(count, -np.inf, positions if pixels is None else pixels),
        ],
        options={"mip_rel_gap": gap, "time_limit": 20},
    )
    return -found.fun * unit, -found.mip_dual_bound * unit


def test_the_closed_form_is_the_sign_rule_on_the_positions_of_largest_gain() -> None:
    slopes, low, high = instance(3, tasks=3, shape=(3, 4, 4))
    mean = slopes.mean(axis=0)
    gains = np.maximum(mean * high, mean * low).sum(axis=0)
    for pixels in range(17):
        value = ilp.value_of(ilp.closed_form(slopes, low, high, pixels), slopes, "mean")
        assert value == pytest.approx(np.sort(gains.ravel())[::-1][:pixels].sum(), abs=1e-18)


@pytest.mark.parametrize("pixels", [None, 64])
def test_a_64_by_64_image_is_solved_within_its_gap_and_twice_alike(pixels: int | None) -> None:
    program = instance(0, tasks=4, shape=(3, 64, 64), scale=1e-6)
    solution = ilp.solve(*program, objective="least", pixels=pixels)
    check_solution(solution, program, "least")
    assert solution.status in ("optimal", "gap")
    assert solution.fallback == ""
    assert 0 <= solution.gap <= ilp.GAP
    assert solution.value > ilp.value_of(ilp.closed_form(*program, pixels), program[0], "least")
    assert pixels is None or (solution.change != 0).any(axis=0).sum() <= pixels
    again = ilp.solve(*program, objective="least", pixels=pixels)
    np.testing.assert_array_equal(again.change, solution.change)
    assert (again.value, again.bound, again.gap) == (solution.value, solution.bound, solution.gap)


def test_max_min_is_never_below_the_closed_form() -> None:
    for seed in range(5):
        program = instance(seed, tasks=3, shape=(3, 6, 6))
        for pixels in (None, 5):
            solution = ilp.solve(*program, objective="least", pixels=pixels, gap=1e-3)
            rule = ilp.closed_form(*program, pixels)
            assert solution.value >= (1 - 1e-3) * ilp.value_of(rule, program[0], "least")


@pytest.mark.parametrize("objective", ["mean", "least"])
def test_without_time_the_closed_form_is_used_and_named(objective: ilp.Objective) -> None:
    program = instance(0, tasks=3, shape=(3, 16, 16))
    solution = ilp.solve(*program, objective=objective, pixels=9, time_limit=1e-9)
    check_solution(solution, program, objective)
    assert (solution.status, solution.fallback) == ("time limit", "closed form")
    np.testing.assert_array_equal(solution.change, ilp.closed_form(*program, 9))
    solved = ilp.solve(*program, objective=objective, pixels=9, gap=1e-6)
    assert solution.bound >= solved.value  # a bound is known even so, and is one
    assert objective == "mean" or solution.gap > 0


def test_a_change_found_in_time_is_kept_with_its_gap() -> None:
    program = instance(1, tasks=8, shape=(3, 40, 40))
    solution = ilp.solve(*program, objective="least", pixels=80, gap=0.0, time_limit=2.0)  # a proof takes over 30 s
    check_solution(solution, program, "least")
    assert (solution.status, solution.fallback) == ("time limit", "")
    assert solution.value > ilp.value_of(ilp.closed_form(*program, 80), program[0], "least")
    assert solution.gap > 0


def test_a_program_that_nothing_fulfils_says_so() -> None:
    program = instance(0, tasks=2, shape=(3, 2, 2))
    solution = ilp.solve(*program, objective="least", pixels=-1)  # CBC is asked, and finds it infeasible
    assert (solution.status, solution.fallback, solution.gap) == ("infeasible", "closed form", float("inf"))
    assert not solution.change.any()


def test_a_task_without_slope_does_not_stop_the_others() -> None:
    slopes, low, high = instance(2, tasks=3, shape=(3, 4, 4))
    slopes[1] = 0
    solution = ilp.solve(slopes, low, high, objective="least")
    alone = ilp.solve(slopes[[0, 2]], low, high, objective="least")
    assert (solution.value, solution.bound, solution.gap, solution.status) == (0.0, 0.0, 0.0, "optimal")
    np.testing.assert_array_equal(solution.change, alone.change)
    assert alone.value > 0


@pytest.mark.parametrize("objective", ["mean", "least"])
def test_nothing_to_gain_is_no_change(objective: ilp.Objective) -> None:
    slopes, low, high = instance(2, tasks=2, shape=(3, 4, 4))
    solution = ilp.solve(np.zeros_like(slopes), low, high, objective=objective)
    assert (solution.value, solution.bound, solution.status) == (0.0, 0.0, "optimal")
    assert not solution.change.any()
    opposed = ilp.solve(np.stack([slopes[0], -slopes[0]]), low, high, objective=objective)
    assert opposed.value == pytest.approx(0, abs=1e-12 * np.abs(slopes).max())


def test_arrays_that_are_no_program_are_refused() -> None:
    slopes, low, high = instance(0, tasks=2, shape=(3, 2, 2))
    for wrong in (
        (slopes[:, 0], low, high),
        (np.nan * slopes, low, high),
        (slopes, low + 1, high),
        (slopes, low, -high),
    ):
        with pytest.raises(ValueError, match=r"program|numbers|allowed"):
            ilp.solve(*wrong, objective="mean")


def test_jobs_side_by_side_agree_and_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    programs = [instance(seed, tasks=3, shape=(3, 6, 6)) for seed in range(6)]

    def values(program: tuple[ilp.Array, ilp.Array, ilp.Array]) -> list[float]:
        return ilp.solve(*program, objective="least", pixels=8).change.tolist()

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(values, programs))
    assert together == [values(program) for program in programs]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["absent", "crashes", "not a program"])
def test_a_broken_solver_is_one_line(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pulp

    path = tmp_path / "cbc"
    if broken != "absent":
        path.write_text("#!/bin/sh\nexit 1\n" if broken == "crashes" else "not a program")
        path.chmod(0o755)
    monkeypatch.setattr(pulp.PULP_CBC_CMD, "pulp_cbc_path", str(path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    with pytest.raises(ConfigError, match="pip install pulp") as caught:
        ilp.solve(*instance(0, tasks=2, shape=(3, 2, 2)), objective="mean")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_missing_pulp_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pulp", None)
    with pytest.raises(ConfigError, match="pip install pulp") as caught:
        ilp.solve(*instance(0, tasks=2, shape=(3, 2, 2)), objective="mean")
    assert "\n" not in str(caught.value)


# --- steppers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balancer", ["dgba", "total"])
def test_ilp_box_is_fgsm_under_the_same_balancer(balancer: str) -> None:
    losses = network_losses(tasks=3, seed=0, dtype=torch.float64)
    images = random_images(4)
    images[:, :, 0] = images[:, :, 0].round()  # some channels at 0 and 1
    fgsm = make_attack(stepper="fgsm", balancer=balancer, attacked="sdn")
    box = make_attack(stepper="ilp_box", balancer=balancer, attacked="sdn")
    assert torch.equal(
        perturb(losses, images, box, "sdn", ids(images), 0), perturb(losses, images, fgsm, "sdn", ids(images), 0)
    )


def test_max_min_raises_the_least_relative_change_that_is_measured() -> None:
    losses, _ = linear_losses((3, 5, 5), count=3)
    images = random_images(3, (3, 5, 5))
    least = []
    for stepper in ("fgsm", "ilp_max_min"):
        attack = make_attack(stepper=stepper, balancer="dgba", attacked="sdn")
        points = perturb(losses, images, attack, "sdn", ids(images), 0)
        least.append((losses(points) / losses(images) - 1).amin(dim=1))
    assert bool((least[1] >= least[0] - 1e-6).all())
    assert bool((least[1] > least[0] + 1e-4).any())


def test_ilp_sparse_changes_few_positions_and_notes_its_programs() -> None:
    losses = network_losses(tasks=2, seed=1)
    images, notes = random_images(3), Notes()
    attack = make_attack(stepper="ilp_sparse", balancer="dgba", pixels=4)
    points = perturb(losses, images, attack, "sd", torch.tensor([7, 3, 5]), 0, notes=notes)
    changed = (points != images).any(dim=1).flatten(1).sum(dim=1)
    assert bool((changed <= 4).all())
    assert bool((changed > 0).all())
    assert [sample for sample, _ in notes.programs] == [7, 3, 5]
    assert all(solution.status in ("optimal", "gap") for _, solution in notes.programs)
    torch.testing.assert_close(torch.stack(notes.curve), losses(images).double().sum(dim=0)[None])
    for image, point, (_, solution) in zip(images, points, notes.programs, strict=True):
        np.testing.assert_allclose((point - image).double().numpy(), solution.change, atol=1e-6)


def test_what_a_program_cannot_do_is_one_line() -> None:
    losses, images = network_losses(tasks=2, seed=1), random_images(1)
    for change in (
        {"stepper": "ilp_box", "norm": "l2"},
        {"stepper": "ilp_max_min", "balancer": "sign_sum"},
        {"stepper": "ilp_sparse"},
    ):
        with pytest.raises(ConfigError) as caught:
            perturb(losses, images, make_attack(**{"balancer": "dgba", **change}), "sd", ids(images), 0)
        assert "\n" not in str(caught.value)


def test_a_gradient_that_is_no_number_is_named() -> None:
    images = random_images(2)

    def losses(points: torch.Tensor) -> torch.Tensor:
        return points.flatten(1)[:, :2] * torch.tensor([[1.0], [torch.nan]])

    with pytest.raises(DivergedError, match="sample 1"):
        perturb(losses, images, make_attack(stepper="ilp_max_min", balancer="dgba"), "sd", ids(images), 0)
