"""Tables of generated perturbations: known files give known numbers, beside the published ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import generated_frames as made
from headstrong import published
from headstrong.analysis import generated, mta_tables, stats
from headstrong.analysis.files import read_table, write_table
from headstrong.analysis.generated_records import read_examples, read_family
from headstrong.errors import BrokenFileError, MissingDataError
from synthetic import one

SCRIPT = Path(__file__).parents[1] / "scripts" / "collect_generated.py"
DRAWS = 200


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("generated")
    return made.write_classes(folder / "office.h5"), made.write_dense(folder / "nyu.h5")


@pytest.fixture(scope="module")
def table(files: tuple[Path, Path]) -> pd.DataFrame:
    return generated.build_table(files, draws=DRAWS)


@pytest.fixture(scope="module")
def shaped(table: pd.DataFrame) -> pd.DataFrame:
    return mta_tables.build_table(table, made.cost_table())


def test_a_file_reads_back(files: tuple[Path, Path]) -> None:
    classes, dense = (read_family(path) for path in files)
    assert (classes.tasks, classes.victims, len(classes.index["room"])) == (made.DOMAINS, "resnets", made.IMAGES)
    assert [one.epsilon for one in classes.of("noise", "resnets")] == [5 / 255, 10 / 255]
    assert dict(dense.of("mta", "mtan")[0].tasks["s"].measures) == {}
    assert dense.of("trivial", "")[0].tasks["d"].measures.keys() >= {"absolute", "relative"}
    examples = read_examples(files[1])
    shown = examples.perturbed["nyu-mta-instance-untargeted-linf-5"]["n"]
    assert shown.perturbation.shape == examples.clean["n"].image.shape
    assert np.allclose(np.linalg.norm(shown.output, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["gap", "mta", "noise"])
@pytest.mark.parametrize("epsilon", made.RADII)
def test_fooling_counts_changed_predictions_and_accuracy_right_ones(
    table: pd.DataFrame, method: str, epsilon: float
) -> None:
    for number, task in enumerate(made.DOMAINS):
        mode = "" if method == "noise" else "universal"
        many = made.TURNED[method, mode, epsilon] + (0 if method == "noise" else number)
        place = {"method": method, "mode": mode, "epsilon": epsilon, "task": task, "target": ""}
        row = one(table, **place, metric="fooling_ratio")
        share = many / made.IMAGES
        assert row["value"] == pytest.approx(100 * share)
        assert row["n"] == made.IMAGES
        deviation = np.sqrt(share * (1 - share) / (made.IMAGES - 1))
        assert row["standard_error"] == pytest.approx(100 * deviation)
        # Of 40, the first 36 are right; a turned picture is wrong, and no wrong one is put right.
        accuracy = 100 * max(0, 36 - many) / made.IMAGES
        assert one(table, **place, metric="accuracy")["value"] == pytest.approx(accuracy)


def test_target_accuracy_counts_the_class_asked_for_and_has_a_clean_value(table: pd.DataFrame) -> None:
    rows = table.loc[table["metric"].eq("target_accuracy")]
    assert set(rows["goal"]) == {"targeted"}
    assert set(rows["target"]) == {"ring"}
    clean = one(rows, method="clean", task="studio")
    assert clean["value"] == pytest.approx(100 * 4 / made.IMAGES)  # four of forty are rings
    # All that were turned are rings now, and of the rings behind them those that always were.
    many = made.TURNED["mta", "instance", 10 / 255]
    rest = sum(1 for k in range(many, made.IMAGES) if (k if k < 36 else k + 1) % 10 == 7)
    assert one(rows, method="mta", mode="instance", task="studio")["value"] == pytest.approx(100 * (many + rest) / 40)
    assert one(rows, method="noise", epsilon=10 / 255, task="studio")["generator"] == ""


def test_gain_is_the_paired_difference_of_mta_and_gap(table: pd.DataFrame) -> None:
    place = {"metric": "fooling_ratio", "mode": "universal", "epsilon": 5 / 255, "task": "room"}
    row = one(table, method="mta", goal="untargeted", **place)
    gap = one(table, method="gap", goal="untargeted", **place)
    assert row["gain"] == pytest.approx(row["value"] - gap["value"])
    # 5 of 40 pictures differ, all in one direction: the error of the mean of these ones and zeros.
    difference = 5 / made.IMAGES
    assert row["gain_standard_error"] == pytest.approx(100 * np.sqrt(difference * (1 - difference) / 40), rel=0.2)
    assert np.isnan(gap["gain"])
    assert table.loc[table["method"].isin(["clean", "noise", "trivial"]), "gain"].isna().all()


def test_dense_measures_are_means_over_the_images_that_have_one(table: pd.DataFrame) -> None:
    left = made.LEFT["mta", "universal"]
    place = {"method": "mta", "mode": "universal", "victim": "dmtl"}
    for metric, measure, factor in (
        ("depth_abs_err", "absolute", 1),
        ("normal_median", "angle_median", 1),
        ("normal_within_22.5", "within_22.5", 100),
    ):
        values = factor * made.measure(measure, left).astype(np.float64)
        row = one(table, metric=metric, **place)
        expected = stats.mean(values[~np.isnan(values)])
        assert (row["value"], row["standard_error"], row["n"]) == pytest.approx(tuple(expected))
    transferred = one(table, metric="depth_abs_err", method="mta", mode="universal", victim="mtan")
    assert transferred["value"] < one(table, metric="depth_abs_err", **place)["value"]
    assert transferred["trained_on"] == "dmtl"


def test_both_conventions_of_miou(table: pd.DataFrame) -> None:
    left = made.LEFT["gap", "instance"]
    counts = made.confusion(left).astype(float)[:, 1:, 1:]
    place = {"method": "gap", "mode": "instance", "victim": "dmtl"}
    total = counts.sum(axis=0)
    iou = np.diag(total) / (total.sum(axis=0) + total.sum(axis=1) - np.diag(total))
    assert one(table, metric="seg_miou", **place)["value"] == pytest.approx(100 * iou.mean())
    # An image has two classes with a pixel: the true one with hit / 100, and the one mistaken for it with nothing.
    hits = np.array([np.trace(matrix) for matrix in counts])
    assert one(table, metric="seg_miou_image", **place)["value"] == pytest.approx(np.mean(hits / 2))
    right = one(table, metric="seg_pixel_accuracy", **place)
    assert right["value"] == pytest.approx(hits.mean())
    assert right["standard_error"] == pytest.approx(hits.std(ddof=1) / np.sqrt(40), rel=0.25)


def test_perturbations_reach_their_radius(table: pd.DataFrame) -> None:
    rows = table.loc[table["metric"].eq(generated.REACH)]
    assert set(rows["method"]) == {"noise", "gap", "mta"}
    assert np.allclose(rows["value"], 100, rtol=1e-6)  # sizes are float32


def test_a_file_of_the_first_format_with_its_scale_of_255_gives_the_same_table(
    files: tuple[Path, Path], table: pd.DataFrame, tmp_path: Path
) -> None:
    old = tmp_path / files[0].name
    shutil.copy(files[0], old)
    with h5py.File(old, "r+") as file:
        file.attrs["format"] = "headstrong-generated-1"
        for one in file["generated"].values():
            one.attrs["epsilon"] *= 255
        file.visititems(lambda name, item: scaled(item) if name.endswith(("linf", "l2", "perturbation")) else None)
    same = ["method", "norm", "epsilon", "task", "metric", "value", "n", "generator"]
    new = table.loc[table["family"].eq("office"), same].reset_index(drop=True)
    pd.testing.assert_frame_equal(generated.build_table([old], draws=10)[same], new, rtol=1e-6)
    now, before = (read_examples(path).perturbed["office-mta-universal-untargeted-linf-5"] for path in (files[0], old))
    np.testing.assert_allclose(before["room"].perturbation, now["room"].perturbation, rtol=1e-6)


def scaled(dataset: h5py.Dataset) -> None:
    """Sizes and perturbations as the first format has them."""
    dataset[...] = 255 * dataset[...]


def test_no_evaluation_gives_empty_tables_that_read_back(tmp_path: Path) -> None:
    nothing = generated.build_table([])
    assert list(nothing.columns) == list(generated.COLUMNS)
    write_table(nothing, tmp_path / "generated.csv")
    again = read_table(tmp_path / "generated.csv")
    assert again.empty
    assert mta_tables.build_table(again).empty
    assert list(mta_tables.build_table(again).columns) == list(mta_tables.COLUMNS)


def test_tables_read_back_as_written(table: pd.DataFrame, shaped: pd.DataFrame, tmp_path: Path) -> None:
    for name, frame in (("generated", table), ("mta_tables", shaped), ("generator_cost", made.cost_table())):
        write_table(frame, tmp_path / f"{name}.csv")
        again = read_table(tmp_path / f"{name}.csv")
        pd.testing.assert_frame_equal(again, frame.astype(again.dtypes.to_dict()), check_exact=True)
    assert mta_tables.build_table(read_table(tmp_path / "generated.csv"), made.cost_table()).equals(shaped)


def cell(shaped: pd.DataFrame, number: int, **place: object) -> pd.Series:
    """The only cell of one of the paper's tables at a place."""
    return one(shaped.loc[shaped["table"].eq(str(number))], **place)


