"""Tables of important classes: known files give known numbers."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

import importance_files as made
from headstrong.analysis import camri_table, importance, importance_settings, stats
from headstrong.analysis.importance_records import read_study
from headstrong.errors import BrokenFileError, MissingDataError
from importance_files import Trial
from synthetic import one

SCRIPT = Path(__file__).parents[1] / "scripts" / "collect_importance.py"
ABC = ("a", "b", "c")
TRUTH = np.array([0, 0, 0, 1, 1, 2, 2, 2])
# Degrees: within class a 10, 20, 30 (mean 20, variance 100), b 40, 44 (42, 8), c 60, 60, 66 (62, 12).
ANGLES = np.array([10.0, 20, 30, 40, 44, 60, 60, 66])
PREDICTED = np.array([0, 0, 1, 1, 2, 2, 2, 0])


def small(path: Path, trials: list[Trial], predicted: list[np.ndarray], **other: object) -> Path:
    """Three classes, eight test pictures; the angles of ANGLES."""
    found = [(trial, {"test": (values, np.radians(ANGLES))}) for trial, values in zip(trials, predicted, strict=True)]
    fields: dict[str, object] = {"classes": ABC, "important": {"worst1": ("a",)}, **other}
    return made.write_file(path, found, {"test": TRUTH}, **fields)  # type: ignore[arg-type]


def with_right(count: int) -> np.ndarray:
    """Predictions of which the first so many pictures are right, all others wrong."""
    return np.where(np.arange(8) < count, TRUTH, (TRUTH + 1) % 3)


def settings_of(path: Path) -> pd.DataFrame:
    return importance_settings.build_table(importance.build_table([path]), importance.tolerances([path]))


def test_measures_by_hand(tmp_path: Path) -> None:
    important = {"worst1": ("a",), "both": ("a", "b"), "all": ABC}
    path = small(tmp_path / "small.h5", [Trial("ce", 3)], [PREDICTED], important=important)
    table = importance.build_table([path])
    assert list(table.columns) == list(importance.COLUMNS)
    assert list(table["important"]) == ["worst1", "both", "all"]  # the loss counts for every key
    row = one(table, important="worst1")
    assert (row["trial"], row["split"], row["classes"], row["pictures_important"], row["pictures"]) == (
        3, "test", "a", 3, 8,
    )  # fmt: skip
    assert row["recall"] == pytest.approx(100 * 2 / 3)
    assert row["accuracy"] == pytest.approx(100 * 5 / 8)
    measured = [row[name] for name in ("angle_mean", "angle_mean_others", "angle_variance", "angle_variance_others")]
    assert measured == pytest.approx([20, 52, 100, 10], rel=1e-5)  # stored as float32
    row = one(table, important="both")
    assert row["classes"] == "a; b"
    assert row["recall"] == pytest.approx(100 * 3 / 5)  # of the pictures, not the mean of the classes' recalls
    assert [row["angle_variance"], row["angle_variance_others"]] == pytest.approx([54, 12], rel=1e-5)
    assert math.isnan(one(table, important="all")["angle_variance_others"])


def test_a_class_without_pictures_has_no_recall_and_one_picture_no_variance() -> None:
    truth, angle = np.array([0, 1, 1]), np.array([10.0, 20, 26])
    found = importance.measures(truth, truth, angle, np.array([False, False, True]))
    assert math.isnan(found["recall"])
    assert math.isnan(found["angle_mean"])
    assert math.isnan(found["angle_variance"])
    assert found["pictures_important"] == 0
    assert found["accuracy"] == 100
    assert found["angle_mean_others"] == pytest.approx((10 + 23) / 2)
    assert found["angle_variance_others"] == pytest.approx(18)  # of the second class alone


def test_losses_without_an_important_class_count_for_every_key(tmp_path: Path) -> None:
    table = importance.build_table([made.write_evaluation(tmp_path / "objects.h5", pictures=4)])
    per_setting = made.TRIALS * len(made.SPLITS)
    counts = table.groupby(["important", "loss"], sort=False).size().unstack()
    assert counts.loc["worst1"].to_dict() == {
        "camri": 4 * per_setting,
        "arcface": 4 * per_setting,
        "softmax": 2 * per_setting,
        "crwwce": 2 * per_setting,
        "wce": 2 * per_setting,
        "ce": per_setting,
    }
    assert (counts == counts.loc["worst1"]).all(axis=None)
    same = table.loc[table["loss"].eq("ce") & table["split"].eq("test")].set_index(["important", "trial"])
    assert same.loc["worst1", "accuracy"].equals(same.loc["median", "accuracy"])
    assert not same.loc["worst1", "recall"].equals(same.loc["median", "recall"])
    assert table["pictures_important"].eq(4).all()


def test_settings_agree_with_scipy(tmp_path: Path) -> None:
    path = made.write_evaluation(tmp_path / "objects.h5")
    rows = importance.build_table([path])
    settings = settings_of(path)
    assert list(settings.columns) == list(importance_settings.COLUMNS)
    assert settings["trials"].eq(made.TRIALS).all()
    place = {"important": "worst2", "split": "validation"}
    for setting in ({"loss": "camri", "margin": 8.0, "scale": 16.0}, {"loss": "crwwce", "weight": 8.0}):
        mine = rows.loc[np.logical_and.reduce([rows[name].eq(value) for name, value in {**place, **setting}.items()])]
        base = rows.loc[rows["loss"].eq("ce") & rows["important"].eq("worst2") & rows["split"].eq("validation")]
        row = one(settings, **place, **setting)
        for name in ("recall", "accuracy"):
            values, before = mine[name].to_numpy(), base[name].to_numpy()
            interval = student.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
            assert [row[name], row[f"{name}_low"], row[f"{name}_high"]] == pytest.approx([values.mean(), *interval])
            test = ttest_rel(values, before)
            gain = [row[f"{name}_gain{end}"] for end in ("", "_low", "_high", "_p")]
            assert gain == pytest.approx([np.mean(values - before), *test.confidence_interval(), test.pvalue])
        ratio = (mine["angle_variance"] / mine["angle_variance_others"]).to_numpy()
        interval = student.interval(0.95, 4, ratio.mean(), ratio.std(ddof=1) / np.sqrt(5))
        assert [row["angle_ratio"], row["angle_ratio_low"], row["angle_ratio_high"]] == pytest.approx(
            [ratio.mean(), *interval]
        )
        assert row["angle_variance"] == pytest.approx(mine["angle_variance"].mean())
    base_rows = settings.loc[settings["loss"].eq("ce")]
    assert base_rows["recall_gain"].isna().all()
    assert base_rows["accuracy_gain_p"].isna().all()
    assert base_rows["keeps_accuracy"].all()
    assert one(settings, loss="camri", margin=8.0, scale=8.0, important="worst1", split="test")["angle_ratio"] < 0.6
    assert not settings.loc[settings["loss"].eq("crwwce"), "keeps_accuracy"].any()


def test_intervals_and_paired_gains_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, error 1 / sqrt 3, t with 2 degrees of freedom 4.30265.
    gain = stats.paired_gain([10, 20, 30], [11, 22, 33])
    half = 4.302652729911275 / math.sqrt(3)
    assert tuple(gain) == pytest.approx((2, 2 - half, 2 + half, 0.07417990022744853, 3))
    assert tuple(stats.mean_interval([1, 2, 3])) == pytest.approx((2, 2 - half, 2 + half, 3))
    assert tuple(stats.mean_interval([5, 5, 5])) == (5, 5, 5, 3)
    # Recalls of 0, 100 and 100 %: an interval of bounded quantities ends at their bounds.
    assert tuple(stats.mean_interval([0, 100, 100], 0.0, 100.0)) == pytest.approx((200 / 3, 0, 100, 3))
    assert stats.paired_gain([0, 0], [0, 100], 100.0)[1:3] == (-100, 100)
    assert tuple(stats.paired_gain([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))[3:] == (0, 3)  # equal but for rounding
    assert stats.paired_gain([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]).low == pytest.approx(0.3)
    same = stats.paired_gain([1, 2, 3], [1, 2, 3])
    assert same[:3] == (0, 0, 0)
    assert math.isnan(same.p_value)


def test_one_sample_none_and_a_sample_without_a_number_have_no_interval() -> None:
    alone = stats.paired_gain([10], [12])
    assert (alone.value, alone.n) == (2, 1)
    assert all(math.isnan(value) for value in alone[1:4])
    assert stats.mean_interval([4]).value == 4
    assert all(math.isnan(value) for value in stats.mean_interval([4])[1:3])
    assert stats.mean_interval([]).n == stats.paired_gain([], []).n == 0
    assert all(math.isnan(value) for value in stats.paired_gain([], [])[:4])
    assert all(math.isnan(value) for value in stats.mean_interval([1, math.nan, 3])[:3])
    assert all(math.isnan(value) for value in stats.paired_gain([1, math.nan, 3], [2, 3, 5])[:4])


def test_trials_are_paired_over_those_that_both_have(tmp_path: Path) -> None:
    trials = [Trial("ce", 0), Trial("ce", 1), Trial("ce", 2)]
    trials += [Trial("wce", number, "worst1", weight=2.0) for number in (1, 2, 3)]
    trials += [Trial("wce", 2, "worst1", weight=4.0), Trial("wce", 7, "worst1", weight=8.0)]
    predicted = [with_right(count) for count in (0, 2, 5, 3, 8, 8, 6, 8)]
    settings = settings_of(small(tmp_path / "small.h5", trials, predicted))
    row = one(settings, loss="wce", weight=2.0)
    # Trials 1 and 2 alone: 3 - 2 and 8 - 5 of eight; trial 3 would make the mean accuracy larger.
    assert row["trials"] == 2
    assert row["accuracy"] == pytest.approx(100 * 11 / 16)
    assert row["accuracy_gain"] == pytest.approx(100 * 2 / 8)
    assert row["accuracy_gain_p"] == pytest.approx(ttest_rel([3, 8], [2, 5]).pvalue)
    assert one(settings, loss="ce")["trials"] == 3
    alone = one(settings, loss="wce", weight=4.0)
    assert (alone["trials"], alone["accuracy_gain"]) == (1, pytest.approx(100 / 8))
    assert alone[["accuracy_low", "accuracy_gain_low", "accuracy_gain_p", "angle_ratio_high"]].isna().all()
    assert alone["keeps_accuracy"]
    other = one(settings, loss="wce", weight=8.0)
    assert (other["trials"], bool(other["keeps_accuracy"])) == (0, False)
    assert math.isnan(other["accuracy"])


@pytest.mark.parametrize(("tolerance", "keeps"), [(0.0, [True, False]), (12.5, [True, True]), (12.4, [True, False])])
def test_tolerance_decides_what_keeps_accuracy(tmp_path: Path, tolerance: float, keeps: list[bool]) -> None:
    trials = [Trial("ce", 0), Trial("ce", 1)]
    trials += [Trial("wce", number, "worst1", weight=weight) for weight in (2.0, 4.0) for number in (0, 1)]
    # As accurate as the cross entropy in the mean, and one picture of eight less: 12.5 points.
    predicted = [with_right(count) for count in (4, 6, 5, 5, 3, 5)]
    settings = settings_of(small(tmp_path / "small.h5", trials, predicted, tolerance=tolerance))
    assert list(settings.loc[settings["loss"].eq("wce"), "keeps_accuracy"]) == keeps


def test_rounding_does_not_cost_accuracy() -> None:
    rows = made.frames().importance.query("family == 'objects' and important == 'worst1' and split == 'test'")
    lost = rows["accuracy"].where(rows["loss"].eq("ce"), 80.1).where(rows["loss"].ne("ce"), 80.4)
    assert 80.1 - 80.4 < -0.3  # by rounding alone
    settings = importance_settings.build_table(rows.assign(accuracy=lost), {"objects": 0.3})
    assert settings["keeps_accuracy"].all()
    assert not importance_settings.build_table(rows.assign(accuracy=lost), {"objects": 0.299})["keeps_accuracy"].all()


def test_variance_zero_elsewhere_has_no_ratio() -> None:
    rows = made.frames().importance
    rows["angle_variance_others"] = 0.0
    assert importance_settings.build_table(rows, {"objects": 0.5, "photographs": 0.5})["angle_ratio"].isna().all()


def test_angles_are_those_of_the_file(tmp_path: Path) -> None:
    path = made.write_evaluation(tmp_path / "objects.h5", pictures=3)
    listed = importance.trials(path)
    assert list(listed.columns) == list(importance.TRIAL_COLUMNS)
    assert len(listed) == len(made.grid(tuple(made.IMPORTANT["objects"])))
    assert list(dict.fromkeys(listed["loss"])) == ["camri", "arcface", "softmax", "crwwce", "wce", "ce"]
    ids = [
        one(listed, loss="ce", trial=1)["id"],
        one(listed, loss="wce", important="median", weight=8.0, trial=0)["id"],
    ]
    found = importance.angles(path, ids)
    assert list(found.columns) == list(importance.ANGLE_COLUMNS)
    assert list(found["loss"]) == ["ce"] * 30 + ["wce"] * 30
    with h5py.File(path) as file:
        stored = np.concatenate([file[f"trials/{name}/test/angle"][:] for name in ids])
    assert np.allclose(found["angle"], stored * 180 / np.pi)
    assert [made.SHAPES[number] for number in found["class"]] == list(found["truth"])
    assert (found["class"] == np.tile(np.repeat(np.arange(10), 3), 2)).all()
    assert list(importance.angles(path, []).columns) == list(importance.ANGLE_COLUMNS)
    with pytest.raises(BrokenFileError, match=r"objects\.h5: holds no classifier other, that;"):
        importance.angles(path, ["that", "other", ids[0]])


def test_flat_features_agree_with_the_angles(tmp_path: Path) -> None:
    path = made.write_evaluation(tmp_path / "flat.h5", pictures=3, flat=True, trials=made.grid(("worst1",), 1))
    found = importance.features(path)
    listed = importance.trials(path)
    assert [record.loss for record in found] == list(listed["loss"])
    angle = importance.angles(path, list(listed["id"])).groupby("loss", sort=False)["angle"]
    assert {record.loss for record in found} == set(made.GAIN)
    record = next(record for record in found if record.loss == "ce")
    weights = record.weights[record.truth]
    cosine = (record.features * weights).sum(axis=1)
    cosine /= np.linalg.norm(record.features, axis=1) * np.linalg.norm(weights, axis=1)
    assert np.allclose(np.degrees(np.arccos(cosine)), angle.get_group("ce"), atol=1e-2)
    assert (record.important, record.important_classes) == ("", ())
    camri = found[0]
    assert (camri.important, camri.important_classes, camri.margin) == ("worst1", ("bucket",), 4.0)
    assert camri.classes == made.SHAPES
    assert importance.features(made.write_evaluation(tmp_path / "deep.h5", pictures=3)) == []


def test_no_evaluation_gives_empty_tables() -> None:
    nothing = importance.build_table([])
    settings = importance_settings.build_table(nothing, importance.tolerances([]))
    assert (list(nothing.columns), len(nothing)) == (list(importance.COLUMNS), 0)
    assert (list(settings.columns), len(settings)) == (list(importance_settings.COLUMNS), 0)
    table = camri_table.build_table(settings)
    assert (list(table.columns), len(table)) == (list(camri_table.COLUMNS), 0)


def test_families_are_told_apart_and_none_stands_twice(tmp_path: Path) -> None:
    few = made.grid(("worst1", "worst2", "median"), 2)
    paths = [
        made.write_evaluation(tmp_path / f"{name}.h5", family=name, trials=few, pictures=3, tolerance=float(number))
        for number, name in enumerate(("one", "two"))
    ]
    assert importance.tolerances(paths) == {"one": 0.0, "two": 1.0}
    table = importance.build_table(paths)
    assert list(dict.fromkeys(table["family"])) == ["one", "two"]
    pd.testing.assert_frame_equal(table.loc[table["family"].eq("one")], importance.build_table(paths[:1]))
    other = made.write_evaluation(tmp_path / "again.h5", family="one", trials=few, pictures=3)
    with pytest.raises(BrokenFileError, match=r"again\.h5: family one stands in .*one\.h5 as well"):
        importance.build_table([*paths, other])


BREAKS = {
    "another format": ("format", "headstrong-generated-1", "not an evaluation of important classes"),
    "not written to its end": ("complete", 0, "incomplete"),
    "no classes": ("classes", None, "incomplete"),
    "an important class there is none of": ("important", '{"worst1": ["zebra"]}', "zebra is no class"),
    "a key without classes": ("important", '{"worst1": []}', "a key has no class"),
    "no tolerance": ("job", "{}", "incomplete, tolerance"),
    "no JSON": ("job", "{", "truncated or foreign"),
    "a list of important classes": ("important", "[1]", "truncated or foreign"),
    "a loss there is none of": ("trials/ce-0:loss", "hinge", "'hinge'"),
    "a neutral loss of a class": ("trials/ce-0:important", "worst1", "cannot be of important classes 'worst1'"),
    "a loss of no class": ("trials/wce-worst1-w2-0:important", "", "cannot be of important classes ''"),
    "an infinite weight": ("trials/wce-worst1-w2-0:weight", math.inf, "infinite"),
    "no trial number": ("trials/ce-0:trial", None, "incomplete"),
    "no true classes": ("truth/test", None, "no true classes of a test split"),
    "a true class there is none of": ("truth/test", lambda values: values + 1, "none of 3"),
    "a predicted class below 0": ("trials/ce-0/test/predicted", lambda values: values - 1, "none of 3"),
    "a picture less": ("trials/ce-0/test/predicted", lambda values: values[1:], r"shape \(7,\), \(8,\) is expected"),
    "an angle beyond pi": ("trials/ce-0/test/angle", lambda values: values + 3, "not within 0 to pi"),
    "an angle that is no number": ("trials/ce-0/test/angle", lambda values: values * np.nan, "not within 0 to pi"),
    "no angles": ("trials/ce-0/test/angle", None, "incomplete"),
    "features without weights": ("trials/ce-0/test/features", lambda _: np.ones((8, 2)), "incomplete"),
    "features of another length": ("trials/ce-0/test/features", lambda _: np.ones((8, 3)), "shape"),
    "no cross entropy": ("trials/ce-0", None, "no classifier of the cross entropy"),
}


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    where, change, words = BREAKS[name]
    trials = [Trial("ce", 0), Trial("wce", 0, "worst1", weight=2.0)]
    path = small(tmp_path / "small.h5", trials, [PREDICTED, PREDICTED])
    place, _, attribute = where.partition(":")
    with h5py.File(path, "r+") as file:
        if attribute or place in file.attrs:
            holder = (file[place] if attribute else file).attrs
            del holder[attribute or place]
            if change is not None:
                holder[attribute or place] = change
        else:
            values = change(file[place][:] if place in file else None) if callable(change) else None
            if place in file:
                del file[place]
            if values is not None:
                file[place] = values
    with pytest.raises(BrokenFileError, match=rf"^[^\n]*small\.h5: [^\n]*{words}[^\n]*; delete it and evaluate[^\n]*$"):
        read_study(path)


def test_a_trial_that_stands_twice_is_named(tmp_path: Path) -> None:
    path = small(tmp_path / "small.h5", [Trial("ce", 0)], [PREDICTED])
    with h5py.File(path, "r+") as file:
        file.copy("trials/ce-0", "trials/copy")
    with pytest.raises(BrokenFileError, match="ce-0 and copy are the same trial"):
        read_study(path)


def test_a_file_that_is_absent_truncated_or_foreign_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.h5: no such evaluation"):
        importance.build_table([tmp_path / "none.h5"])
    (tmp_path / "text.h5").write_text("not HDF5")
    whole = small(tmp_path / "whole.h5", [Trial("ce", 0)], [PREDICTED]).read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "half"):
        with pytest.raises(BrokenFileError, match=rf"{name}\.h5: truncated or foreign"):
            importance.tolerances([tmp_path / f"{name}.h5"])


def test_the_script_writes_the_tables_the_same_twice(tmp_path: Path) -> None:
    trials = made.grid(("worst1", "worst2", "median"), 2)
    paths = [
        made.write_evaluation(tmp_path / "objects.h5", trials=trials, pictures=10),
        made.write_evaluation(tmp_path / "cifar.h5", family="cifar", dataset="cifar10", trials=trials, pictures=10),
    ]
    for name in ("a", "b"):
        command = [sys.executable, str(SCRIPT), "--evaluations", *map(str, paths), "--output", str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True)
    rows = importance.build_table(paths)
    settings = importance_settings.build_table(rows, importance.tolerances(paths))
    tables = {
        "importance": rows,
        "importance_settings": settings,
        "camri_table_1": camri_table.build_table(settings),
    }
    for name, frame in tables.items():
        first, second = (tmp_path / folder / f"{name}.csv" for folder in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()
        numbers = [column for column in frame.columns if pd.api.types.is_numeric_dtype(frame[column])]
        empty = {column: [""] for column in numbers}
        again = pd.read_csv(first, dtype=frame.dtypes.to_dict(), keep_default_na=False, na_values=empty)
        pd.testing.assert_frame_equal(again, frame, check_exact=True)


def test_the_script_serves_a_study_without_important_classes_and_names_a_broken_file(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path), "--evaluations"]
    subprocess.run(command, check=True, capture_output=True)
    names = ("importance", "importance_settings", "camri_table_1")
    assert [len((tmp_path / f"{name}.csv").read_text().splitlines()) for name in names] == [1, 1, 1]
    (tmp_path / "text.h5").write_text("not HDF5")
    failed = subprocess.run([*command, str(tmp_path / "text.h5")], capture_output=True, text=True)
    assert failed.returncode == BrokenFileError.code
    assert "text.h5: truncated or foreign" in failed.stderr.splitlines()[-1]


def test_frames_are_copies_that_differ_as_said() -> None:
    frames = made.frames()
    frames.table["loss"] = ""
    again = made.frames()
    assert set(again.table["loss"]) == set(made.GAIN)
    assert again.importance.groupby("family")["dataset"].first().to_dict() == {
        "objects": "objects",
        "photographs": "cifar10",
    }
    assert len(again.settings) == 2 * 3 * 2 * 15  # families, keys, splits, settings
