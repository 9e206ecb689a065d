"""The curvature targets read as grey, as the released loader does; read as they are, nothing changes."""

import numpy as np
import pytest
import torch
from PIL import Image

from headstrong import training
from headstrong.data import rooms
from headstrong.data.batches import Batches
from headstrong.data.build import build_split
from headstrong.data.cache import SplitFile
from headstrong.data.curvature import read_as_grey
from headstrong.errors import ConfigError
from headstrong.tasks import CURVATURE_MEAN, CURVATURE_STD, encode
from training_runs import history_of, job_with, run

COUNT, SIZE, SEED = 4, (32, 64), 5
SETTINGS = {"source": "rooms", "split": "train", "size": list(SIZE), "count": COUNT, "antialias": 1, "seed": SEED}
RANGES = ((-3.871, -3.840), (-5.545, -5.499))  # of the released loader, on any image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("rooms") / "train.h5"
    build_split(SETTINGS, path, code="test")
    return path


def released(raw):
    """Targets (2, H, W) by the way the released loader went: a colour image of bytes, an image library's grey."""
    channels = [encode("p", raw)[c] * CURVATURE_STD[c] + CURVATURE_MEAN[c] for c in range(2)]
    image = np.stack([*np.rint(channels), np.zeros_like(channels[0])], axis=-1).astype(np.uint8)
    grey = np.asarray(Image.fromarray(image).convert("L")) / 255
    return np.stack([(grey - CURVATURE_MEAN[c]) / CURVATURE_STD[c] for c in range(2)])


def test_both_channels_of_rooms_lie_in_the_published_ranges(data):
    target = Batches(data, "p", "cpu", curvature="grey").get(range(COUNT)).targets["p"]
    assert (target.shape, target.dtype) == ((COUNT, 2, *SIZE), torch.float32)
    for channel, (low, high) in enumerate(RANGES):
        assert low <= target[:, channel].min() < target[:, channel].max() <= high


def test_black_and_the_brightest_curvature_are_at_the_ends_of_the_ranges():
    ends = torch.tensor([[[-1e9, 1e9]], [[-1e9, 1e9]]]).numpy()
    first, second = read_as_grey(*encode("p", ends))
    brightest = 0.299 + 0.587
    assert first[0].tolist() == pytest.approx([-123.572 / 31.922, (brightest - 123.572) / 31.922], abs=1e-5)
    assert second[0].tolist() == pytest.approx([-120.1 / 21.658, (brightest - 120.1) / 21.658], abs=1e-5)


def test_the_targets_are_those_of_a_grey_image_file_within_its_rounding(data):
    found = Batches(data, "p", "cpu", curvature="grey").get(range(COUNT)).targets["p"]
    truth = [released(raw["p"]) for _, raw in rooms.samples(SEED, "train", COUNT, SIZE, 1, 1)]
    # The file rounds colours to bytes, and grey to a byte once more: at most one level of grey in all.
    for channel in range(2):
        difference = np.abs(found[:, channel].numpy() - np.stack(truth)[:, channel])
        assert difference.max() <= 1.0 / 255 / CURVATURE_STD[channel] + 1e-6


def test_decoded_targets_and_other_tasks_do_not_change(data):
    letters = "sdnpA"
    plain, decoded, grey = (
        Batches(data, letters, "cpu", **options).get([2, 0])
        for options in ({}, {"curvature": "decoded"}, {"curvature": "grey"})
    )
    with SplitFile(data) as split:
        stored = torch.from_numpy(split.read_target("p", [2, 0]))
    torch.testing.assert_close(plain.targets["p"], stored, rtol=0, atol=2e-6)
    for letter in letters:
        assert torch.equal(plain.targets[letter], decoded.targets[letter])
        assert torch.equal(plain.masks[letter], grey.masks[letter])
        assert torch.equal(plain.targets[letter], grey.targets[letter]) == (letter != "p")


def test_resident_and_streamed_grey_targets_are_equal_bit_for_bit(data):
    resident, streamed = (Batches(data, "p", "cpu", memory_bytes=size, curvature="grey") for size in (1 << 30, 0))
    assert (resident.resident, streamed.resident) == (True, False)
    assert torch.equal(resident.get([3, 1]).targets["p"], streamed.get([3, 1]).targets["p"])
    streamed.close()


def test_the_mean_of_the_targets_becomes_the_mean_of_the_grey_ones():
    targets = np.random.default_rng(0).normal(size=(2, 1000))
    means = [channel.mean() for channel in read_as_grey(*targets)]
    assert list(read_as_grey(*targets.mean(axis=1).tolist())) == pytest.approx(means, abs=1e-12)


@pytest.mark.parametrize("curvature", ["decoded", "grey"])
@pytest.mark.parametrize("pixels", ["all", "valid"])
def test_a_network_that_starts_at_the_mean_starts_at_the_mean_of_what_it_trains_on(tmp_path, data, curvature, pixels):
    """At learning rate 0 its loss is the mean absolute deviation of the targets."""
    job = job_with(
        tasks="p", weights=(1.0,), output_start="mean", curvature=curvature, loss_pixels=pixels, learning_rate=0.0,
        batch_size=COUNT, epochs=1,
    )  # fmt: skip
    run(tmp_path, job, data)
    batch = Batches(data, "p", "cpu", curvature=curvature).get(range(COUNT))
    target, mask = batch.targets["p"].double().numpy(), batch.masks["p"].numpy()
    counted = mask if pixels == "valid" else np.ones_like(mask)
    mean = np.sum(target, axis=(0, 2, 3), where=counted, keepdims=True) / counted.sum()
    size = mask.sum(axis=(1, 2, 3)) if pixels == "valid" else np.full(COUNT, mask[0].size)
    losses = np.sum(np.abs(target - mean).mean(axis=1, keepdims=True), axis=(1, 2, 3), where=mask) / size
    rounding = 1e-6  # of single floats near -5.5, where grey targets lie
    assert history_of(tmp_path)[0]["loss_p"] == pytest.approx(losses.mean(), rel=1e-3, abs=rounding)


def test_a_network_learns_from_the_targets_of_its_job(tmp_path, data):
    found = {}
    for curvature in ("decoded", "grey"):
        job = job_with(tasks="p", weights=(1.0,), curvature=curvature, epochs=1)
        run(tmp_path / curvature, job, data)
        model = training.model_for(job, 0).train()
        batch = Batches(data, "p", "cpu", curvature=curvature).get(training.epoch_order(job, 0, COUNT))
        expected = training.training_losses(job, model, batch, None).detach().mean().item()
        found[curvature] = history_of(tmp_path / curvature)[0]["loss_p"]
        assert found[curvature] == pytest.approx(expected, rel=1e-4)
    assert found["grey"] != found["decoded"]


def test_an_unknown_reading_is_refused_in_one_line(data):
    with pytest.raises(ConfigError, match="curvature 'rgb' is unknown; choose decoded or grey") as caught:
        Batches(data, "p", "cpu", curvature="rgb")
    assert "\n" not in str(caught.value)
