"""The step inside the box as an integer program, one image at a time, solved with PuLP and CBC.

The loss of task t changes by about `slopes_t . change` (first-order Taylor). Channel j may go down by `low_j`, stay, or
go up by `high_j`: the integer variables of the balanced attack (arXiv 2305.12066). Three programs:

- "mean": the largest mean change over the tasks. Its closed form is the sign rule (`closed_form`).
- "least": the largest change of the task that changes least, max-min. It has no closed form.
- either one with `pixels`: at most so many positions change; all channels of a position count as one.
  For "mean" the closed form is the sign rule on the positions of largest gain.

"mean" is handed to CBC whole. "least" is not: with 12288 channels CBC alone takes up to a minute per image.
For task weights w that sum to 1 the sign rule with slopes `sum_t w_t slopes_t` gives an upper bound, and the least such
bound is the linear relaxation. So:

1. A small linear program over the changes found so far gives weights; their sign rule gives a new change; repeat until
   the bound meets the relaxation (column generation of Dantzig and Wolfe, cutting planes of Kelley).
2. Under the best weights every choice has a regret: what the bound loses if it is made otherwise. Choices whose regret
   exceeds bound minus value cannot be otherwise in a better solution (fixing by reduced costs).
3. CBC decides the choices of least regret, the core. The core grows until the gap is small enough, or the core
   holds all that is undecided: then the result is proved for the whole program.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstrong.errors import ConfigError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Objective = Literal["mean", "least"]

TIME_LIMIT = 60.0  # seconds per program
GAP = 1e-3  # relative; far below the error of the first-order prediction that the program is made of
CLOSED_FORM = "closed form"
NO_TASK = "no task"

_SCALE = 1000.0  # CBC's tolerances are absolute (1e-7; new solutions: 1e-5), gradients are not: solve in these units
_INSTALL = "the integer programs need PuLP and its solver CBC; install them with 'pip install pulp==3.3.2'"
_ROUNDING = 1e-8  # a relative gap below this is one of rounding: proved optimal
_NOTHING = 1e-9  # in these units, less than float64 sums over all channels resolve
_CORE, _GROWTH = 64, 4  # choices in the first core, and how many times as many in the next
_ROUNDS = 500  # of column generation; a bound from fewer rounds is valid, only looser
_RELAXED, _STOP = 0.01, 0.9  # shares of the gap asked for: what the relaxation may leave, where CBC stops


@dataclass(frozen=True)
class Solution:
    """What a program found for one image.

    `change` float64 (C, H, W), in the units of `low` and `high`. `value` is its objective and `bound` what no change
    can exceed, both in units of slopes times change. `gap` is (bound - value) / |bound|, 0 if they are equal up to
    rounding, infinite if no bound is known, or one of 0 is not met.
    `status`: "optimal" (proved, up to rounding), "gap" (the relative gap is at most the one asked for), "time limit"
    (it is larger), "infeasible" (no change fulfils the program), "failed" (the solver gave up without a reason) or
    "no task" (the image has no label for any attacked task, so there was no program).
    `fallback` is empty, or names the rule that gave `change` in place of the solver: "closed form".
    `seconds` is wall time.
    """

    change: Array
    value: float
    bound: float
    gap: float
    status: str
    fallback: str
    seconds: float


def nothing(low: Array) -> Solution:
    """What stands for the program of an image without any attacked task: no change (C, H, W), the shape of `low`."""
    return Solution(np.zeros_like(low), value=0.0, bound=0.0, gap=0.0, status=NO_TASK, fallback="", seconds=0.0)


def closed_form(slopes: Array, low: Array, high: Array, pixels: int | None = None) -> Array:
    """The change (C, H, W) of the largest mean: up or down with the sign of the mean slope, 0 where it is 0.

    With `pixels`, only the so many positions whose channels together gain most change; of equals, the first.
    Arguments as in `solve`.
    """
    program = _Program.of(slopes, low, high, pixels)
    return program.rule(np.full(len(slopes), 1 / len(slopes))).change.reshape(low.shape)


def value_of(change: Array, slopes: Array, objective: Objective) -> float:
    """The objective of a change (C, H, W): the mean, or the least, over the tasks of slopes . change."""
    changes = slopes.reshape(len(slopes), -1) @ change.ravel()
    return float(changes.mean() if objective == "mean" else changes.min())


def solve(
    slopes: Array,
    low: Array,
    high: Array,
    *,
    objective: Objective,
    pixels: int | None = None,
    time_limit: float = TIME_LIMIT,
    gap: float = GAP,
) -> Solution:
    """Solve one image's program; see the module for the programs and the method.

    `slopes` float64 (T, C, H, W): the tasks' weighted gradients. `low` <= 0 <= `high` (C, H, W): how far each channel
    may go down and up. `pixels`: at most so many positions change. `time_limit`: seconds. `gap`: a relative gap that is
    small enough; "mean" is solved to the end whatever it is.

    Without a change from the solver, or with a worse one than the closed form's, the closed form is the result, and
    `fallback` says so. A task whose slopes are all 0 cannot change: the value of "least" is then 0 by definition, and
    the program is solved for the other tasks.

    Raises ValueError for arrays that are no such program, ConfigError if PuLP or CBC is missing or broken.
    """
    start = time.monotonic()
    _check(slopes, low, high)
    rule = closed_form(slopes, low, high, pixels)
    program = _Program.of(slopes, low, high, pixels)
    if objective == "mean":
        program = program.only(program.slopes.mean(axis=0, keepdims=True))
    reach = np.maximum(program.slopes * low.ravel(), program.slopes * high.ravel()).sum(axis=1)
    moves = reach > 0 if (reach > 0).any() else reach == 0  # with nothing to gain it is still a program
    unit = float(reach[moves].min()) / _SCALE or 1.0
    search = _Search(program.only(program.slopes[moves] / unit), gap, start + time_limit)
    search.run(whole=objective == "mean" or (pixels is not None and pixels < 0))

    status, change, fallback = search.status, rule, CLOSED_FORM
    value = value_of(rule, slopes, objective)
    if search.change is not None:
        found = search.change.reshape(low.shape)
        found_value = value_of(found, slopes, objective)
        if status == "solved" or found_value >= value:
            change, value, fallback = found, found_value, ""
    bound = search.bound * unit if moves.all() else min(search.bound * unit, 0.0)
    bound = max(bound, value)  # they cross by rounding only
    left = _relative_gap(value, bound, _NOTHING * unit)
    if status == "solved":
        status = "optimal" if left <= _ROUNDING else "gap"
    return Solution(change, value, bound, left, status, fallback, time.monotonic() - start)


def _relative_gap(value: float, bound: float, nothing: float) -> float:
    if math.isinf(bound) or bound == 0:
        return 0.0 if value == bound else math.inf
    return 0.0 if bound - value <= nothing else (bound - value) / abs(bound)


def _check(slopes: Array, low: Array, high: Array) -> None:
    if slopes.ndim != 4 or len(slopes) == 0 or low.shape != slopes.shape[1:] or high.shape != low.shape:
        raise ValueError(f"slopes {slopes.shape}, low {low.shape} and high {high.shape} are no program")
    if not (np.isfinite(slopes).all() and np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("slopes, low and high must be numbers")
    if (low > 0).any() or (high < 0).any():
        raise ValueError("low must be <= 0 and high >= 0: no change is always allowed")


@dataclass(frozen=True)
class _Choice:
    """The sign rule under some weights: n channels, P positions."""

    change: Array  # (n,), 0 outside the chosen positions
    best: Array  # (n,), what each channel does if its position is chosen
    chosen: Mask  # (P,)
    bound: float  # no change does better under these weights, so none does in the program
    channel_regret: Array  # (n,), what the bound loses at least if this channel does otherwise
    pixel_regret: Array  # (P,), if this position is chosen otherwise


@dataclass(frozen=True)
class _Program:
    """slopes (T, n), low and high (n,); position (n,) of each channel; budget: how many positions may change."""

    slopes: Array
    low: Array
    high: Array
    position: NDArray[np.int64]
    budget: int | None

    @classmethod
    def of(cls, slopes: Array, low: Array, high: Array, pixels: int | None) -> _Program:
        position = np.broadcast_to(np.arange(low[0].size), (len(low), low[0].size)).ravel()
        return cls(slopes.reshape(len(slopes), -1), low.ravel(), high.ravel(), position, pixels)

    def only(self, slopes: Array) -> _Program:
        return _Program(slopes, self.low, self.high, self.position, self.budget)

    def rule(self, weights: Array) -> _Choice:
        slope = weights @ self.slopes
        best = np.where(slope > 0, self.high, np.where(slope < 0, self.low, 0.0))
        gain = slope * best
        other = np.where(slope > 0, self.low, self.high) * slope  # <= 0: the other way; staying is 0
        regret = np.where(gain > 0, gain, np.where(self.low < self.high, -other, np.inf))
        gains = np.bincount(self.position, gain)
        if self.budget is None:
            chosen, pixel_regret = np.full(len(gains), True), np.full(len(gains), np.inf)
        else:
            order = np.argsort(-gains, kind="stable")
            budget = min(max(self.budget, 0), len(gains))
            chosen = np.isin(np.arange(len(gains)), order[:budget])
            last_in = gains[order[budget - 1]] if budget else np.inf
            first_out = gains[order[budget]] if budget < len(gains) else 0.0
            pixel_regret = np.where(chosen, gains - first_out, last_in - gains)
            regret = regret + np.where(chosen, 0.0, pixel_regret)[self.position]
        change = np.where(chosen[self.position], best, 0.0)
        return _Choice(change, best, chosen, float(slope @ change), regret, pixel_regret)

    def least(self, change: Array) -> float:
        return float((self.slopes @ change).min())


class _Search:
    """The best change found so far, and the least bound proved so far, in the units of a program."""

    def __init__(self, program: _Program, gap: float, deadline: float) -> None:
        self.program, self.gap, self.deadline = program, gap, deadline
        self.change: Array | None = None
        self.value, self.bound = -math.inf, math.inf
        self.status = "time limit"

    def run(self, whole: bool) -> None:
        tasks = len(self.program.slopes)
        found = [self.program.rule(weights) for weights in (*np.eye(tasks), np.full(tasks, 1 / tasks))]
        self.bound = min(choice.bound for choice in found)
        if self.out_of_time():
            return
        if whole:
            everything = np.full(len(found[0].best), True), np.full(len(found[0].chosen), True)
            self.decide(found[-1], *everything, gap=0.0, proves=True)
        else:
            self.grow(self.relax(found))
        if self.status not in ("infeasible", "failed"):
            self.status = "solved" if self.close() else "time limit"

    def grow(self, choice: _Choice) -> None:
        """Solve ever larger cores, until the gap is small enough or the core holds all that is undecided."""
        size, proves = _CORE, False
        while not (proves or self.close() or self.out_of_time() or self.status == "failed"):
            channels, pixels, proves = self.core(choice, size)
            self.decide(choice, channels, pixels, _STOP * self.gap, proves)
            size *= _GROWTH

    def out_of_time(self) -> bool:
        return time.monotonic() >= self.deadline

    def close(self) -> bool:
        return self.bound - self.value <= max(self.gap * abs(self.bound), _NOTHING)

    def offer(self, change: Array) -> None:
        value = self.program.least(change)
        if value > self.value:
            self.change, self.value = change, value

    def relax(self, found: list[_Choice]) -> _Choice:
        """The weights of the least bound, by column generation from some first choices: their sign rule."""
        best = min(found, key=lambda choice: choice.bound)
        for choice in found:
            self.offer(choice.change)
        for _ in range(_ROUNDS):
            if self.close() or self.out_of_time():
                break
            mixed, weights = _mixture(np.array([self.program.slopes @ choice.change for choice in found]))
            if self.bound - mixed <= max(_RELAXED * self.gap * abs(self.bound), _ROUNDING * _SCALE):
                break
            found.append(self.program.rule(weights))
            self.offer(found[-1].change)
            best = min(best, found[-1], key=lambda choice: choice.bound)
            self.bound = min(self.bound, best.bound)
        return best

    def core(self, choice: _Choice, size: int) -> tuple[Mask, Mask, bool]:
        """The `size` undecided choices of least regret, channels (n,) and positions (P,); whether these are all."""
        regret = np.concatenate([choice.channel_regret, choice.pixel_regret])
        undecided = regret <= self.bound - self.value + _ROUNDING * _SCALE
        order = np.argsort(regret, kind="stable")
        inside = np.full(len(regret), False)
        inside[order[:size]] = True
        inside &= undecided
        channels, pixels = np.split(inside, [len(choice.channel_regret)])
        return channels, pixels, bool(inside.sum() == undecided.sum())

    def decide(self, choice: _Choice, channels: Mask, pixels: Mask, gap: float, proves: bool) -> None:
        """Let the solver decide these channels and positions; the others stay as in `choice`."""
        core = _Core(self.program, choice, channels, pixels, unit=max(self.bound, _NOTHING) / _SCALE)
        if self.out_of_time():
            return
        self.status, change = core.solve(self.deadline - time.monotonic(), gap)
        if change is not None:
            self.offer(change)
        if proves and self.status == "solved":
            self.bound = min(self.bound, self.value + gap / (1 - gap) * abs(self.value))
        if self.status == "infeasible":
            self.bound = math.inf


def _mixture(changes: Array) -> tuple[float, Array]:
    """The convex mixture of rows of `changes` (K, T) whose least column is largest: its value, and the dual (T,)."""
    pulp = _pulp()
    problem = pulp.LpProblem("mixture", pulp.LpMaximize)
    least = problem.add_variable("least")
    shares = [problem.add_variable(f"share_{k}", 0) for k in range(len(changes))]
    problem += least + 0
    rows = [
        pulp.LpAffineExpression(list(zip(shares, column, strict=True))) - least >= 0 for column in changes.T.tolist()
    ]
    for row in (*rows, pulp.lpSum(shares) == 1):
        problem += row
    _call(problem, time_limit=None, gap=0.0)
    weights = np.abs([row.pi for row in rows])
    return float(least.value()), weights / weights.sum()


class _Core:
    """The program with all but some channels (n,) and positions (P,) as in `choice`, stated in PuLP.

    Binary variables: a channel goes up, a channel goes down, a position is chosen. A channel that is not free does as
    in `choice.best` where its position is chosen.
    """

    def __init__(self, program: _Program, choice: _Choice, channels: Mask, pixels: Mask, unit: float) -> None:
        self.program = program.only(program.slopes / unit)
        self.pixels = pixels & (program.budget is not None)
        self.fixed = choice.chosen & ~self.pixels  # positions chosen for good
        self.free = channels & (self.fixed | self.pixels)[program.position]
        self.follow = np.where(self.free, 0.0, choice.best)
        self.problem = _pulp().LpProblem("core", _pulp().LpMaximize)
        self.chosen = {int(i): self._binary(f"pixel_{i}") for i in np.flatnonzero(self.pixels)}
        self.moves: list[tuple[int, float, Any]] = []  # a channel, where it goes, the variable that says whether
        self._state()

    def _binary(self, name: str) -> Any:
        return self.problem.add_variable(name, 0, 1, _pulp().LpBinary)

    def _state(self) -> None:
        pulp, program = _pulp(), self.program
        least = self.problem.add_variable("least")
        self.problem += least + 0
        self._add_moves()
        if program.budget is not None:
            self.problem += pulp.lpSum(self.chosen.values()) <= program.budget - int(self.fixed.sum())
        variables = [*self.chosen.values(), *(variable for _, _, variable in self.moves)]
        channels, targets = [j for j, _, _ in self.moves], np.array([to for _, to, _ in self.moves])
        for slopes in program.slopes:
            per_position = np.bincount(program.position, slopes * self.follow, len(self.fixed))
            gains = [*per_position[list(self.chosen)].tolist(), *(slopes[channels] * targets).tolist()]
            change = pulp.LpAffineExpression(list(zip(variables, gains, strict=True)))
            self.problem += change - least >= -float(per_position[self.fixed].sum())

    def _add_moves(self) -> None:
        program = self.program
        for j in np.flatnonzero(self.free).tolist():
            ways = [("up", float(program.high[j])), ("down", float(program.low[j]))]
            helpful = [
                (way, to) for way, to in ways if (program.slopes[:, j] * to > 0).any()
            ]  # else staying is as good
            added = [(j, to, self._binary(f"{way}_{j}")) for way, to in helpful]
            self.moves += added
            position = self.chosen.get(int(program.position[j]))
            if len(added) > 1 or (added and position is not None):
                limit = 1 if position is None else position
                self.problem += _pulp().lpSum(variable for _, _, variable in added) <= limit

    def solve(self, time_limit: float, gap: float) -> tuple[str, Array | None]:
        """How it ended, and the change (n,) if there is one."""
        status = _call(self.problem, time_limit, gap)
        if self.problem.sol_status not in (_pulp().LpSolutionOptimal, _pulp().LpSolutionIntegerFeasible):
            return status, None
        best, chosen = self.follow.copy(), self.fixed.copy()
        for j, to, variable in self.moves:
            best[j] += to * round(variable.value())
        for i, variable in self.chosen.items():
            chosen[i] = round(variable.value()) == 1
        return status, np.where(chosen[self.program.position], best, 0.0)


def _call(problem: Any, time_limit: float | None, gap: float) -> str:
    """Run CBC on a PuLP problem, one thread, in a folder of its own; "solved", "time limit", "infeasible", "failed"."""
    pulp = _pulp()
    bundled = getattr(pulp, "PULP_CBC_CMD", None)  # PuLP 4 leaves CBC to the machine
    path = getattr(bundled, "pulp_cbc_path", None)
    with tempfile.TemporaryDirectory(prefix="headstrong-") as folder:
        solver = pulp.COIN_CMD(path=path, msg=False, threads=1, timeLimit=time_limit, gapRel=gap)
        solver.tmpDir = folder
        try:
            problem.solve(solver)
        except (pulp.PulpSolverError, OSError, ValueError, IndexError) as error:
            raise ConfigError(f"{_INSTALL} ({' '.join(str(error).split())})") from None
    if problem.status == pulp.LpStatusInfeasible:
        return "infeasible"
    if problem.sol_status == pulp.LpSolutionOptimal:
        return "solved"
    out_of_time = problem.sol_status in (pulp.LpSolutionIntegerFeasible, pulp.LpSolutionNoSolutionFound)
    return "time limit" if out_of_time else "failed"


def _pulp() -> Any:
    try:
        import pulp
    except ImportError as error:
        raise ConfigError(f"{_INSTALL} ({' '.join(str(error).split())})") from None
    return pulp
