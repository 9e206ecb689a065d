"""Marginal vulnerability where losses are linear, so that Lemma 5 is exact, and where they are not."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import synthetic
from headstrong.analysis import marginal, vulnerability
from headstrong.analysis.records import Evaluation, Gradients, read_evaluation
from headstrong.jobs import AttackJob
from synthetic import one as the

SAMPLES, PIXELS = 10, 16
THREATS = ({}, {"norm": "l2", "epsilon": 0.5})
MODEL = "a-resnet18-snd"


def attacks() -> list[AttackJob]:
    """Every set of the three tasks under two threats, and attacks that have nothing to do with Definition 3."""
    jobs = []
    for threat in THREATS:
        jobs += [synthetic.attack("pgd", "single", letter, **threat) for letter in "sdn"]
        jobs += [synthetic.attack("pgd", "total", tasks, **threat) for tasks in ("sd", "sn", "dn", "sdn")]
    others = [synthetic.attack("noise", "total", tasks, "noise", 1) for tasks in ("sd", "sdn")]
    others += [synthetic.attack("pgd", "dgba", tasks) for tasks in ("sd", "sdn")]
    return [*jobs, *others, synthetic.attack("pgd", "total", "sdn", steps=50)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three tasks whose losses are linear in the image, and a single-task model without gradients."""
    folder = tmp_path_factory.mktemp("marginal")
    specs = [synthetic.row("a", "resnet18", letters, 9) for letters in ("snd", "s")]
    wanted = synthetic.Study(encoders=(), sizes=(), five=False, early=False, specs=specs, samples=SAMPLES)
    synthetic.write_study(folder, wanted)
    path = folder / "evaluations" / f"{MODEL}.h5"
    path.unlink()
    synthetic.write_evaluation(path, MODEL, "snd", attacks(), specs[0], wanted)
    make_linear(path, gradients())
    return folder


def gradients(seed: int = 0) -> np.ndarray:
    """Gradients (SAMPLES, 3, PIXELS) of s, n and d, of unequal size and with something in common."""
    rng = np.random.default_rng(seed)
    r = rng.normal(size=(SAMPLES, 3, PIXELS)) + rng.normal(size=(SAMPLES, 1, PIXELS))
    return r * np.array([4.0, 1.0, 0.5])[None, :, None]


def make_linear(path: Path, r: np.ndarray, tasks: str = "snd") -> None:
    """Put the gradients into an evaluation, and the losses of the best attack on losses that are linear."""
    subsets = ["".join(c) for k in range(1, len(tasks) + 1) for c in itertools.combinations(tasks, k)]
    sums = {subset: r[:, [tasks.index(x) for x in subset]].sum(axis=1) for subset in subsets}
    with h5py.File(path, "a") as file:
        group = file.create_group("gradients")
        group.attrs.update(tasks=tasks, subsets=json.dumps(subsets))
        group["gram"] = np.einsum("kip,kjp->kij", r, r)
        group["mean_gram"] = r.mean(axis=0) @ r.mean(axis=0).T
        group["l1"] = np.stack([np.abs(v).sum(axis=1) for v in sums.values()], axis=1)
        group["l2"] = np.stack([np.linalg.norm(v, axis=1) for v in sums.values()], axis=1)
        for attack in file["attacks"].values():
            g = r[:, [tasks.index(x) for x in str(attack.attrs["attacked"])]].sum(axis=1)
            way = np.sign(g) if attack.attrs["norm"] == "linf" else g / np.linalg.norm(g, axis=1, keepdims=True)
            for number, letter in enumerate(tasks):
                change = (r[:, number] * way).sum(axis=1) * attack.attrs["epsilon"]
                clean = file[f"clean/{letter}/loss"][:].astype(np.float64)
                del attack[letter]["loss"]
                attack[letter]["loss"] = clean + change


@pytest.fixture(scope="module")
def evaluation(study: Path) -> Evaluation:
    return read_evaluation(study / "evaluations" / f"{MODEL}.h5")


def norm_of(letters: str, threat: dict[str, object]) -> float:
    joint = gradients()[:, ["snd".index(x) for x in letters]].sum(axis=1)
    if threat.get("norm") == "l2":
        return float(np.linalg.norm(joint, axis=1).mean())
    return float(np.abs(joint).sum(axis=1).mean())


