"""Reading evaluation files: what was written comes back, what is broken is named in one line; and plain tables."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as scipy_stats

import synthetic
from evaluation_runs import CLASSES, COUNT, attack_job, make_job, run, write_data
from headstrong.analysis import checks, curves
from headstrong.analysis.files import read_table, write_table
from headstrong.analysis.records import AttackRecord, Evaluation, TaskRecord, measures_of, read_evaluation
from headstrong.errors import BrokenFileError
from headstrong.jobs import AttackJob
from headstrong.measures import depth_measures, normal_measures
from headstrong.models import build_model, save_model

MODEL, TASKS = "made-up", "nsd"
PGD, PROGRAM = "pgd.total.nsd.linf.8.4", "ilp.dgba.sd.linf.8.1"
FLAG = {"attack": PGD, "task": "", "flag": "falling curve", "message": "It falls.", "samples": 6, "of": 6}


def attacks() -> list[AttackJob]:
    return [
        synthetic.attack("pgd", "total", "nsd", steps=4),
        synthetic.attack("ilp", "dgba", "sd", "ilp_sparse", 1, start="clean", pixels=5),
        synthetic.attack("noise", "total", "nsd", "noise", 1),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up evaluation that has every group there is."""
    path = tmp_path_factory.mktemp("records") / f"{MODEL}.h5"
    spec, study = synthetic.row("a", "resnet18", TASKS, 9), synthetic.Study(samples=6)
    parts = {"baseline": "start", "gradients": True, "flags": (FLAG,)}
    synthetic.write_evaluation(path, MODEL, TASKS, attacks(), spec, study, **parts)
    return path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation as evaluation writes it, of an untrained network."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("real")
    save_model(folder / "model.safetensors", build_model("xception", "sdn", len(CLASSES), width=0.125, seed=1), {}, {})
    few = (
        attack_job("pgd", "pgd", "total", "sd", steps=3),
        attack_job("released", "pgd", "total", "n", norm="l2", epsilon=0.5, steps=2, l2_step="released"),
        attack_job("program", "ilp_sparse", "dgba", "sdn", start="clean", steps=1, pixels=7),
        attack_job("noise", "noise", "total", "sdn", steps=1),
    )
    job = make_job(attacks=few, baseline="start", gradients=True)
    return run(job, folder / "model.safetensors", write_data(folder / "test.h5", COUNT, 90), folder / "out.h5")


def stored_values(file: h5py.File) -> dict[str, np.ndarray | str]:
    """Every data set of a file by its place, text as text."""
    found: dict[str, np.ndarray | str] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]

    file.visititems(visit)
    return found


def recorded(evaluation: Evaluation, place: str) -> object:
    """What the record holds of one place in the file."""
    first, *rest = place.split("/")
    if first == "index":
        return np.array(evaluation.index, dtype=object)
    if first == "flags":
        return json.dumps(evaluation.flags)
    if first == "gradients":
        return getattr(evaluation.gradients, rest[0])
    if first == "clean":
        return of_task(evaluation.clean, *rest)
    return of_attack(evaluation.attacks[rest[0]], *rest[1:])


def of_attack(attack: AttackRecord, first: str, *rest: str) -> object:
    if first == "program":
        return np.array(getattr(attack.programs, rest[0]))
    if first == "start":
        return of_task(attack.at_start, *rest)
    return of_task(attack.tasks, first, *rest) if rest else getattr(attack, first)


def of_task(records: Mapping[str, TaskRecord], letter: str, what: str, name: str = "") -> object:
    return records[letter].measures[name] if name else getattr(records[letter], what)


def assert_recorded(evaluation: Evaluation, file: h5py.File) -> None:
    for place, stored in stored_values(file).items():
        found = recorded(evaluation, place)
        if isinstance(stored, str):
            assert found == stored, place
        else:
            np.testing.assert_array_equal(found, stored, err_msg=place)