def test_every_published_number_finds_its_place(shaped: pd.DataFrame) -> None:
    said = published.load("mta_tables_1_to_4_office31")
    stands = {"amazon": "studio", "dslr": "room", "webcam": "webcam"}
    for row in said.to_dict("records"):
        if row["table"] in (2, 4) and row["epsilon_255"] == 5:
            continue  # the made-up study has no such generator
        place = {"block": f"epsilon {row['epsilon_255']}/255", "row": row["method"]}
        found = cell(shaped, row["table"], **place, column=stands[row["domain"]], metric=row["metric"])
        assert found["published"] == row["percent"]
        assert found["note"] == ("" if row["domain"] == "webcam" else f"{found['column']} stands for {row['domain']}")
    said = published.load("mta_tables_5_and_6_nyuv2")
    for row in said.to_dict("records"):
        block = "clean" if row["mode"] == "clean" else f"epsilon 5/255, {row['mode']}"
        name = "Clean" if row["mode"] == "clean" else row["method"]
        found = cell(shaped, row["table"], block=block, row=name, metric=row["metric"])
        assert found["published"] == row["value"]
    office = shaped.loc[shaped["table"].isin(list("1234"))]
    printed = office["published"].notna() & office["column"].ne(mta_tables.AVERAGE) & office["block"].ne("clean")
    assert printed.sum() == 72 - 12  # no printed number stands twice
    assert shaped.loc[shaped["row"].isin(["Noise", "Constant"]), "published"].isna().all()


