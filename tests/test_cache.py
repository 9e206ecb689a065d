"""The cache file: round trip within half a step, equal bytes, checks before use; batches resident and from the file."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch

from damaged_files import check_cuts, count_noticed
from headstrong import tasks
from headstrong.data import cache
from headstrong.data.batches import Batches
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError

SIZE = (12, 16)
CLASSES = ["unlabelled", "wall", "floor", "chair"]


def raw_sample(seed: int, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """A random raw sample with every range filled and a hole in the depth."""
    rng = np.random.default_rng(seed)
    H, W = size
    depth = rng.uniform(0.3, 10, (H, W)).astype(np.float32)
    depth[: H // 4, : W // 4] = 0
    normals = rng.normal(size=(3, H, W))
    return {
        "rgb": rng.integers(0, 256, (3, H, W), dtype=np.uint8),
        "s": rng.integers(0, len(CLASSES), (H, W), dtype=np.uint8),
        "d": depth,
        "D": depth * np.float32(1.1),
        "n": (normals / np.linalg.norm(normals, axis=0)).astype(np.float32),
        "p": rng.normal(0, 30, (2, H, W)).astype(np.float32),
        "k": rng.uniform(0, 0.01, (H, W)).astype(np.float32),
        "K": rng.uniform(0, 1, (H, W)).astype(np.float32),
        "e": rng.uniform(0, 0.2, (H, W)).astype(np.float32),
        "E": rng.uniform(0, 0.05, (H, W)).astype(np.float32),
        "r": rng.uniform(0, 1, (H, W)).astype(np.float32),
    }


def write(path, count=7, **changed):
    settings = {"seed": 3, "size": list(SIZE)}
    known = {"count": count, "size": SIZE, "dataset": "rooms", "split": "train", "classes": CLASSES}
    known |= {"settings": settings, "code": "0123"} | changed
    cache.write_split(path, ((f"frame {i}", raw_sample(i)) for i in range(count)), **known)
    return path


@pytest.fixture(scope="module")
def split_path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("cache") / "train.h5")


def test_round_trip_is_within_half_a_step(split_path):
    with cache.SplitFile(split_path) as split:
        assert (split.count, split.size, split.classes) == (7, SIZE, CLASSES)
        assert (split.dataset, split.split, split.settings) == ("rooms", "train", {"seed": 3, "size": list(SIZE)})
        assert split.names == [f"frame {i}" for i in range(7)]
        for i in range(7):
            raw = raw_sample(i)
            assert np.array_equal(split.read_images([i])[0], raw["rgb"])
            assert np.array_equal(split.read_target("s", [i])[0], raw["s"])
            assert np.array_equal(split.read_valid([i])[0], raw["d"] > 0)
            for letter in cache.STORED[1:]:
                task = tasks.TASKS[letter]
                found = split.read_target(letter, [i])[0]
                half_a_step = (task.high - task.low) / (2 * cache.LEVELS)
                assert found.dtype == np.float32
                assert np.abs(found - tasks.encode(letter, raw[letter])).max() <= half_a_step + 1e-6
            assert np.array_equal(split.read_target("A", [i])[0], tasks.encode("A", raw["rgb"]))


def test_codes_are_exact_at_both_ends_and_invert_every_code():
    for task in (tasks.TASKS[letter] for letter in cache.STORED[1:]):
        codes = np.arange(cache.LEVELS + 1, dtype=np.uint16)
        values = cache.from_codes(codes, task.low, task.high)
        assert (values[0], values[-1]) == (np.float32(task.low), np.float32(task.high))
        assert np.array_equal(cache.to_codes(values, task.low, task.high), codes)


def test_indices_come_in_any_order_and_more_than_once(split_path):
    wanted = [5, 0, 1, 2, 5, 6, 0]
    with cache.SplitFile(split_path) as split:
        images = split.read_images(wanted)
        assert np.array_equal(images, np.stack([raw_sample(i)["rgb"] for i in wanted]))
        one_by_one = np.concatenate([split.read_target("n", [i]) for i in wanted])
        assert np.array_equal(split.read_target("n", np.array(wanted)), one_by_one)
        assert split.read_images([]).shape == (0, 3, *SIZE)
        with pytest.raises(IndexError, match="7"):
            split.read_images([0, 7])
        with pytest.raises(IndexError):
            split.read_target("d", [-1])


def test_equal_content_gives_equal_bytes(split_path, tmp_path):
    again = write(tmp_path / "other name.h5")
    assert again.read_bytes() == split_path.read_bytes()
    with h5py.File(again) as file:
        things = [file, file["targets"], *(file[name] for name in ("rgb", "valid", "index", "targets/n"))]
        times = [h5py.h5o.get_info(thing.id) for thing in things]
    assert {(info.atime, info.btime, info.ctime, info.mtime) for info in times} == {(0, 0, 0, 0)}
    assert write(tmp_path / "changed.h5", settings={"seed": 4}).read_bytes() != split_path.read_bytes()


def test_any_hdf5_program_can_read_the_file(split_path):
    with h5py.File(split_path) as file:
        assert set(file["targets"]) == set(tasks.TASKS) - {"A"}
        builtin = {"gzip", "lzf", None}
        for data in (file["rgb"], file["valid"], *file["targets"].values()):
            assert data.compression in builtin
            assert data.chunks == (1, *data.shape[1:])
        attributes = dict(file["targets/p"].attrs)
        codes = file["targets/p"][0].astype(np.float64)
    decoded = attributes["low"] + (attributes["high"] - attributes["low"]) * codes / 65535
    assert np.abs(decoded - tasks.encode("p", raw_sample(0)["p"])).max() < 1.1e-4


def test_a_file_cut_anywhere_is_refused_with_its_name(split_path, tmp_path):
    check_cuts(split_path, tmp_path, cache.SplitFile, "delete it")


def test_damage_inside_is_noticed_or_harmless(split_path, tmp_path):
    """A byte turned over gives BrokenFileError or the same images and labels; never other ones."""

    def read(path):
        with cache.SplitFile(path) as split:
            labels = [split.read_target(letter, range(7)) for letter in "sEn"]
            told = [split.names, split.classes, sorted(split.settings), split.dataset, split.code]
            return [split.read_images(range(7)), split.read_valid(range(7)), *labels, *told]

    assert count_noticed(split_path, tmp_path, read, 600) > 100


def test_a_letter_changed_in_names_or_attributes_is_noticed(split_path, tmp_path):
    whole = split_path.read_bytes()
    damaged = tmp_path / "damaged.h5"
    for text in (b"frame 3", b"floor", b'"seed": 3', b"rooms", b"0123"):
        for position in range(whole.index(text), whole.index(text) + len(text)):
            changed = bytearray(whole)
            changed[position] ^= 0x01
            damaged.write_bytes(changed)
            with pytest.raises(BrokenFileError, match=r"damaged\.h5"):
                cache.SplitFile(damaged)


def test_every_chunk_has_gone_through_every_filter(split_path):
    """HDF5 may leave a filter out of a chunk that it does not make smaller, and its checksum with it."""
    with h5py.File(split_path) as file:
        for data in (file["rgb"], file["valid"], *file["targets"].values()):
            masks = {data.id.get_chunk_info(number).filter_mask for number in range(data.id.get_num_chunks())}
            assert (masks, data.id.get_num_chunks()) == ({0}, 7)


def test_foreign_and_unfinished_files_are_refused(split_path, tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("not HDF5 at all\n" * 100)
    with pytest.raises(BrokenFileError, match=r"text\.h5"):
        cache.SplitFile(text)
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["rgb"] = np.zeros((2, 3, 4, 4))
    with pytest.raises(BrokenFileError, match=r"foreign\.h5: not a data cache"):
        cache.SplitFile(foreign)
    unfinished = tmp_path / "unfinished.h5"
    shutil.copy(split_path, unfinished)
    with h5py.File(unfinished, "a") as file:
        del file.attrs["complete"]
    with pytest.raises(BrokenFileError, match=r"unfinished\.h5: not written to the end"):
        cache.SplitFile(unfinished)
    thinner = tmp_path / "thinner.h5"
    shutil.copy(split_path, thinner)
    with h5py.File(thinner, "a") as file:
        del file["targets/n"]
    with pytest.raises(BrokenFileError, match=r"thinner\.h5"):
        cache.SplitFile(thinner)
    with pytest.raises(MissingDataError, match=r"absent\.h5"):
        cache.SplitFile(tmp_path / "absent.h5")


def test_a_failing_source_leaves_nothing_behind(tmp_path):
    def failing():
        yield "a", raw_sample(0)
        raise RuntimeError("the camera fell over")

    place = {"size": SIZE, "dataset": "x", "split": "test", "classes": CLASSES, "settings": {}, "code": ""}
    with pytest.raises(RuntimeError):
        cache.write_split(tmp_path / "a.h5", failing(), count=2, **place)
    for count in (1, 3):
        samples = iter([("a", raw_sample(0)), ("b", raw_sample(1))])
        with pytest.raises(ValueError, match=str(count)):
            cache.write_split(tmp_path / "a.h5", samples, count=count, **place)
    broken = {"s": np.full(SIZE, 4, np.uint8), "n": np.full((3, *SIZE), np.nan), "d": np.zeros((2, 2))}
    for letter, value in broken.items():
        with pytest.raises(ValueError, match="sample b"):
            cache.write_split(tmp_path / "a.h5", iter([("b", raw_sample(0) | {letter: value})]), count=1, **place)
    unlabelled = {key: value for key, value in raw_sample(0).items() if key != "r"}
    with pytest.raises(ConfigError, match=r"sample b: no label of task 'r': .* no recipe for it in .*labels\.py; add"):
        cache.write_split(tmp_path / "a.h5", iter([("b", unlabelled)]), count=1, **place)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_ten_plain_lines_when_nobody_watches(tmp_path, capfd):
    write(tmp_path / "a.h5", count=20)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("rooms train: 20 of 20 frames")


def test_class_frequencies_count_labelled_pixels(split_path):
    labels = np.stack([raw_sample(i)["s"] for i in range(7)])
    counts = np.bincount(labels[labels > 0], minlength=4)
    assert np.allclose(cache.class_frequencies(split_path), counts / counts.sum(), rtol=0, atol=1e-15)
    assert cache.class_frequencies(split_path)[0] == 0


def test_batches_give_what_the_file_holds(split_path):
    letters = "".join(tasks.TASKS)
    batches = Batches(split_path, letters, "cpu")
    assert batches.resident
    assert (batches.count, batches.size, batches.classes) == (7, SIZE, CLASSES)
    wanted = [6, 2, 2, 0]
    batch = batches.get(torch.tensor(wanted))
    with cache.SplitFile(split_path) as split:
        assert torch.equal(batch.index, torch.tensor(wanted))
        assert torch.equal(batch.images, torch.from_numpy(split.read_images(wanted)).float() / 255)
        for letter in letters:
            expected = torch.from_numpy(split.read_target(letter, wanted))
            if letter == "s":
                assert batch.targets["s"].dtype == torch.long
                assert torch.equal(batch.targets["s"], expected.long())
            else:
                torch.testing.assert_close(batch.targets[letter], expected, rtol=0, atol=2e-6)
        valid = torch.from_numpy(split.read_valid(wanted))[:, None]
    for letter in letters:
        mask = batch.masks[letter]
        assert (mask.dtype, mask.shape) == (torch.bool, (4, 1, *SIZE))
        kind = tasks.TASKS[letter].mask
        expected = {"depth": valid, "label": batch.targets["s"][:, None] > 0, "none": torch.ones_like(valid)}[kind]
        assert torch.equal(mask, expected)


@pytest.mark.parametrize("letters", ["s", "A", "ke", "sdn", "pErA"])
def test_resident_and_streamed_batches_are_equal_bit_for_bit(split_path, letters):
    resident = Batches(split_path, letters, "cpu")
    streamed = Batches(split_path, letters, "cpu", memory_bytes=0)
    assert (resident.resident, streamed.resident) == (True, False)
    one, other = resident.get([3, 1, 1, 4]), streamed.get([3, 1, 1, 4])
    assert torch.equal(one.images, other.images)
    assert list(one.targets) == list(one.masks) == list(letters)
    for letter in letters:
        assert torch.equal(one.targets[letter], other.targets[letter])
        assert torch.equal(one.masks[letter], other.masks[letter])
    streamed.close()


def test_limit_keeps_the_first_of_samples_that_a_seed_made(split_path):
    batches = Batches(split_path, "sd", "cpu", limit=3)
    assert batches.count == 3
    assert torch.equal(batches.get([2]).images, Batches(split_path, "sd", "cpu").get([2]).images)
    with pytest.raises(IndexError):
        batches.get([3])
    assert Batches(split_path, "sd", "cpu", limit=99).count == 7


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_limit_spreads_over_the_whole_of_a_data_set(tmp_path, memory):
    path = write(tmp_path / "whole.h5", count=12, settings={"count": None})
    few, whole = (Batches(path, "sd", "cpu", limit=limit, memory_bytes=memory) for limit in (4, None))
    rows = few.get(range(4)).index
    assert rows.tolist() == few.rows.tolist() != [0, 1, 2, 3]
    assert (rows // 3).tolist() == [0, 1, 2, 3]
    for one, other in ((few.get([3, 0]), whole.get(rows[[3, 0]])),):
        assert torch.equal(one.images, other.images)
        assert all(torch.equal(one.targets[letter], other.targets[letter]) for letter in "sd")
        assert one.index.tolist() == other.index.tolist()
    with cache.SplitFile(path, 4) as split:
        assert (split.count, split.names) == (4, [f"frame {row}" for row in rows])
        assert np.array_equal(split.read_images([1])[0], raw_sample(int(rows[1]))["rgb"])


def test_a_batch_moves_to_a_device_as_a_whole(split_path):
    moved = Batches(split_path, "sd", "cpu").get([0]).to("meta")
    tensors = [moved.index, moved.images, *moved.targets.values(), *moved.masks.values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
