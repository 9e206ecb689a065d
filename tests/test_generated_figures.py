"""Figures of generated perturbations: they show the numbers of their tables, and the pictures of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import generated_frames as made
from drawn_figures import assert_tidy, words_of
from headstrong.analysis import generated, mta_tables
from headstrong.analysis.generated_records import read_examples
from headstrong.errors import MissingDataError
from headstrong.figures import generated_gallery, generated_pictures, generated_strength, style

SMALL = {"dpi": 40, "formats": ("png",)}
Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("figures")
    return made.write_classes(folder / "office.h5"), made.write_dense(folder / "nyu.h5", radii=(2 / 255, 5 / 255))


@pytest.fixture(scope="module")
def table(files: Files) -> pd.DataFrame:
    return generated.build_table(files, draws=50)


@pytest.fixture(scope="module")
def shaped(table: pd.DataFrame) -> pd.DataFrame:
    return mta_tables.build_table(table)


def heights(panel: object) -> set[float]:
    return {round(float(y), 6) for line in panel.lines for y in np.ravel(line.get_ydata())}


def test_choices_are_those_of_the_paper_where_there_are(files: Files) -> None:
    found = {(c.family.family, c.situation.mode): c.situation for c in generated_pictures.choices(files)}
    assert list(found) == [("office", "instance"), ("office", "universal"), ("nyu", "instance"), ("nyu", "universal")]
    assert {one.method for one in found.values()} == {"mta"}
    office = found["office", "instance"]
    assert (office.goal, office.epsilon) == ("targeted", 10 / 255)  # none of the targeted ones has the published radius
    assert found["nyu", "instance"].epsilon == 5 / 255
    with pytest.raises(MissingDataError, match="no evaluation keeps examples"):
        generated_pictures.choices([])


def test_figure_3_shows_picture_perturbation_and_sum(files: Files) -> None:
    choice = generated_pictures.choices(files[:1])[0]
    figure = generated_pictures.draw(choice, SMALL)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 3 * 2 * 3
    examples = read_examples(files[0])
    clean = examples.clean["studio"].image[0]
    perturbation = examples.perturbed[choice.situation.generator]["studio"].perturbation[0]
    picture, pattern, both = (np.moveaxis(np.asarray(axis.images[0].get_array()), -1, 0) for axis in shown[:3])
    assert np.allclose(picture * 255, clean)
    assert np.allclose(pattern, 0.5 + perturbation * 255 / 20, atol=1e-6)  # zero is grey, the radius is black or full
    assert np.allclose(both * 255, np.clip(clean + 255 * perturbation, 0, 255), atol=1e-4)
    words = words_of(figure)
    assert "perturbation,\n× 12.8" in words
    assert "MTA, per-instance, targeted, $L_\\infty$, radius 10/255, to be called ring" in words
    # The first picture is called a cube, and a ring once perturbed; the second stays a brick.
    labels = {axis.get_xlabel(): axis.xaxis.label.get_color() for axis in shown[:6]}
    assert labels["ring"] == generated_pictures.CHANGED
    assert [axis.get_xlabel() for axis in shown[:6]] == ["cube", "", "ring", "brick", "", "brick"]
    assert shown[5].xaxis.label.get_color() == generated_pictures.KEPT


def test_figure_4_shows_every_task_clean_and_attacked(files: Files) -> None:
    choice = generated_pictures.choices(files[1:])[0]
    figure = generated_pictures.draw(choice, SMALL)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 2 * 3 * 6
    truth = read_examples(files[1]).clean["s"].truth[0]
    colours = generated_pictures.palette(len(made.SURFACES))
    assert np.array_equal(np.asarray(shown[3].images[0].get_array()), colours[truth])
    normals = read_examples(files[1]).perturbed[choice.situation.generator]["n"].output[0]
    drawn = np.asarray(shown[17].images[0].get_array())
    assert np.allclose(2 * np.moveaxis(drawn, -1, 0) - 1, normals, atol=1e-5)
    words = words_of(figure)
    assert {"wall", "floor", "unlabelled", "truth", "predicted\nunder attack", "Normals"} <= set(words)
    assert any(word.startswith("Depth\n") and word.endswith(" m") for word in words)


def test_classes_have_colours_of_their_own() -> None:
    colours = generated_pictures.palette(37)
    assert len({tuple(colour) for colour in colours}) == 37
    assert generated_pictures.palette(60).shape == (60, 3)


def test_nothing_overlaps_or_leaves_the_figure(files: Files, table: pd.DataFrame, shaped: pd.DataFrame) -> None:
    figures = [generated_pictures.draw(choice, SMALL) for choice in generated_pictures.choices(files)]
    figures += [generated_strength.draw(table, family, SMALL) for family in ("office", "nyu")]
    figures += [generated_strength.draw_comparison(shaped, family, SMALL) for family in ("office", "nyu")]
    for figure in figures:
        assert_tidy(figure, SMALL)


def test_strength_shows_the_means_of_tasks(table: pd.DataFrame) -> None:
    figure = generated_strength.draw(table, "office", SMALL)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "universal, untargeted", "per-instance, untargeted", "universal, targeted", "per-instance, targeted"
    ]  # fmt: skip
    for panel, mode in zip(figure.axes[:2], ("universal", "instance"), strict=True):
        rows = table.loc[table["metric"].eq("fooling_ratio") & table["goal"].eq("untargeted") & table["mode"].eq(mode)]
        means = rows.groupby(["method", "epsilon"])["value"].mean()
        assert {round(value, 6) for value in means} <= heights(panel)
        assert {round(value, 6) for value in rows["value"]} <= heights(panel)
        noise = table.loc[table["metric"].eq("fooling_ratio") & table["method"].eq("noise"), "value"]
        assert {round(value, 6) for value in noise} <= heights(panel)


def test_strength_shows_every_dense_measure_of_the_victim_trained_against(table: pd.DataFrame) -> None:
    figure = generated_strength.draw(table, "nyu", SMALL)
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_visible()]
    assert titles[:3] == ["mIoU (%) ↑", "Pixel accuracy (%) ↑", "Depth error (m) ↓"]
    assert len(titles) == 9
    rows = table.loc[table["metric"].eq("depth_abs_err") & table["victim"].isin(["dmtl", ""])]
    assert {round(value, 6) for value in rows["value"]} <= heights(figure.axes[2])
    other = table.loc[table["metric"].eq("depth_abs_err") & table["victim"].eq("mtan") & table["method"].eq("mta")]
    assert not {round(value, 6) for value in other["value"]} & heights(figure.axes[2])


def test_gains_are_points_for_classes_and_percent_of_the_damage_for_dense_models(shaped: pd.DataFrame) -> None:
    office = generated_strength.gains(shaped, "office")
    cell = office.loc[office["setting"].eq("universal, untargeted, radius 5/255")].set_index("column")
    assert cell["gain"].tolist() == pytest.approx([12.5, 12.5, 12.5, 12.5])
    assert cell.at["room", "published"] == pytest.approx(91.49 - 75.65)
    # The printed average is wrong: that of the printed tasks is 87.94.
    assert cell.at["average", "published"] == pytest.approx(87.9433 - 80.7233, abs=1e-3)
    nyu = generated_strength.gains(shaped, "nyu").set_index(["setting", "column"])
    pixel = nyu.loc[("universal, radius 5/255", "Pix Acc")]
    # 60 of 100 pixels are right when clean, 27 under GAP, 24 under MTA.
    assert pixel["gain"] == pytest.approx(100 * 3 / 33)
    assert pixel["published"] == pytest.approx(100 * (19.86 - 19.23) / (53.50 - 19.86))
    angle = nyu.loc[("per-instance, radius 5/255", "Mean")]
    assert angle["gain"] < 0  # the angle is smaller under MTA, so MTA is the weaker attack
    assert angle["published"] > 0
    assert nyu.loc[("universal, radius 2/255", "Mean"), "published"] != angle["published"]


def test_a_measure_that_gap_leaves_alone_is_no_comparison(shaped: pd.DataFrame) -> None:
    part = shaped["table"].eq("5") & shaped["column"].eq("Pix Acc") & shaped["row"].isin(["GAP", "Clean"])
    same = shaped.assign(ours=shaped["ours"].mask(part, 60.0))
    assert "Pix Acc" not in set(generated_strength.gains(same, "nyu")["column"])
    alone = shaped.loc[shaped["row"].ne("MTA")]
    with pytest.raises(MissingDataError, match="not both run in the family nyu"):
        generated_strength.draw_comparison(alone, "nyu")


def test_one_radius_is_enough(tmp_path: Path) -> None:
    path = made.write_dense(tmp_path / "nyu.h5")
    figure = generated_strength.draw(generated.build_table([path], draws=10), "nyu", SMALL)
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["5"]


def test_the_gallery_has_a_set_for_each_family_and_draws_it_the_same_twice(
    files: Files, table: pd.DataFrame, shaped: pd.DataFrame, tmp_path: Path
) -> None:
    names = [fields[0] for fields, _ in generated_gallery.figures(table, shaped, files, SMALL)]
    assert names == [
        f"{kind}-{family}" for family in ("office", "nyu") for kind in ("generated", "mta-against-gap")
    ] + [f"pictures-{family}-{mode}" for family in ("office", "nyu") for mode in ("instance", "universal")]
    one_family = table.loc[table["family"].eq("nyu")]
    for fields, draw in generated_gallery.figures(one_family, shaped, files[1:], SMALL):
        assert all(fields[:4])
        first, second = (style.save(draw(), tmp_path / name / fields[0], ("svg",), SMALL)[0] for name in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_a_study_without_generators_has_no_figures_and_misses_none(table: pd.DataFrame) -> None:
    for nothing in (None, table.iloc[:0]):
        assert list(generated_gallery.figures(nothing, None, [])) == []
        with pytest.raises(MissingDataError, match=r"^generated\.csv: "):
            generated_strength.draw(nothing, "nyu")
    drawn = {fields[0]: draw for fields, draw in generated_gallery.figures(table, None, [])}
    for stem, words in (("pictures", "no evaluation keeps examples"), ("mta-against-gap-nyu", "has no such table")):
        with pytest.raises(MissingDataError, match=words):
            drawn[stem]()