def test_every_number_that_evaluation_writes_is_read(real: Path) -> None:
    evaluation = read_evaluation(real)
    with h5py.File(real) as file:
        assert_recorded(evaluation, file)
        for name, attack in evaluation.attacks.items():
            fields = dict(file[f"attacks/{name}"].attrs)
            for key, value in fields.items():
                if key != "time_limit":
                    assert getattr(attack, key) == value
    assert evaluation.gradients is not None
    assert evaluation.gradients.tasks == "sdn"
    assert evaluation.gradients.subsets == ("s", "d", "n", "sd", "sn", "dn", "sdn")
    assert evaluation.attacks["program"].pixels == 7
    assert evaluation.attacks["pgd"].pixels is None
    assert evaluation.attacks["pgd"].curve.shape == (3, 2)
    assert evaluation.attacks["noise"].curve is None
    assert evaluation.attacks["noise"].at_start is not None
    assert evaluation.attacks["released"].l2_step == "released"
    assert evaluation.attacks["released"].programs is None


def test_every_number_of_a_made_up_file_is_read(whole: Path) -> None:
    evaluation = read_evaluation(whole)
    with h5py.File(whole) as file:
        assert_recorded(evaluation, file)
    assert evaluation.flags == (FLAG,)
    assert list(evaluation.clean["n"].measures) == list(measures_of("n"))
    assert evaluation.clean["s"].measures == {}


def test_measures_have_the_names_that_are_written() -> None:
    one, yes = torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)
    assert tuple(normal_measures(one, yes)) == measures_of("n")
    assert tuple(depth_measures(one, one, yes)) == measures_of("d") == measures_of("D")
    assert measures_of("E") == ("absolute",)
    assert measures_of("s") == ()


def test_what_a_job_did_not_ask_for_is_none(results: Path) -> None:
    evaluation = read_evaluation(results / "evaluations" / "combinations-resnet18-sd.h5")
    assert evaluation.gradients is None
    assert evaluation.flags == ()
    for attack in evaluation.attacks.values():
        assert attack.at_start is None
        assert attack.programs is None
        assert (attack.curve is None) == (attack.stepper == "noise")


def test_pixels_and_kind_of_step_are_part_of_the_threat(whole: Path) -> None:
    attack = read_evaluation(whole).attacks[PGD]
    assert dataclasses.replace(attack, name="other", balancer="dgba", attacked="s").threat == attack.threat
    assert dataclasses.replace(attack, l2_step="released").threat != attack.threat
    assert dataclasses.replace(attack, pixels=3).threat != attack.threat


