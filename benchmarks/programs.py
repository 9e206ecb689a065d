"""How long the integer programs of DGBA take per image, how close they get, and what they gain over the closed form.

  python benchmarks/programs.py [--images 4] [--side 64] [--tasks 3 5] [--pixels 64 256]
  python benchmarks/programs.py --weights results/quick/models/ID/weights.safetensors --data results/quick/data/test.h5

Prints a markdown table: seconds per image, relative gaps, how the programs ended, and the predicted relative change of
the task that changes least, under the closed form and under the program (means over the images; epsilon 8/255). The
program "box" maximises the mean over the tasks, so its least change is the closed form's.

Without --weights the slopes are random: heavy-tailed over the image, larger in some regions for all tasks alike, partly
shared between tasks, and unequal in size between tasks.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from headstrong import program
from headstrong.attacks import ilp
from headstrong.attacks.balancers import BALANCERS, Seen
from headstrong.attacks.steppers import Problem
from headstrong.attacks.threat import LinfBall
from headstrong.data.batches import Batches
from headstrong.losses import per_sample_losses
from headstrong.models import load_model

EPSILON = 8 / 255
SHARED = 0.3  # share of the random slopes' variance that all tasks have in common

Image = tuple[ilp.Array, ilp.Array]  # slopes (T, C, H, W), pixels (C, H, W)


def random_images(count: int, tasks: int, side: int) -> Iterator[Image]:
    """Slopes that look like those of a network, and images with some channels at 0 and 1."""
    for seed in range(count):
        rng = np.random.default_rng([seed, tasks])
        region = np.exp(np.kron(rng.standard_normal((side // 8, side // 8)), np.ones((8, 8))))
        common, own = rng.standard_normal((3, side, side)), rng.standard_normal((tasks, 3, side, side))
        pixel = np.exp(rng.standard_normal((tasks, 1, side, side)))
        size = 1e-2 * np.exp(0.5 * rng.standard_normal((tasks, 1, 1, 1)))
        slopes = size * region * pixel * (np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own)
        yield slopes, np.clip(rng.uniform(-0.1, 1.1, (3, side, side)), 0, 1)


def model_images(weights: Path, data: Path, count: int) -> Iterator[Image]:
    """The weighted gradients of a trained model's losses, under dgba, on the first test images."""
    model = load_model(weights).eval().requires_grad_(False)
    batch = Batches(data, model.tasks, "cpu", limit=count).get(range(count))

    def losses(images: torch.Tensor) -> torch.Tensor:
        return per_sample_losses(model(images), batch, model.tasks, pixels="valid", class_weights=None)

    with torch.no_grad():
        clean = losses(batch.images)
    problem = Problem(losses, BALANCERS["dgba"], LinfBall(EPSILON), batch.images, clean)
    gradients, now = problem.gradients(batch.images)
    shares = BALANCERS["dgba"].weights(Seen(now, clean, now, 0))
    slopes = torch.stack(gradients, dim=1).double() * shares[:, :, None, None, None]
    yield from zip(slopes.numpy(), batch.images.double().numpy(), strict=True)


def measure(images: list[Image], objective: ilp.Objective, pixels: int | None, limit: float) -> str:
    """One row of the table, without its first columns."""
    found, rules = [], []
    for slopes, image in images:
        low, high = np.maximum(-EPSILON, -image), np.minimum(EPSILON, 1 - image)
        solution = ilp.solve(slopes, low, high, objective=objective, pixels=pixels, time_limit=limit)
        rule = ilp.value_of(ilp.closed_form(slopes, low, high, pixels), slopes, "least")
        rules.append(rule)
        found.append((solution, ilp.value_of(solution.change, slopes, "least")))
    seconds = [solution.seconds for solution, _ in found]
    gaps = [solution.gap for solution, _ in found]
    ends = Counter(solution.fallback or solution.status for solution, _ in found)
    least, closed = np.mean([value for _, value in found]), np.mean(rules)
    return (
        f"{np.mean(seconds):.2f} ({max(seconds):.2f}) | {np.mean(gaps):.1e} ({max(gaps):.1e}) "
        f"| {', '.join(f'{count} {end}' for end, count in sorted(ends.items()))} "
        f"| {closed:+.4f} | {least:+.4f} | {least - closed:+.4f} |"
    )


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    if arguments.weights is None:
        sets = [list(random_images(arguments.images, tasks, arguments.side)) for tasks in arguments.tasks]
    else:
        sets = [list(model_images(arguments.weights, arguments.data, arguments.images))]
    print("| tasks | program | seconds: mean (most) | gap: mean (most) | ended | least: closed form | program | gain |")
    print("|---|---|---|---|---|---|---|---|")
    programs: list[tuple[str, ilp.Objective, int | None]] = [("box", "mean", None), ("max-min", "least", None)]
    programs += [(f"sparse, {pixels} pixels", "least", pixels) for pixels in arguments.pixels]
    for images in sets:
        for name, objective, pixels in programs:
            row = measure(images, objective, pixels, arguments.time_limit)
            print(f"| {len(images[0][0])} | {name} | {row}", flush=True)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=4, help="number of images")
    parser.add_argument("--side", type=int, default=64, help="pixels a side of random images, a multiple of 8")
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 5], help="numbers of tasks of random images")
    parser.add_argument("--pixels", type=int, nargs="+", default=[64, 256], help="pixels of the sparse programs")
    parser.add_argument("--time-limit", type=float, default=ilp.TIME_LIMIT, help="seconds per program")
    parser.add_argument("--weights", type=Path, help="a trained model instead of random slopes")
    parser.add_argument("--data", type=Path, help="its test split", default=Path("results/quick/data/test.h5"))
    sys.exit(program.run(main, parser))