def test_lemma_5_is_exact_and_theorem_4_holds_where_losses_are_linear(study: Path) -> None:
    table = marginal.build_table(study / "evaluations", study / "plan.csv")
    assert list(table.columns) == list(marginal.COLUMNS)
    assert set(table["model"]) == {MODEL}
    assert set(table["stepper"]) == {"pgd"}
    assert len(table) == 2 * (3 * 2 + 3)  # each task of three pairs and of the three tasks; the rest has no partner
    for threat in THREATS:
        epsilon = threat.get("epsilon", synthetic.EPSILON)
        for attacked in ("sd", "sn", "dn", "sdn"):
            for added in attacked:
                before = attacked.replace(added, "")
                row = the(table, norm=threat.get("norm", "linf"), attacked=attacked, added=added)
                step = epsilon * (norm_of(attacked, threat) - norm_of(before, threat))
                # the files hold losses of single precision
                assert row["measured"] == pytest.approx(step, rel=1e-4, abs=1e-6)
                assert row["first_order"] == pytest.approx(step, rel=1e-12)
                new, worst = norm_of(added, threat), max(norm_of(x, threat) for x in before)
                bound = epsilon * (len(attacked) * new + len(before) * worst)
                assert row["bound"] == pytest.approx(bound, rel=1e-12)
                assert row["bound_ratio"] == pytest.approx(row["measured"] / bound, rel=1e-12)
                assert row["first_order"] <= epsilon * new
                assert row["bound_mean"] == pytest.approx(epsilon * (new + worst), rel=1e-12)
                mean = norm_of(attacked, threat) / len(attacked) - norm_of(before, threat) / len(before)
                assert row["measured_mean"] == pytest.approx(epsilon * mean, rel=1e-4, abs=1e-6)
                assert row["n"] == SAMPLES
    assert table["holds"].all()
    assert table["holds_mean"].all()


def test_measured_is_definition_3_of_the_other_table(study: Path) -> None:
    ours = marginal.build_table(study / "evaluations", study / "plan.csv", processes=2)
    theirs = vulnerability.build_table(study / "evaluations", study / "plan.csv")
    for row in ours.to_dict("records"):
        other = the(theirs, model=MODEL, attack=row["attack"], task=row["added"], metric="marginal_vulnerability")
        assert (row["measured"], row["standard_error"]) == (other["mean"], other["standard_error"])


def test_a_marginal_vulnerability_above_the_bound_is_said(evaluation: Evaluation) -> None:
    name = "pgd.total.sdn.linf.8.25"
    attack = evaluation.attacks[name]
    leap = {k: dataclasses.replace(v, loss=v.loss + 100.0) for k, v in attack.tasks.items()}
    steep = dataclasses.replace(
        evaluation, attacks={**evaluation.attacks, name: dataclasses.replace(attack, tasks=leap)}
    )
    table = pd.DataFrame(marginal.rows(steep))
    broken = table.loc[table["attack"].eq(name)]
    assert len(broken) == 3
    assert not broken["holds"].any()
    assert not broken["holds_mean"].any()
    assert broken["bound_ratio"].gt(1).all()
    assert table.loc[table["attack"].ne(name), "holds"].all()

    said = marginal.summary(table)
    assert list(said.columns) == list(marginal.SUMMARY_COLUMNS)
    for threat in THREATS:
        norm = threat.get("norm", "linf")
        part = table.loc[table["norm"].eq(norm)]
        row = the(said, norm=norm)
        assert row["cases"] == len(part) == 9
        assert row["holds"] == pytest.approx(6 / 9 if norm == "linf" else 1)
        assert row["bound_ratio"] == sorted(part["bound_ratio"])[4]
        assert row["largest_bound_ratio"] == max(part["bound_ratio"])
    assert the(said, norm="l2")["first_order_error"] < 1e-3


def test_standard_errors_are_those_of_pairs(evaluation: Evaluation) -> None:
    table = pd.DataFrame(marginal.rows(evaluation))
    row = the(table, norm="linf", attacked="sdn", added="n")
    larger, smaller = (
        sum(evaluation.attacks[f"pgd.total.{x}.linf.8.25"].tasks[t].loss - evaluation.clean[t].loss for t in x)
        for x in ("sdn", "sd")
    )
    for scale, suffix in (((1, 1), ""), ((3, 2), "_mean")):
        difference = np.abs(larger) / scale[0] - np.abs(smaller) / scale[1]
        assert row[f"measured{suffix}"] == pytest.approx(difference.mean(), rel=1e-12)
        spread = difference.std(ddof=1) / math.sqrt(SAMPLES)
        assert row[f"standard_error{suffix}"] == pytest.approx(spread, rel=1e-12)


def test_norms_an_evaluation_lacks_leave_the_bound(evaluation: Evaluation) -> None:
    full = evaluation.gradients
    assert full is not None
    kept = [number for number, subset in enumerate(full.subsets) if len(subset) != 2]
    few: Gradients = dataclasses.replace(
        full, subsets=tuple(full.subsets[k] for k in kept), l1=full.l1[:, kept], l2=full.l2[:, kept]
    )
    expected = pd.DataFrame(marginal.rows(evaluation))
    found = pd.DataFrame(marginal.rows(dataclasses.replace(evaluation, gradients=few)))
    assert found["first_order"].isna().all()
    pd.testing.assert_frame_equal(found.drop(columns="first_order"), expected.drop(columns="first_order"))


def test_nothing_to_say(evaluation: Evaluation, study: Path, tmp_path: Path) -> None:
    assert marginal.rows(dataclasses.replace(evaluation, gradients=None)) == []
    lines = (study / "plan.csv").read_text().splitlines()
    (tmp_path / "plan.csv").write_text("\n".join([lines[0], *(x for x in lines if x.startswith("a-resnet18-s,"))]))
    table = marginal.build_table(study / "evaluations", tmp_path / "plan.csv")
    assert list(table.columns) == list(marginal.COLUMNS)
    assert table.empty
    assert marginal.summary(table).empty
