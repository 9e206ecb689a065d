"""Figures of important classes: they show the numbers of their tables, and the angles and features of their files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import importance_files as made
from drawn_figures import assert_tidy, words_of
from headstrong.analysis import camri_table, importance, importance_settings
from headstrong.errors import MissingDataError
from headstrong.figures import (
    gallery,
    importance_angles,
    importance_features,
    importance_gallery,
    importance_grid,
)
from importance_files import Trial

SMALL = {"dpi": 40, "formats": ("png",)}
LONG = ("a class with a name that is long", "another class with a long name", "the third of the classes")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("importance")
    photographs = {"family": "photographs", "dataset": "cifar10", "seed": 2, "flat": True, "pictures": 30}
    return made.write_evaluation(folder / "a.h5", seed=1), made.write_evaluation(folder / "b.h5", **photographs)


def tables_of(*paths: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    settings = importance_settings.build_table(importance.build_table(paths), importance.tolerances(paths))
    return settings, camri_table.build_table(settings)


@pytest.fixture(scope="module")
def tables(files: tuple[Path, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    return tables_of(*files)


def points(panel: object, *, chosen: bool) -> set[tuple[float, float]]:
    """Centres (x, y) of the settings drawn, those that are ringed or those that are not."""
    drawn = [line for line in panel.lines if len(line.get_xdata()) == 1 and line.get_marker() != "None"]
    return {
        (round(float(line.get_xdata()[0]), 6), round(float(line.get_ydata()[0]), 6))
        for line in drawn
        if (line.get_markerfacecolor() != "white") == chosen
    }


def centres(rows: pd.DataFrame) -> set[tuple[float, float]]:
    return {(round(x, 6), round(y, 6)) for x, y in zip(rows["accuracy"], rows["recall"], strict=True)}


def test_the_grid_shows_every_setting_and_rings_the_chosen(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    settings, choices = tables
    figure = importance_grid.draw(settings, choices, "objects", SMALL)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["worst1: bucket", "worst2: egg", "median: ring"]
    test = settings.loc[settings["family"].eq("objects") & settings["split"].eq("test")]
    picked = choices.loc[choices["family"].eq("objects") & choices["rule"].eq("validation")]
    for panel, key in zip(figure.axes, ("worst1", "worst2", "median"), strict=True):
        rows = test.loc[test["important"].eq(key)]
        ringed = centres(picked.loc[picked["important"].eq(key) & picked["recall"].notna()])
        assert points(panel, chosen=True) == ringed
        assert len(ringed) == 5  # no setting of crwwce keeps accuracy
        assert points(panel, chosen=False) | ringed == centres(rows)  # settings may tie
        base = rows.loc[rows["loss"].eq("ce")].iloc[0]
        straight = {
            tuple(line.get_xdata()) for line in panel.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == 0
        }
        assert (base["accuracy"], base["accuracy"]) in straight


def test_intervals_reach_as_far_as_the_table_says(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    settings, choices = tables
    figure = importance_grid.draw(settings, choices, "objects", SMALL)
    drawn = {
        tuple(np.round(np.sort(segment[:, axis]), 6))
        for bars in figure.axes[0].containers
        for lines in bars.lines[2]
        for segment in lines.get_segments()
        for axis in (0, 1)
    }
    rows = settings.loc[
        settings["family"].eq("objects") & settings["split"].eq("test") & settings["important"].eq("worst1")
    ]
    for name in ("recall", "accuracy"):
        wanted = {tuple(np.round(pair, 6)) for pair in rows[[f"{name}_low", f"{name}_high"]].to_numpy()}
        assert wanted <= drawn


def test_a_setting_that_lost_nearly_all_accuracy_stands_at_the_edge_with_its_number(tmp_path: Path) -> None:
    truth = np.repeat(np.arange(3), 40)
    right, wrong = np.where(np.arange(120) % 10 == 0, (truth + 1) % 3, truth), np.zeros(120, int)
    angle = np.linspace(0.2, 1.2, 120)
    trials = [
        (Trial("ce", 0), {"test": (right, angle)}),
        (Trial("wce", 0, "balls", weight=99.0), {"test": (wrong, angle)}),
    ]
    path = made.write_file(
        tmp_path / "f.h5", trials, {"test": truth}, classes=LONG, important={"balls": LONG[:2]}, family="f"
    )
    settings, choices = tables_of(path)
    figure = importance_grid.draw(settings, choices, "f", SMALL)
    assert "← 33" in words_of(figure)
    assert figure.axes[0].get_xlim()[0] > 70  # 90 % of ce, one of the other loss at 33 % does not stretch the axis
    assert not [bars for bars in figure.axes[0].containers if bars.has_xerr]  # one trial has no interval
    assert len(figure.axes[0].get_title(loc="left").splitlines()) == 2
    assert "filled: chosen by the paper's rule" in words_of(figure)  # there are no validation pictures
    assert_tidy(figure, SMALL)
    assert_tidy(importance_angles.draw(settings, choices, path, "f", SMALL), SMALL)


def test_angles_are_shares_of_the_pictures_of_the_chosen_settings(
    files: tuple[Path, Path], tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    settings, choices = tables
    figure = importance_angles.draw(settings, choices, files[0], "objects", SMALL)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles == [
        "CE",
        "Normalised softmax, scale 8",
        "ArcFace, margin 8π/64, scale 8",
        "CAMRI, margin 8π/64, scale 8",
    ]
    chosen = choices.loc[
        choices["family"].eq("objects") & choices["rule"].eq("validation") & choices["important"].eq("worst1")
    ].set_index("loss")
    for panel, loss in zip(figure.axes, ("ce", "softmax", "arcface", "camri"), strict=True):
        row = chosen.loc[loss]
        ratio = f"{row['angle_ratio']:.2f} ({row['angle_ratio_low']:.2f} to {row['angle_ratio_high']:.2f})"
        assert [text.get_text() for text in panel.texts] == [f"variance ratio\n{ratio}"]
        others, important = panel.patches
        for stairs in (others, important):
            values, edges, _ = stairs.get_data()
            assert (values * np.diff(edges)).sum() == pytest.approx(100, abs=1)  # percent, but for the far ends
            assert panel.get_ylim()[1] > values.max()
    values, edges, _ = figure.axes[3].patches[1].get_data()
    table = importance.trials(files[0])
    ids = table.loc[table["loss"].eq("camri") & table["important"].eq("worst1") & table["margin"].eq(8), :]
    ids = ids.loc[ids["scale"].eq(8), "id"]
    frame = importance.angles(files[0], list(ids))
    angle = frame.loc[frame["truth"].eq("bucket"), "angle"]
    assert len(angle) == made.TRIALS * made.PICTURES
    counted = np.histogram(angle, edges)[0]
    assert values == pytest.approx(100 * counted / len(angle) / np.diff(edges))


def test_a_loss_that_loses_accuracy_shows_its_most_accurate_setting(
    files: tuple[Path, Path], tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    settings, choices = tables
    none = choices.copy()
    none.loc[none["loss"].ne("ce"), "recall"] = np.nan
    figure = importance_angles.draw(settings, none, files[0], "objects", SMALL)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles[0] == "CE"
    assert all(title.endswith("loses accuracy") for title in titles[1:])
    rows = settings.query("family == 'objects' and important == 'worst1' and loss == 'camri' and split == 'validation'")
    best = rows.loc[rows["accuracy"].idxmax()]
    assert titles[3].startswith(f"CAMRI, margin {best['margin']:g}π/64, scale {best['scale']:g}")
    assert_tidy(figure, SMALL)


def test_features_show_the_points_and_directions_of_the_first_trial(
    files: tuple[Path, Path], tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    found = importance.features(files[1])
    figure = importance_features.draw(found, tables[1], "photographs", SMALL)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    arcface = importance_grid.chosen(tables[1], "photographs", "worst1")["arcface"]
    assert titles[:2] == ["CE", "Normalised softmax, scale 8"]
    assert titles[2:] == [f"ArcFace, margin {arcface['margin']:g}π/64, scale 8", "CAMRI, margin 8π/64, scale 8"]
    (one,) = [
        each
        for each in found
        if (each.loss, each.important, each.margin, each.scale, each.trial) == ("camri", "worst1", 8, 8, 0)
    ]
    panel = figure.axes[3]
    cat = panel.lines[-1]  # on top of the others
    assert cat.get_color() == importance_angles.IMPORTANT_COLOUR
    assert np.column_stack(cat.get_data()) == pytest.approx(one.features[one.truth == one.classes.index("cat")])
    assert cat.get_zorder() > max(line.get_zorder() for line in panel.lines[:-1])
    numbers = {text.get_text(): np.array(text.get_position()) for text in panel.texts if text.get_text()}
    assert set(numbers) == {str(k) for k in range(10)}
    for k, place in ((int(word), place) for word, place in numbers.items()):
        assert place / np.linalg.norm(place) == pytest.approx(one.weights[k] / np.linalg.norm(one.weights[k]), abs=1e-6)
    assert "3  cat" in words_of(figure)


def test_features_without_a_chosen_setting_are_those_of_the_first(files: tuple[Path, Path]) -> None:
    settings, _ = tables_of(files[1])
    lost = settings.assign(keeps_accuracy=settings["loss"].eq("ce"))
    choices = camri_table.build_table(lost)
    choices = choices.loc[choices["rule"].eq("validation")]
    figure = importance_features.draw(importance.features(files[1]), choices, "photographs", SMALL)
    assert figure.axes[3].get_title(loc="left") == "CAMRI, margin 4π/64, scale 8"
    with pytest.raises(MissingDataError, match="no classifier of photographs has features"):
        importance_features.draw([], choices, "photographs", SMALL)


def test_classes_of_a_figure_are_told_apart_without_hue() -> None:
    classes = made.CIFAR
    looks = [importance_features._look(k, classes, ("cat",)) for k in range(10)]
    assert len({(look["color"], look["marker"]) for look in looks}) == 10
    assert len({look["marker"] for k, look in enumerate(looks) if classes[k] != "cat"}) == 9
    losses = importance_grid.LOOKS.values()
    assert len({look["marker"] for look in losses}) == len({look["color"] for look in losses}) == 6


def test_nothing_overlaps_or_leaves_the_figure(
    files: tuple[Path, Path], tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    for _, draw in importance_gallery.figures(*tables, files, SMALL):
        assert_tidy(draw(), SMALL)


def test_words_of_keys_and_settings() -> None:
    nothing = math.nan
    assert importance_grid.setting_words(4.5, 16.0, nothing) == "margin 4.5π/64, scale 16"
    assert importance_grid.setting_words(nothing, nothing, nothing) == ""
    assert importance_grid.key_words("worst1", "cat; dog") == "worst1: cat, dog"
    assert importance_grid.key_words("cat", "cat") == "cat"


def test_the_gallery_draws_a_set_for_each_family_the_same_twice(
    files: tuple[Path, Path], tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    stems = [fields[0] for fields, _ in importance_gallery.figures(*tables, files, SMALL)]
    assert stems == [
        *("importance-grid-objects", "importance-angles-objects"),  # no features of two numbers
        *(f"importance-{kind}-photographs" for kind in ("grid", "angles", "features")),
    ]
    one_family = tables[0].loc[tables[0]["family"].eq("photographs")]
    given = {"importance_settings": one_family, "camri_table_1": tables[1], "importance": files}
    look = {**SMALL, "formats": ("svg",)}
    for name in "ab":
        entries = gallery.draw_without_models(tmp_path / name, settings=look, **given)
    assert [entry.stem for entry in entries] == stems[2:]
    for entry in entries:
        assert entry.reason == ""
        assert entry.title
        assert entry.caption
        first, second = (tmp_path / name / f"{entry.stem}.svg" for name in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a" / gallery.INDEX).read_bytes() == (tmp_path / "b" / gallery.INDEX).read_bytes()


def test_what_is_absent_has_a_reason(tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    assert list(importance_gallery.figures(None, None, [])) == []
    assert gallery.draw_without_models(tmp_path) == []
    settings, choices = tables
    entries = gallery.draw_without_models(tmp_path, settings=SMALL, importance_settings=settings, camri_table_1=choices)
    assert {entry.stem: entry.reason for entry in entries if entry.reason} == {
        f"importance-angles-{family}": f"angles: no evaluation of the family {family}"
        for family in ("objects", "photographs")
    }
    with pytest.raises(MissingDataError, match=r"^camri_table_1\.csv: "):
        importance_grid.draw(settings, None, "objects", SMALL)
    with pytest.raises(MissingDataError, match="no test pictures of the family elsewhere"):
        importance_grid.draw(settings, choices, "elsewhere", SMALL)