def replaced(place: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        values = change(file[place][()])
        del file[place]
        file[place] = values

    return edit


def removed(place: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(place)


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[(2,) * values.ndim] = value
        return values

    return change


def flags(text: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file["flags"]
        file.create_dataset("flags", data=text, dtype=h5py.string_dtype())

    return edit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.attrs.modify("format", "headstrong-evaluation-1"), "not an evaluation"),
        (removed("clean/n/measures/angle_mean"), "incomplete"),
        (removed(f"attacks/{PGD}/d/measures/relative"), "incomplete"),
        (replaced("clean/d/measures/absolute", with_value(np.inf)), "d/measures/absolute holds"),
        (replaced("clean/d/measures/absolute", lambda v: v[:5]), "has shape"),
        (replaced(f"attacks/{PGD}/d/measures/absolute", with_value(np.nan)), "task d: an error or a measure is not"),
        (removed(f"attacks/{PGD}/curve"), "incomplete"),
        (replaced(f"attacks/{PGD}/curve", lambda v: v[:, :2]), "curve has shape"),
        (replaced(f"attacks/{PGD}/curve", lambda v: v[:0]), "curve has shape"),
        (replaced(f"attacks/{PGD}/curve", with_value(np.nan)), "curve holds a value"),
        (removed(f"attacks/{PGD}/start"), "incomplete"),
        (removed(f"attacks/{PGD}/start/s/confusion"), "incomplete"),
        (replaced(f"attacks/{PGD}/start/s/error", with_value(np.nan)), "task s: an error or a measure is not"),
        (lambda file: file[f"attacks/{PGD}"].attrs.__delitem__("l2_step"), "incomplete"),
        (removed(f"attacks/{PROGRAM}/program"), "incomplete"),
        (removed(f"attacks/{PROGRAM}/program/bound"), "incomplete"),
        (replaced(f"attacks/{PROGRAM}/program/gap", with_value(np.nan)), "gap holds a value"),
        (replaced(f"attacks/{PROGRAM}/program/fallback", lambda v: v[:4]), "expected 6"),
        (removed("gradients"), "incomplete"),
        (replaced("gradients/gram", lambda v: v[:, :2]), "gram has shape"),
        (replaced("gradients/l1", lambda v: v[:, :2]), "l1 has shape"),
        (lambda file: file["gradients"].attrs.modify("tasks", "sdE"), "gradients of tasks sdE"),
        (removed("flags"), "incomplete"),
        (flags("["), "truncated or foreign"),
        (flags('[{"attack": "a"}]'), "a flag has other keys"),
        (flags('["a"]'), "a flag has other keys"),
    ],
)
def test_what_is_broken_is_named_in_one_line(
    whole: Path, tmp_path: Path, damage: Callable[[h5py.File], None], words: str
) -> None:
    path = tmp_path / whole.name
    shutil.copy(whole, path)
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(BrokenFileError, match=words) as caught:
        read_evaluation(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("run the evaluation again")
    assert "\n" not in str(caught.value)


def test_a_bound_that_is_unknown_is_infinite(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / whole.name
    shutil.copy(whole, path)
    with h5py.File(path, "a") as file:
        for name in ("gap", "bound"):
            replaced(f"attacks/{PROGRAM}/program/{name}", with_value(np.inf))(file)
    programs = read_evaluation(path).attacks[PROGRAM].programs
    assert programs is not None
    assert np.isinf([programs.gap[2], programs.bound[2]]).all()


# --- curves.csv, flags.csv, programs.csv --------------------------------------------------------------------------


def test_curves_are_those_of_the_file(tmp_path: Path) -> None:
    jobs = [synthetic.attack("pgd", "total", "nsd", steps=5), synthetic.attack("pgd", "single", "s", steps=3)]
    jobs.append(synthetic.attack("noise", "total", "nsd", "noise", 1))
    path, plan_file = synthetic.study_of_one(tmp_path, jobs)
    table = curves.build_table(path.parent, plan_file)
    assert list(table.columns) == list(curves.COLUMNS)
    assert len(table) == 5 * 3 + 3
    assert set(table["attacked"]) == {"sdn", "s"}
    with h5py.File(path) as file:
        for row in table.itertuples():
            group = file[f"attacks/{row.attack}"]
            column = str(group.attrs["attacked"]).index(row.task)  # in the order of the job, not of the study
            assert row.loss == group["curve"][row.step, column]
            clean = file[f"clean/{row.task}/loss"][:].astype(float).mean()
            assert row.relative == pytest.approx(row.loss / clean - 1, rel=1e-12)
    assert np.allclose(table.loc[table["step"].eq(0), "relative"], 0, atol=1e-6)
    pd.testing.assert_frame_equal(table, curves.build_table(path.parent, plan_file, processes=2))
    write_table(table, tmp_path / "curves.csv")
    back = read_table(tmp_path / "curves.csv")
    pd.testing.assert_frame_equal(table, back, check_dtype=False, rtol=0, atol=0)


def test_flags_are_those_of_the_files(tmp_path: Path) -> None:
    flag = {"attack": "", "task": "d", "flag": "zero loss", "message": 'A, "b"; c.', "samples": 2, "of": 16}
    path, plan_file = synthetic.study_of_one(tmp_path, [synthetic.attack("pgd", "single", "d")], flags=(flag,))
    table = checks.build_flags(path.parent, plan_file)
    assert table.to_dict("records") == [{"model": "a-resnet18-nsd", **flag}]
    write_table(table, tmp_path / "flags.csv")
    assert read_table(tmp_path / "flags.csv").to_dict("records") == table.to_dict("records")


def programs_study(folder: Path) -> tuple[Path, Path]:
    closed = {"start": "clean", "steps": 1}
    jobs = [
        synthetic.attack("ilp", "dgba", "sd", "ilp_max_min", **closed),
        synthetic.attack("sparse", "dgba", "nsd", "ilp_sparse", pixels=9, **closed),
        synthetic.attack("fgsm", "dgba", "ds", "fgsm", **closed),
        synthetic.attack("before", "total", "sd", "fgsm", **closed),
        synthetic.attack("fgsm4", "dgba", "sd", "fgsm", epsilon=4 / 255, **closed),
    ]
    return synthetic.study_of_one(folder, jobs)


def test_programs_against_the_closed_form(tmp_path: Path) -> None:
    path, plan_file = programs_study(tmp_path)
    table = checks.build_programs(path.parent, plan_file)
    assert list(table.columns) == list(checks.PROGRAM_COLUMNS)
    assert list(table["stepper"]) == ["ilp_max_min", "ilp_sparse"]
    row = table.iloc[0]
    with h5py.File(path) as file:
        group = file[f"attacks/{row['attack']}"]
        least = {}
        for name in (row["attack"], "fgsm.dgba.ds.linf.8.1"):
            images = []
            for image in range(16):
                changes = []
                for letter in "sd":
                    before = float(file[f"clean/{letter}/loss"][image])
                    changes.append((float(file[f"attacks/{name}/{letter}/loss"][image]) - before) / before)
                images.append(min(changes))
            least[name] = np.array(images)
        ours, theirs = least.values()
        status, fallback = (list(group[f"program/{key}"].asstr()[:]) for key in ("status", "fallback"))
        assert row["images"] == 16
        assert 0 < row["optimal"] == status.count("optimal") < 16
        assert row["fell_back"] == fallback.count("closed form")
        assert row["mean_gap"] == pytest.approx(group["program/gap"][:].mean(), rel=1e-12)
    assert row["least_program"] == pytest.approx(ours.mean(), rel=1e-12)
    assert row["least_closed_form"] == pytest.approx(theirs.mean(), rel=1e-12)
    assert row["gain"] == pytest.approx((ours - theirs).mean(), rel=1e-12)
    assert row["gain_standard_error"] == pytest.approx(scipy_stats.sem(ours - theirs), rel=1e-12)
    assert pd.isna(row["pixels"])
    other = table.iloc[1]
    assert other["pixels"] == 9
    assert np.isnan([other["least_closed_form"], other["gain"]]).all()  # none on all three tasks
    write_table(table, tmp_path / "programs.csv")
    back = read_table(tmp_path / "programs.csv")
    pd.testing.assert_frame_equal(table, back, check_dtype=False, rtol=0, atol=0)


def test_programs_without_a_bound_or_a_clean_loss(tmp_path: Path) -> None:
    path, plan_file = programs_study(tmp_path)
    name = "ilp.dgba.sd.linf.8.1"
    with h5py.File(path, "a") as file:
        file[f"attacks/{name}/program/gap"][3] = np.inf
        file["clean/s/loss"][5] = 0  # d alone counts on this image
        file["clean/s/loss"][6] = file["clean/d/loss"][6] = 0  # no task does
    evaluation = read_evaluation(path)
    attack = evaluation.attacks[name]
    least = checks.least_changes(evaluation, attack)
    d = attack.tasks["d"].loss / np.where(evaluation.clean["d"].loss > 0, evaluation.clean["d"].loss, np.nan) - 1
    assert least[5] == pytest.approx(d[5], rel=1e-12)
    assert np.flatnonzero(np.isnan(least)).tolist() == [6]
    row = checks.build_programs(path.parent, plan_file).iloc[0]
    assert np.isnan(row["mean_gap"])
    assert row["least_program"] == pytest.approx(np.nanmean(least), rel=1e-12)
