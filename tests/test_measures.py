"""Measures against plain loops over pixels in numpy, and against what is known without computing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstrong.data.batches import Batch
from headstrong.losses import per_sample_losses
from headstrong.measures import depth_measures, metres, normal_measures, per_sample_measures
from headstrong.tasks import TASKS, decode_depth, encode

torch.set_num_threads(1)

COUNT, HEIGHT, WIDTH = 4, 5, 7
LETTERS = "sdDnkKeEprA"
NORMAL = ("angle_mean", "angle_median", "within_11.25", "within_22.5", "within_30")
DEPTH = ("absolute", "relative", "within_1.25", "within_1.25^2", "within_1.25^3")


@pytest.fixture
def sample() -> tuple[dict[str, torch.Tensor], Batch]:
    """Outputs and targets near each other, with holes; the last sample has no valid pixel at all."""
    rng = np.random.default_rng(0)
    valid = rng.random((COUNT, 1, HEIGHT, WIDTH)) < 0.7
    valid[-1] = False
    outputs, targets, masks = {}, {}, {}
    for letter in LETTERS:
        shape = (COUNT, TASKS[letter].channels or 4, HEIGHT, WIDTH)
        if letter == "s":
            target = rng.integers(0, 4, (COUNT, HEIGHT, WIDTH))
            output = rng.normal(size=shape)
        elif letter in "dD":
            depth = rng.uniform(0.5, 9, shape)
            target = encode(letter, depth[:, 0])[0][:, None]
            output = encode(letter, (depth * rng.uniform(0.4, 2.5, shape))[:, 0])[0][:, None]
            output[0, 0, :2, :2] = [[-0.3, 0], [1.7, 40]]  # a network may say what no encoding says
            valid[0, 0, :2, :2] = True
            target = np.where(valid, target, 0)
        elif letter == "n":
            target = rng.normal(size=shape)
            target /= np.linalg.norm(target, axis=1, keepdims=True)
            output = 3 * (target + rng.normal(0, 0.25, shape))
            output[1, :, 0, 0] = 0
            target = np.where(valid, target, 0)
        else:
            target, output = rng.uniform(-1, 1, shape), rng.normal(size=shape)
        mask = {"label": target[:, None] > 0 if letter == "s" else None, "depth": valid, "none": np.ones_like(valid)}
        outputs[letter] = torch.from_numpy(output).float()
        targets[letter] = torch.from_numpy(target).long() if letter == "s" else torch.from_numpy(target).float()
        masks[letter] = torch.from_numpy(mask[TASKS[letter].mask])
    return outputs, Batch(torch.arange(COUNT), torch.rand(COUNT, 3, HEIGHT, WIDTH), targets, masks)


def by_hand(letter: str, output: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The measures of one sample, pixel by pixel."""
    pixels = [(output[:, y, x], target[:, y, x]) for y in range(HEIGHT) for x in range(WIDTH) if mask[0, y, x]]
    if letter == "n":
        angles = []
        for p, g in pixels:
            lengths = np.linalg.norm(p) * np.linalg.norm(g)
            angles.append(90.0 if lengths == 0 else np.degrees(np.arccos(np.clip(p @ g / lengths, -1, 1))))
        angles = np.array(angles)
        shares = [np.mean(angles <= t) if len(angles) else np.nan for t in (11.25, 22.5, 30)]
        middle = sorted(angles)[(len(angles) - 1) // 2] if len(angles) else np.nan
        return dict(zip(NORMAL, (angles.mean() if len(angles) else np.nan, middle, *shares), strict=True))
    if letter in "dD":
        off, relative, ratios = [], [], []
        for p, g in pixels:
            p, g = (float(decode_depth(np.clip(v.astype(np.float64), 0, 1))[0]) for v in (p, g))
            off.append(abs(p - g))
            relative += [abs(p - g) / g] if g > 0 else []
            ratios.append(max(p / g, g / p) if p > 0 and g > 0 else np.inf)
        shares = [np.mean(np.array(ratios) <= 1.25**k) if ratios else np.nan for k in (1, 2, 3)]
        means = [np.mean(values) if values else np.nan for values in (off, relative)]
        return dict(zip(DEPTH, (*means, *shares), strict=True))
    return {"absolute": np.mean([np.abs(p - g).mean() for p, g in pixels]) if pixels else np.nan}


@pytest.mark.parametrize("pixels", ["valid", "all"])
def test_measures_are_those_of_a_loop_over_pixels(sample: tuple[dict, Batch], pixels: str) -> None:
    outputs, batch = sample
    found = per_sample_measures(outputs, batch, LETTERS, pixels=pixels)
    assert list(found) == list(LETTERS)
    assert found["s"] == {}
    for letter in LETTERS[1:]:
        for i in range(COUNT):
            mask = batch.masks[letter][i].numpy() | (pixels == "all")
            expected = by_hand(letter, outputs[letter][i].numpy(), batch.targets[letter][i].numpy(), mask)
            assert list(found[letter]) == list(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(
                    float(found[letter][name][i]), value, rtol=2e-5, atol=1e-6, err_msg=f"{letter} {name} {i}"
                )


def test_without_a_valid_pixel_there_is_no_number(sample: tuple[dict, Batch]) -> None:
    outputs, batch = sample
    for letter, measures in per_sample_measures(outputs, batch, LETTERS, pixels="valid").items():
        for values in measures.values():
            assert values.dtype == torch.float32
            expected = [TASKS[letter].mask == "depth" and i == COUNT - 1 for i in range(COUNT)]
            assert values.isnan().tolist() == expected


def test_absolute_is_the_loss_over_the_same_pixels(sample: tuple[dict, Batch]) -> None:
    outputs, batch = sample
    found = per_sample_measures(outputs, batch, "kKeEprA", pixels="valid")
    losses = per_sample_losses(outputs, batch, "kKeEprA", pixels="valid", class_weights=None)
    for column, letter in enumerate("kKeEprA"):
        torch.testing.assert_close(found[letter]["absolute"], losses[:, column], equal_nan=True)


def test_a_perfect_answer_measures_perfect(sample: tuple[dict, Batch]) -> None:
    _, batch = sample
    outputs = {letter: batch.targets[letter] for letter in LETTERS if letter != "s"}
    for letter, measures in per_sample_measures(outputs, batch, LETTERS[1:], pixels="valid").items():
        for name, values in measures.items():
            perfect = values[: COUNT - 1]
            assert (perfect == (1 if name.startswith("within") else 0)).all(), (letter, name)


@pytest.mark.parametrize("degrees", [0.001, 0.5, 11.24, 30.01, 90, 135, 180])
def test_a_turn_by_known_degrees_is_found(degrees: float) -> None:
    true = torch.tensor([0.0, 0.6, 0.8]).view(1, 3, 1, 1)
    across = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    turn = np.radians(degrees)
    predicted = 7 * (float(np.cos(turn)) * true + float(np.sin(turn)) * across)
    batch = Batch(torch.arange(1), torch.zeros(1, 3, 1, 1), {"n": true}, {"n": torch.ones(1, 1, 1, 1, dtype=bool)})
    found = per_sample_measures({"n": predicted}, batch, "n", pixels="valid")["n"]
    assert float(found["angle_mean"]) == pytest.approx(degrees, rel=1e-3)
    assert float(found["angle_mean"]) == float(found["angle_median"])
    assert [float(found[name]) for name in NORMAL[2:]] == [degrees <= 11.25, degrees <= 22.5, degrees <= 30]


def test_thresholds_are_inside() -> None:
    counted = torch.ones(1, 1, 4, dtype=torch.bool)
    found = normal_measures(torch.tensor([[[11.25, 22.5, 30.0, 31.0]]]), counted)
    assert [float(found[name]) for name in NORMAL[2:]] == [0.25, 0.5, 0.75]
    found = depth_measures(torch.tensor([[[4.0, 5.0, 5.0, 1.25]]]), torch.tensor([[[5.0, 4.0, 5.0, 0.8]]]), counted)
    assert [float(found[name]) for name in DEPTH[2:]] == [0.75, 1, 1]


@pytest.mark.parametrize("predicted", [0.0, -1.0])
def test_no_depth_divides_by_zero(predicted: float) -> None:
    true = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
    found = depth_measures(torch.full_like(true, predicted), true, torch.ones_like(true, dtype=torch.bool))
    assert found["relative"].tolist()[0] == (2 - predicted) / 2  # the hole has no relative error
    assert found["relative"].isnan().tolist() == [False, True]
    for name in DEPTH[2:]:
        assert found[name].tolist() == [0, 0]


def test_median_is_that_of_torch_over_the_valid_pixels() -> None:
    angle = 180 * torch.rand(41, 5, 8, generator=torch.Generator().manual_seed(0))
    counted = (torch.arange(40) < torch.arange(41)[:, None]).view(41, 5, 8)  # none, one, two, ... all
    expected = angle.where(counted, torch.nan).flatten(1).nanmedian(dim=1).values
    torch.testing.assert_close(
        normal_measures(angle, counted)["angle_median"], expected, equal_nan=True, rtol=0, atol=0
    )


def test_metres_are_those_of_the_tasks_module() -> None:
    encoded = np.linspace(0, 1, 4001, dtype=np.float32)
    np.testing.assert_allclose(metres(torch.from_numpy(encoded)).numpy(), decode_depth(encoded), rtol=2e-6, atol=1e-9)
    depth = np.linspace(0.05, 120, 500)
    np.testing.assert_allclose(metres(torch.from_numpy(encode("d", depth[None])))[0, 0].numpy(), depth, rtol=1e-5)
    assert metres(torch.tensor([-5.0, 0.0, 1.0, 90.0])).tolist() == pytest.approx([0, 0, 65535 / 512, 65535 / 512])
