"""A universal perturbation on other people's pictures: real PNG and JPEG files through the program a user types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generated_jobs import make_generator_job
from headstrong import generated_files
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.generated_files import UniversalPerturbation, perturb_picture, read_perturbation, whole_numbers
from headstrong.provenance import ROOT, file_digest

HEIGHT, WIDTH, EPSILON = 12, 16, 10.0


def values_of(epsilon: float = EPSILON, norm: str = "linf", seed: int = 0) -> np.ndarray:
    """A perturbation on the surface of its ball."""
    values = np.random.default_rng(seed).normal(0, 1, (3, HEIGHT, WIDTH)).astype(np.float32)
    size = np.abs(values).max() if norm == "linf" else np.linalg.norm(values)
    return (values * np.float32(epsilon / size)).astype(np.float32)


def export(folder: Path, values: np.ndarray, **changes: object) -> Path:
    job = make_generator_job(tasks=("room",), epsilon=EPSILON / 255, **changes)
    generated_files.export_perturbations(folder, job, {"room": values})
    return folder / "room.npy"


def picture(seed: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """All of [0, 255], both ends included."""
    array = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    array[0, 0], array[-1, -1] = 0, 255
    return array


def apply(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "apply_perturbation.py"), *map(str, arguments)]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def refused(result: subprocess.CompletedProcess[str], code: int, *words: str) -> bool:
    assert result.returncode == code, result.stderr
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.startswith("error: ") and all(word in result.stderr for word in words)


def test_pictures_come_out_as_png_inside_the_ball(tmp_path):
    values = values_of()
    perturbation = export(tmp_path / "v", values)
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "one.png")
    Image.fromarray(picture(2)).save(tmp_path / "in" / "two.jpg")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    result = apply("--perturbation", perturbation, "--images", tmp_path / "in", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["one.png", "two.png"]
    record = json.loads((tmp_path / "out" / "apply_perturbation.json").read_text())
    assert record["outputs"] == {name: file_digest(tmp_path / "out" / name) for name in ("one.png", "two.png")}
    assert file_digest(perturbation) in record["inputs"].values()
    assert "2 pictures" in result.stdout
    for name in ("one.png", "two.jpg"):
        before = np.asarray(Image.open(tmp_path / "in" / name).convert("RGB")).astype(int)
        after = np.asarray(Image.open(tmp_path / "out" / f"{Path(name).stem}.png")).astype(int)
        # In each channel: the exact sum is between the picture and what came out, less than one step away.
        exact = np.clip(before + values.transpose(1, 2, 0).astype(np.float64), 0, 255)
        assert np.abs(after - before).max() <= EPSILON
        assert (np.abs(after - exact) < 1).all()
        assert (np.abs(after - before) <= np.abs(exact - before) + 1e-3).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.4, 2.5, 8.0, 300.0])
def test_whole_numbers_never_leave_the_ball(norm, epsilon):
    found = whole_numbers(UniversalPerturbation(values_of(epsilon, norm), norm, epsilon / 255))
    size = np.abs(found).max() if norm == "linf" else np.linalg.norm(found)
    assert size <= epsilon


def test_a_radius_that_float32_just_missed_is_still_reached():
    values = np.full((3, 4, 4), np.nextafter(np.float32(10), np.float32(0)), np.float32)
    values[0] *= -1
    found = whole_numbers(UniversalPerturbation(values, "linf", 10 / 255))
    np.testing.assert_array_equal(found, np.sign(values) * 10)
    over = UniversalPerturbation(np.nextafter(values, values * 2), "linf", 9.9999 / 255)
    assert np.abs(whole_numbers(over)).max() == 9


def test_black_and_white_stay_in_range():
    perturbation = UniversalPerturbation(np.full((3, 4, 4), -7.9, np.float32), "linf", 8 / 255)
    assert (perturb_picture(np.zeros((4, 4, 3), np.uint8), perturbation) == 0).all()
    assert (perturb_picture(np.full((4, 4, 3), 255, np.uint8), perturbation) == 248).all()


def test_the_order_of_axes_and_channels():
    values = np.zeros((3, HEIGHT, WIDTH), np.float32)
    values[0, 2, 5], values[2, 7, 1] = 9, -4
    change = perturb_picture(np.full((HEIGHT, WIDTH, 3), 100, np.uint8), UniversalPerturbation(values, "linf", 9 / 255))
    assert change[2, 5].tolist() == [109, 100, 100]
    assert change[7, 1].tolist() == [100, 100, 96]
    assert (change != 100).sum() == 2


def test_sizes_that_differ_are_refused_or_fitted(tmp_path):
    perturbation = export(tmp_path / "v", values_of())
    large = picture(3, (30, 40))
    Image.fromarray(large).save(tmp_path / "large.png")
    call = ["--perturbation", perturbation, "--images", tmp_path / "large.png", "--output", tmp_path / "out"]
    assert refused(apply(*call), 2, "large.png", "30x40", "12x16", "--resize", "--tile")
    assert not (tmp_path / "out").exists()
    assert apply(*call, "--tile").returncode == 0
    tiled = np.asarray(Image.open(tmp_path / "out" / "large.png"))
    patch = perturb_picture(large[12:24, 16:32], read_perturbation(perturbation))
    np.testing.assert_array_equal(tiled[12:24, 16:32], patch)
    assert tiled.shape == large.shape
    assert np.abs(tiled.astype(int) - large).max() <= EPSILON
    assert apply(*call, "--resize").returncode == 0
    assert np.asarray(Image.open(tmp_path / "out" / "large.png")).shape == (HEIGHT, WIDTH, 3)


def test_copies_of_an_l2_perturbation_are_refused_but_a_piece_is_not(tmp_path):
    perturbation = read_perturbation(export(tmp_path, values_of(norm="l2"), norm="l2"))
    with pytest.raises(ConfigError, match="L2 ball"):
        perturb_picture(picture(3, (30, 40)), perturbation, tile=True)
    piece = picture(3, (5, 6))
    changed = perturb_picture(piece, perturbation, tile=True)
    assert np.linalg.norm(changed.astype(float) - piece) <= EPSILON


def test_transparency_and_kinds_of_picture(tmp_path):
    perturbation = export(tmp_path / "v", values_of())
    (tmp_path / "in").mkdir()
    colours, clear = picture(), np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    Image.fromarray(np.dstack([colours, clear])).save(tmp_path / "in" / "clear.png")
    Image.fromarray(colours[..., 0]).save(tmp_path / "in" / "grey.png")
    Image.fromarray(colours).quantize(16).save(tmp_path / "in" / "palette.png")
    turned = Image.fromarray(np.rot90(colours))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    turned.save(tmp_path / "in" / "turned.png", exif=exif)
    result = apply("--perturbation", perturbation, "--images", tmp_path / "in", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    out = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*.png")}
    expected = perturb_picture(colours, read_perturbation(perturbation))
    np.testing.assert_array_equal(out["clear"], np.dstack([expected, clear]))
    np.testing.assert_array_equal(out["turned"], expected)
    assert out["grey"].shape == out["palette"].shape == (HEIGHT, WIDTH, 3)


def test_unreadable_pictures_are_one_line(tmp_path):
    perturbation = export(tmp_path / "v", values_of())
    whole = tmp_path / "whole.png"
    Image.fromarray(picture()).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-40])
    (tmp_path / "fake.png").write_text("no picture")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "empty").mkdir()
    for name, code, word in (
        ("cut.png", 4, "cannot be read"),
        ("fake.png", 4, "cannot be read"),
        ("deep.png", 4, "8 bits"),
        ("absent.png", 3, "no such picture"),
        ("empty", 3, "no pictures"),
    ):
        result = apply("--perturbation", perturbation, "--images", tmp_path / name, "--output", tmp_path / "out")
        assert refused(result, code, name, word)
    assert not (tmp_path / "out").exists()


def test_originals_are_never_overwritten_and_no_two_pictures_become_one(tmp_path):
    perturbation = export(tmp_path / "v", values_of())
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "a.png")
    before = (tmp_path / "in" / "a.png").read_bytes()
    call = ["--perturbation", perturbation, "--images", tmp_path / "in", "--output"]
    assert refused(apply(*call, tmp_path / "in"), 2, "a.png", "--output")
    assert (tmp_path / "in" / "a.png").read_bytes() == before
    Image.fromarray(picture()).save(tmp_path / "in" / "a.jpg")
    assert refused(apply(*call, tmp_path / "out"), 2, "a.jpg", "a.png", "rename")


def test_a_perturbation_that_is_none_is_refused(tmp_path):
    path = export(tmp_path, values_of())
    assert read_perturbation(path).epsilon == EPSILON / 255
    assert json.loads((tmp_path / "perturbation.json").read_text())["size"] == [HEIGHT, WIDTH]
    with pytest.raises(MissingDataError, match=r"absent\.npy"):
        read_perturbation(tmp_path / "absent.npy")
    for name, array in (
        ("large", values_of(EPSILON + 1)),
        ("flat", values_of()[0]),
        ("words", np.full((3, 4, 4), "x")),
        ("nan", np.full((3, 4, 4), np.nan)),
        ("objects", np.full((3, 4, 4), None)),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(BrokenFileError, match=f"{name}.npy"):
            read_perturbation(tmp_path / f"{name}.npy")
    path.with_name("perturbation.json").write_text('{"norm": "l7", "epsilon": "3/255"}')
    with pytest.raises(BrokenFileError, match=r"perturbation\.json"):
        read_perturbation(path)
    path.with_name("perturbation.json").unlink()
    alone = read_perturbation(path)
    assert (alone.norm, alone.epsilon) == ("linf", float(np.abs(values_of()).max()) / 255)


def test_a_description_of_the_first_format_has_its_radius_on_the_scale_of_the_values(tmp_path):
    path = export(tmp_path, values_of())
    description = json.loads((tmp_path / "perturbation.json").read_text())
    assert description["epsilon"] == "10/255"
    old = {**description, "format": "headstrong-perturbation-1", "epsilon": EPSILON}
    (tmp_path / "perturbation.json").write_text(json.dumps(old))
    assert read_perturbation(path).epsilon == EPSILON / 255


def test_exports_read_back_and_have_equal_bytes(tmp_path):
    values = values_of()
    first, second = export(tmp_path / "a", values), export(tmp_path / "b", values)
    np.testing.assert_array_equal(read_perturbation(first).values, values)
    for name in ("room.npy", "room.png", "perturbation.json"):
        assert (first.with_name(name)).read_bytes() == (second.with_name(name)).read_bytes()
    seen = np.asarray(Image.open(first.with_suffix(".png"))).astype(int) - 128
    assert np.abs(seen).max() == 127
    np.testing.assert_allclose(seen.transpose(2, 0, 1) / 127, values / np.abs(values).max(), atol=0.5 / 127)