def test_averages_and_the_misprints(shaped: pd.DataFrame) -> None:
    place = {"row": "MTA", "metric": "fooling_ratio"}
    row = cell(shaped, 1, block="epsilon 5/255", column="average", **place)
    tasks = pd.DataFrame([cell(shaped, 1, block="epsilon 5/255", column=name, **place) for name in made.DOMAINS])
    assert row["ours"] == pytest.approx(tasks["ours"].mean())
    assert row["standard_error"] == pytest.approx(np.sqrt((tasks["standard_error"] ** 2).sum()) / 3)
    assert row["published"] == 88.80
    assert "87.94" in row["note"]
    assert cell(shaped, 1, block="epsilon 10/255", column="average", **place)["published"] == 96.95
    other = cell(shaped, 3, block="epsilon 5/255", column="average", row="GAP", metric="accuracy")
    assert other["published"] == 19.97
    cost = cell(shaped, 7, row="GAP", metric="parameters_millions")
    assert (cost["ours"], cost["published"]) == (16.44, 1.64)
    assert "16.44 M" in cost["note"]


def test_other_radii_and_norms_have_no_published_number(tmp_path: Path) -> None:
    path = made.write_classes(tmp_path / "office.h5", radii=(10 / 255,))
    table = generated.build_table([path], draws=10)
    for change in ({"epsilon": 8 / 255}, {"norm": "l2"}):
        rows = table.assign(**{key: table[key].where(table["norm"].eq(""), value) for key, value in change.items()})
        shaped = mta_tables.build_table(rows)
        assert set(shaped["row"]) == {"Clean", "GAP", "MTA", "Noise"}
        assert shaped.loc[shaped["row"].ne("Clean"), "published"].isna().all()


def test_a_folder_of_ones_own_has_no_published_numbers(tmp_path: Path) -> None:
    paths = [made.write_classes(tmp_path / "a.h5", dataset="animals"), made.write_dense(tmp_path / "b.h5", dataset="x")]
    shaped = mta_tables.build_table(generated.build_table(paths, draws=10))
    assert shaped.groupby("dataset", sort=False)["published"].count().to_dict() == {"animals": 0, "x": 0}
    assert {*shaped["column"]} >= {*made.DOMAINS}  # its domains keep their names
    assert shaped["note"].eq("").all()


