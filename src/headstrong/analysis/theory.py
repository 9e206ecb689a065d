"""theory.csv: Theorem 2 of Ghamizi et al. (2022) and its assumptions, against the gradients of the trained models.

The theorem (Mao et al. 2020) says how the adversarial vulnerability of a model falls with the number M of attacked
tasks. To first order that vulnerability is epsilon times the mean norm of the joint gradient (supplement, Lemma 2), so
the claim can be put to the gradients themselves: r_i is the gradient of the loss of task i with respect to the clean
image, and the joint loss weighs every task by 1/M.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from headstrong.analysis.plan import Row, rows_of_models
from headstrong.analysis.records import Evaluation, Gradients
from headstrong.analysis.stats import BOOTSTRAP_DRAWS, Array, Estimate, resamples
from headstrong.seeds import derive_seed
from headstrong.tasks import in_order

COLUMNS = ("model", "tasks", "size", "quantity", "value", "standard_error", "n")
QUANTITIES = {
    "mean_gradient": "measured: mean over images of the L2 norm of the mean of the tasks' gradients",
    "root_mean_square": "square root of the mean of the square of that norm, which is what the proof follows",
    "theorem_2": "Theorem 2 without K: its square root times sigma, the root of the mean of E ||r_i||^2 over tasks",
    "independent": "sigma / sqrt(M), Theorem 2 for uncorrelated tasks",
    "zero_mean": "||E r_i||^2 / E ||r_i||^2, the largest of the tasks; the theorem assumes 0",
    "equal_variance": "largest over smallest E ||r_i||^2 of the tasks; the theorem assumes 1",
    "mean_cosine": "mean over images and pairs of tasks of the cosine between two gradients",
}


def build_table(
    evaluations: Path, plan: Path, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS, processes: int = 1
) -> pd.DataFrame:
    """theory.csv: the rows of `rows` for every model of the plan whose evaluation holds gradients, columns COLUMNS.

    evaluations: folder with one `<model id>.h5` per row of the plan CSV. The same seed, the same table, whatever
    `processes` is. Raises MissingDataError or BrokenFileError, naming the file, as reading an evaluation does.
    """
    found = rows_of_models(evaluations, plan, partial(rows, seed=seed, draws=draws), processes)
    return pd.DataFrame(found, columns=list(COLUMNS))


def rows(evaluation: Evaluation, *, seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> list[Row]:
    """Every quantity of every subset of tasks the evaluation holds gradients of; none without gradients.

    Values are in loss per unit of an image in [0, 1], except for the last three quantities, which are ratios.
    standard_error is that of a bootstrap over images, NaN for one image or where a resample has no number, and for
    zero_mean, whose numerator the file does not keep per image. n is the number of images. A single task has neither
    equal_variance nor mean_cosine; both are NaN where a task's gradient is 0 on every image.
    """
    gradients = evaluation.gradients
    if gradients is None:
        return []
    weights = resamples(gradients.gram.shape[0], draws, derive_seed(seed, "theory", evaluation.id))
    return [
        {
            "model": evaluation.id,
            "tasks": in_order(subset),
            "size": len(subset),
            "quantity": quantity,
            "value": estimate.value,
            "standard_error": estimate.error,
            "n": estimate.n,
        }
        for subset in gradients.subsets
        for quantity, estimate in quantities(gradients, in_order(subset), weights).items()
    ]


def quantities(gradients: Gradients, subset: str, weights: Array) -> dict[str, Estimate]:
    """The QUANTITIES of one subset of tasks, in the order of its letters, under the weights of `resamples`.

    They are of the images that have all tasks of the subset.
    """
    chosen = [gradients.tasks.index(letter) for letter in subset]
    there = gradients.with_tasks(subset)
    gram, weights = gradients.gram[there][:, chosen][:, :, chosen], weights[:, there]
    count, size = gram.shape[0], len(subset)
    total = weights.sum(axis=1)  # count, but where a resample holds other images than those
    means = (weights @ gram.reshape(count, -1) / total[:, None]).reshape(-1, size, size)
    # rounding can leave a norm whose parts cancel a hair below 0
    squares = np.maximum(gram.sum(axis=(1, 2)), 0) / size**2
    found = {
        "mean_gradient": weights @ np.sqrt(squares) / total,
        "root_mean_square": np.sqrt(weights @ squares / total),
        "theorem_2": theorem_2(means),
        "independent": independent(means),
    }
    if size > 1:
        variances = np.diagonal(means, axis1=1, axis2=2)
        least = variances.min(axis=1)
        found["equal_variance"] = variances.max(axis=1) / np.where(least > 0, least, np.nan)
        found["mean_cosine"] = _mean_cosine(gram, weights)
    estimates = {name: _estimate(values, count) for name, values in found.items()}
    estimates["zero_mean"] = Estimate(zero_mean(gradients, subset), math.nan, count)
    return {name: estimates[name] for name in QUANTITIES if name in estimates}


def theorem_2(gram: Array) -> Array:
    """Theorem 2 without K, (...,), of second moments E[r_i . r_j] (..., M, M), in the unit of a gradient's norm.

    sigma * sqrt((1 + (2/M) * sum_{i>j} Cov(r_i, r_j) / Cov(r_i, r_i)) / M). K, which is said to depend on epsilon and
    on the tasks, stands for epsilon and for the scale of the gradients; sigma, the root of the mean of E||r_i||^2, is
    that scale. With zero means, as assumed, E[r_i . r_j] is the covariance, so nothing is centred here: `zero_mean`
    says how far that is true. The printed formula divides by Cov(r_i, r_i), each term by its own task's, which the
    theorem takes to be equal for all; where they differ it depends on the order of the tasks (here: the study's) and
    what stands under the root can be negative. The result is then NaN. Under the assumptions it is exactly
    sqrt(E ||mean of r_i||^2), which is never below the mean norm (Jensen).
    """
    size = gram.shape[-1]
    own = np.diagonal(gram, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (np.tril(gram, -1) / own[..., :, None]).sum(axis=(-2, -1))
        return np.asarray(np.sqrt(own.mean(axis=-1) * (1 + 2 / size * shares) / size))


def independent(gram: Array) -> Array:
    """sigma / sqrt(M), (...,), of second moments (..., M, M): what Theorem 2 leaves for uncorrelated tasks."""
    own = np.diagonal(gram, axis1=-2, axis2=-1)
    return np.asarray(np.sqrt(own.mean(axis=-1) / gram.shape[-1]))


def zero_mean(gradients: Gradients, subset: str) -> float:
    """||E r_i||^2 / E ||r_i||^2, the largest of the subset's tasks: 0 when the mean is zero, 1 when all r are equal.

    The mean of N gradients with zero expectation has the squared norm E ||r||^2 / N and not 0. That bias is taken out:
    ||E r||^2 is estimated by (N ||mean||^2 - mean of ||r||^2) / (N - 1), which can fall below 0. NaN for one image,
    and where all gradients of a task are 0.
    """
    chosen = [gradients.tasks.index(letter) for letter in subset]
    own = np.diagonal(gradients.gram, axis1=1, axis2=2)[:, chosen]
    count = (~np.isnan(own)).sum(axis=0)  # images that have the task, as in the mean gradient
    if count.min(initial=2) < 2:
        return math.nan
    of_means = np.diagonal(gradients.mean_gram)[chosen]
    means_of = np.nanmean(own, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max((count * of_means / means_of - 1) / (count - 1)))


def _mean_cosine(gram: Array, weights: Array) -> Array:
    """Mean cosine (draws,) over images and pairs; a pair of which one gradient is 0 on an image does not count."""
    norms = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    first, second = np.tril_indices(gram.shape[1], -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = gram[:, first, second] / (norms[:, first] * norms[:, second])
    known = np.isfinite(cosines)
    total = weights @ np.where(known, cosines, 0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(total / (weights @ known.sum(axis=1)))


def _estimate(values: Array, count: int) -> Estimate:
    """The value for all images, which comes first, with the deviation of the resamples as its standard error."""
    error = float(values[1:].std(ddof=1)) if count > 1 and values.size > 2 else math.nan
    return Estimate(float(values[0]), error, count)
