"""Losses and errors against torch's own and against plain Python, and the invariants of masks."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from headstrong.confusion import miou_from_confusion
from headstrong.data.batches import Batch
from headstrong.losses import batch_means, cross_entropy, per_sample_losses, prior_class_weights
from headstrong.metrics import confusion, per_sample_errors

torch.set_num_threads(1)
CLASSES = 6
CHANNELS = {"s": CLASSES, "d": 1, "n": 3, "p": 2, "e": 1}
TASKS = "".join(CHANNELS)

# Weights of Taskonomy's 17 classes, as released (facts, section 2)
PUBLISHED_WEIGHTS = np.array(
    [0.542, 9.167, 7.331, 7.162, 8.723, 7.613, 8.237, 9.149, 8.822, 9.086, 8.914, 9.177, 9.035, 8.604, 9.170, 9.147,
     9.137]
)  # fmt: skip


def made_up(samples=4, size=(8, 12), valid=0.7, seed=0):
    """Random outputs, and a batch with random targets and masks, `valid` of whose pixels are labelled."""
    g = torch.Generator().manual_seed(seed)
    outputs = {letter: torch.randn(samples, channels, *size, generator=g) for letter, channels in CHANNELS.items()}
    targets = {letter: torch.randn(output.shape, generator=g) for letter, output in outputs.items()}
    mask = torch.rand(samples, 1, *size, generator=g) < valid
    targets["s"] = torch.randint(1, CLASSES, (samples, *size), generator=g) * mask[:, 0]
    masks = dict.fromkeys("sdnp", mask) | {"e": torch.ones_like(mask)}
    return outputs, Batch(torch.arange(samples), torch.zeros(samples, 3, *size), targets, masks)


def part(outputs, batch, row):
    """One sample as a batch of its own."""
    one = slice(row, row + 1)
    cut = [{letter: tensor[one] for letter, tensor in tensors.items()} for tensors in (batch.targets, batch.masks)]
    return {letter: tensor[one] for letter, tensor in outputs.items()}, Batch(batch.index[one], batch.images[one], *cut)


@pytest.mark.parametrize("pixels", ["all", "valid"])
def test_with_every_pixel_valid_the_batch_mean_is_torchs_loss(pixels):
    outputs, batch = made_up(valid=1.1)
    found = per_sample_losses(outputs, batch, TASKS, pixels=pixels, class_weights=None).mean(dim=0)
    expected = [F.cross_entropy(outputs["s"], batch.targets["s"])]
    expected += [F.l1_loss(outputs[letter], batch.targets[letter]) for letter in TASKS[1:]]
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_batch_mean_over_all_pixels_is_the_released_loss():
    # As released: the mean over all B C H W numbers of mask * |output - target|, of mask * weight * cross entropy
    outputs, batch = made_up()
    weights = torch.tensor([0.0, 0.5, 2.0, 1.0, 9.0, 3.0])
    found = per_sample_losses(outputs, batch, TASKS, pixels="all", class_weights=weights).mean(dim=0)
    labels = batch.targets["s"]
    entropy = F.cross_entropy(outputs["s"], labels, reduction="none")
    expected = [(entropy * weights[labels] * batch.masks["s"][:, 0]).mean()]
    apart = {letter: F.l1_loss(outputs[letter], batch.targets[letter], reduction="none") for letter in TASKS[1:]}
    expected += [(losses * batch.masks[letter]).mean() for letter, losses in apart.items()]
    torch.testing.assert_close(found, torch.stack(expected))


def test_over_valid_pixels_the_loss_is_torchs_on_those_pixels_alone():
    outputs, batch = made_up(samples=1)
    found = per_sample_losses(outputs, batch, TASKS, pixels="valid", class_weights=None)[0]
    kept = batch.masks["s"][0, 0]
    expected = [F.cross_entropy(outputs["s"], batch.targets["s"], ignore_index=0)]
    expected += [F.l1_loss(outputs[letter][0][:, kept], batch.targets[letter][0][:, kept]) for letter in "dnp"]
    expected.append(F.l1_loss(outputs["e"], batch.targets["e"]))
    torch.testing.assert_close(found, torch.stack(expected))


def test_losses_over_all_and_over_valid_pixels_differ_by_the_share_of_valid_ones():
    outputs, batch = made_up()
    over_all = per_sample_losses(outputs, batch, TASKS, pixels="all", class_weights=None)
    over_valid = per_sample_losses(outputs, batch, TASKS, pixels="valid", class_weights=None)
    share = torch.stack([batch.masks[letter].float().mean(dim=(1, 2, 3)) for letter in TASKS], dim=1)
    torch.testing.assert_close(over_all, over_valid * share)


@pytest.mark.parametrize("pixels", ["all", "valid"])
@pytest.mark.parametrize("garbage", [1e6, math.nan, math.inf])
def test_what_is_under_the_mask_changes_neither_losses_nor_errors_nor_gradients(pixels, garbage):
    outputs, batch = made_up()

    def measure():
        leaves = {letter: output.clone().requires_grad_() for letter, output in outputs.items()}
        losses = per_sample_losses(leaves, batch, TASKS, pixels=pixels, class_weights=None)
        losses.sum().backward()
        errors, _ = per_sample_errors(outputs, batch, "dnp", pixels="valid", miou="labelled")
        hidden = [leaves[letter].grad[~batch.masks[letter].expand_as(leaves[letter])] for letter in "sdnp"]
        return losses.detach(), errors, hidden

    losses, errors, hidden = measure()
    assert all(gradient.eq(0).all() for gradient in hidden)
    for letter in "dnp":
        batch.targets[letter] = torch.where(batch.masks[letter], batch.targets[letter], garbage)
    outputs["d"] = torch.where(batch.masks["d"], outputs["d"], -3.0)
    outputs["s"] = torch.where(batch.masks["s"], outputs["s"], 7.0)
    changed_losses, changed_errors, hidden = measure()
    assert torch.equal(losses, changed_losses)
    assert torch.equal(errors, changed_errors)
    if math.isfinite(garbage):
        assert all(gradient.eq(0).all() for gradient in hidden)


def test_a_sample_with_nothing_valid_has_no_loss_and_no_error():
    outputs, batch = made_up()
    batch.masks = {letter: mask.clone() for letter, mask in batch.masks.items()}
    for letter in "sdnp":
        batch.masks[letter][1] = False
    batch.targets["s"][1] = 0
    for pixels in ("all", "valid"):
        losses = per_sample_losses(outputs, batch, TASKS, pixels=pixels, class_weights=None)
        assert losses.isnan().tolist() == [[row == 1 and letter != "e" for letter in TASKS] for row in range(4)]
        assert (losses[[0, 2, 3]] > 0).all()
        means = batch_means(losses, batch.labelled(TASKS))
        torch.testing.assert_close(means[:-1], losses[[0, 2, 3], :-1].mean(dim=0))
    errors, _ = per_sample_errors(outputs, batch, TASKS, pixels="valid", miou="labelled")
    assert errors.isnan().tolist() == [[row == 1 and letter != "e" for letter in TASKS] for row in range(4)]
    errors, _ = per_sample_errors(outputs, batch, TASKS, pixels="all", miou="all")
    assert errors.isfinite().all()


@pytest.mark.parametrize("pixels", ["all", "valid"])
def test_each_sample_is_measured_as_if_alone(pixels):
    outputs, batch = made_up()
    weights = torch.rand(CLASSES, generator=torch.Generator().manual_seed(1))
    losses = per_sample_losses(outputs, batch, TASKS, pixels=pixels, class_weights=weights)
    errors, counts = per_sample_errors(outputs, batch, TASKS, pixels=pixels, miou="labelled")
    for row in range(4):
        alone = part(outputs, batch, row)
        one = per_sample_losses(*alone, TASKS, pixels=pixels, class_weights=weights)
        torch.testing.assert_close(one, losses[row : row + 1])
        one, count = per_sample_errors(*alone, TASKS, pixels=pixels, miou="labelled")
        torch.testing.assert_close(one, errors[row : row + 1])
        assert torch.equal(count, counts[row : row + 1])


def test_columns_follow_the_order_of_the_letters():
    outputs, batch = made_up()
    for order in ("nsd", "dns"):
        losses = per_sample_losses(outputs, batch, order, pixels="all", class_weights=None)
        errors, _ = per_sample_errors(outputs, batch, order, pixels="valid", miou="labelled")
        for column, letter in enumerate(order):
            alone = per_sample_losses(outputs, batch, letter, pixels="all", class_weights=None)
            assert torch.equal(losses[:, column], alone[:, 0])
            alone, _ = per_sample_errors(outputs, batch, letter, pixels="valid", miou="labelled")
            assert torch.equal(errors[:, column], alone[:, 0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cross_entropy_and_its_gradient_are_torchs_in_any_memory_layout(layout):
    outputs, batch = made_up()
    ours = outputs["s"].clone(memory_format=layout).requires_grad_()
    theirs = outputs["s"].clone().requires_grad_()
    found = cross_entropy(ours, batch.targets["s"])
    expected = F.cross_entropy(theirs, batch.targets["s"], reduction="none")
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_losses_of_half_precision_outputs_are_float32():
    outputs, batch = made_up()
    halves = {letter: output.bfloat16() for letter, output in outputs.items()}
    rounded = {letter: output.float() for letter, output in halves.items()}
    losses = per_sample_losses(halves, batch, TASKS, pixels="all", class_weights=None)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, per_sample_losses(rounded, batch, TASKS, pixels="all", class_weights=None))


def test_mean_squared_error_by_hand():
    outputs, batch = made_up()
    errors, none = per_sample_errors(outputs, batch, "dnpe", pixels="valid", miou="labelled")
    over_all, _ = per_sample_errors(outputs, batch, "dnpe", pixels="all", miou="labelled")
    assert none is None
    for column, letter in enumerate("dnpe"):
        for row in range(4):
            square = (outputs[letter][row].double() - batch.targets[letter][row].double()).square()
            kept = square[:, batch.masks[letter][row, 0]]
            assert errors[row, column].item() == pytest.approx(kept.mean().item(), rel=1e-5)
            assert over_all[row, column].item() == pytest.approx(square.mean().item(), rel=1e-5)


def slow_miou(predicted, labels, classes, convention):
    """Mean IoU by sets of pixels, one class at a time."""
    pixels = [(p, t) for p, t in zip(predicted, labels, strict=True) if convention == "all" or t != 0]
    shares = []
    for number in range(0 if convention == "all" else 1, classes):
        truth = {place for place, (_, t) in enumerate(pixels) if t == number}
        found = {place for place, (p, _) in enumerate(pixels) if p == number}
        if truth | found:
            shares.append(len(truth & found) / len(truth | found))
    return sum(shares) / len(shares) if shares else math.nan


@pytest.mark.parametrize("convention", ["labelled", "all"])
@pytest.mark.parametrize("valid", [0.0, 0.05, 0.6, 1.1])
def test_miou_equals_brute_force(convention, valid):
    outputs, batch = made_up(samples=6, size=(4, 5), valid=valid, seed=int(10 * valid))
    outputs["s"][0] = F.one_hot(batch.targets["s"][0], CLASSES).permute(2, 0, 1)  # all right
    outputs["s"][:, 3] -= 9  # a class that is never predicted
    errors, counts = per_sample_errors(outputs, batch, "s", pixels="valid", miou=convention)
    assert counts.sum().item() == 6 * 4 * 5
    predicted = outputs["s"].argmax(dim=1).flatten(1).tolist()
    labels = batch.targets["s"].flatten(1).tolist()
    expected = [
        100 * (1 - slow_miou(p, t, CLASSES, convention)) for p, t in zip(predicted, labels, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(errors[:, 0].numpy(), expected, rtol=1e-5, atol=1e-4)
    together = miou_from_confusion(counts.sum(dim=0).numpy(), convention)
    whole = slow_miou(np.ravel(predicted), np.ravel(labels), CLASSES, convention)
    np.testing.assert_allclose(together, whole, rtol=1e-12)


def test_confusion_counts_every_pixel_once_in_its_cell():
    labels = torch.tensor([[[0, 1, 2, 2]], [[1, 1, 1, 0]]])
    predicted = torch.tensor([[[2, 1, 0, 2]], [[1, 0, 1, 0]]])
    counts = confusion(F.one_hot(predicted, 3).permute(0, 3, 1, 2).float(), labels, 3)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[[0, 0, 1], [0, 1, 0], [1, 0, 1]], [[1, 0, 0], [1, 2, 0], [0, 0, 0]]]


def test_miou_conventions_by_hand():
    counts = np.array([[5, 1, 0], [1, 3, 0], [0, 1, 2]])  # rows: true class
    labelled = (3 / (4 + 4 - 3) + 2 / (3 + 2 - 2)) / 2
    everything = (5 / 7 + 3 / (4 + 5 - 3) + 2 / 3) / 3
    assert miou_from_confusion(counts, "labelled") == pytest.approx(labelled)
    assert miou_from_confusion(counts, "all") == pytest.approx(everything)
    stacked = miou_from_confusion(np.stack([counts, 2 * counts, 0 * counts])[:, None], "labelled")
    assert stacked.shape == (3, 1)
    np.testing.assert_allclose(stacked[:, 0], [labelled, labelled, np.nan])


def test_perfect_and_opposite_predictions_give_zero_and_a_hundred():
    _, batch = made_up()
    labels = batch.targets["s"]
    right = {"s": F.one_hot(labels, CLASSES).permute(0, 3, 1, 2).float()}
    wrong = {"s": F.one_hot((labels + 1) % CLASSES, CLASSES).permute(0, 3, 1, 2).float()}
    for convention in ("labelled", "all"):
        assert per_sample_errors(right, batch, "s", pixels="valid", miou=convention)[0].eq(0).all()
        assert per_sample_errors(wrong, batch, "s", pixels="valid", miou=convention)[0].eq(100).all()


@pytest.mark.parametrize("seed", range(3))
def test_class_weights_keep_the_expected_loss_and_their_range_is_bounded(seed):
    shares = np.random.default_rng(seed).dirichlet(np.full(17, 0.3))
    weights = prior_class_weights(np.array([0, *shares])).double().numpy()
    assert weights[0] == 0
    assert shares @ weights[1:] == pytest.approx(1, rel=1e-6)
    assert np.array_equal(np.argsort(weights[1:]), np.argsort(-shares))
    # With one class everywhere the others weigh (1 - l + l/C) / (l/C) = C + 1 times as much, and no more is possible
    assert weights[1:].max() / weights[1:].min() < 18
    alone = prior_class_weights(np.eye(18)[1]).numpy()
    assert alone[2:] / alone[1] == pytest.approx(np.full(16, 18.0), rel=1e-6)
    assert alone[1] == pytest.approx(1)


def test_equally_frequent_classes_all_weigh_one():
    np.testing.assert_allclose(prior_class_weights(np.array([0, *[1 / 8] * 8])).numpy(), [0, *[1] * 8], rtol=1e-6)


def test_published_class_weights_come_out_of_the_frequencies_they_imply():
    # w_c = k / (p_c / 2 + 1 / 34) and sum p_c = 1 give k = 1 / sum(1 / w); the published ones are rounded to 0.001
    k = 1 / np.sum(1 / PUBLISHED_WEIGHTS)
    shares = np.clip(2 * (k / PUBLISHED_WEIGHTS - 1 / 34), 0, None)
    assert shares.sum() == pytest.approx(1, abs=1e-4)
    found = prior_class_weights(np.array([0, *shares])).numpy()
    np.testing.assert_allclose(found[1:], PUBLISHED_WEIGHTS, rtol=5e-3)


def test_a_split_without_labels_has_finite_class_weights():
    assert prior_class_weights(np.zeros(5)).isfinite().all()