def test_harm_points_where_attacks_want_to_go() -> None:
    assert {name: generated.harm(name) for name in mta_tables.HEADINGS} == {
        "seg_miou": -1,
        "seg_miou_image": -1,
        "seg_pixel_accuracy": -1,
        "depth_abs_err": 1,
        "depth_rel_err": 1,
        "normal_mean": 1,
        "normal_median": 1,
        "normal_within_11.25": -1,
        "normal_within_22.5": -1,
        "normal_within_30": -1,
        "abs_err": 1,
    }
    assert (generated.harm("fooling_ratio"), generated.harm("accuracy")) == (1, -1)


def test_a_cost_without_a_column_is_named(tmp_path: Path) -> None:
    write_table(made.cost_table().drop(columns="rounds"), tmp_path / "nyu-cost.csv")
    with pytest.raises(BrokenFileError, match=r"nyu-cost\.csv: columns rounds are missing"):
        mta_tables.read_costs([tmp_path / "nyu-cost.csv"])


BREAKS = {
    "a class there is none of": ("labels/room", lambda values: values + 50, "of 10 classes"),
    "an infinite loss": ("clean/resnets/room/loss", lambda values: values * np.inf, "not a finite number"),
    "another number of images": ("clean/resnets/room/loss", lambda values: values[:-1], "expected 40 numbers"),
    "no predictions": ("clean/resnets/room/prediction", None, "incomplete"),
    "a generator less": ("generated/office-gap-universal-untargeted-linf-5", None, "not those of its job"),
}


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    where, change, words = BREAKS[name]
    path = made.write_classes(tmp_path / "office.h5")
    with h5py.File(path, "r+") as file:
        values = None if change is None else change(file[where][:])
        del file[where]
        if values is not None:
            file[where] = values
    with pytest.raises(BrokenFileError, match=rf"office\.h5.*{words}.*delete it and evaluate"):
        read_family(path)


def test_a_file_that_is_absent_or_foreign_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.h5: no such evaluation"):
        read_family(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(BrokenFileError, match=r"text\.h5: truncated or foreign"):
        read_family(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "headstrong-evaluation-2"
    with pytest.raises(BrokenFileError, match="not an evaluation of generators"):
        read_family(tmp_path / "other.h5")


def test_the_script_writes_both_tables_the_same_twice(files: tuple[Path, Path], tmp_path: Path) -> None:
    cost = made.cost_table()
    write_table(cost, tmp_path / "nyu-cost.csv")
    # A family of one method has nothing to compare; one of other tasks has no published number.
    write_table(cost.iloc[:0], tmp_path / "nothing-cost.csv")
    other = cost.assign(family="office", published_ms=np.nan, published_parameters_millions=np.nan)
    write_table(other, tmp_path / "office-cost.csv")
    costs = [str(tmp_path / f"{name}-cost.csv") for name in ("office", "nothing", "nyu")]
    for name in ("a", "b"):
        command = [sys.executable, str(SCRIPT), "--evaluations", *map(str, files), "--bootstrap", "50"]
        subprocess.run([*command, "--cost", *costs, "--output", str(tmp_path / name)], check=True, capture_output=True)
    for table in ("generated", "generator_cost", "mta_tables"):
        first, second = ((tmp_path / name / f"{table}.csv").read_bytes() for name in ("a", "b"))
        assert first == second
    tables = read_table(tmp_path / "a" / "mta_tables.csv")
    assert set(tables["table"]) == set("1234567")
    assert tables.loc[tables["table"].eq("7")].groupby("family", sort=False)["published"].count().to_dict() == {
        "office": 0,
        "nyu": 4,
    }
    assert list(read_table(tmp_path / "a" / "generator_cost.csv")["size"]) == ["288x384"] * 4


def test_the_script_serves_a_study_without_generators(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--evaluations", "--cost", "--output", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert read_table(tmp_path / "generated.csv").empty
    assert read_table(tmp_path / "generator_cost.csv").empty
    assert read_table(tmp_path / "mta_tables.csv").empty
