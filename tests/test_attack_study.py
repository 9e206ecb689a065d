"""Every kind of model and attack through the whole workflow, on almost no data."""

import pandas as pd
import pytest

import checkout
import nyuv2_folders
from headstrong.analysis.records import read_evaluation

STUDY = checkout.only(
    """
study: {name: everything}
data: {size: [32, 32], train: 16, test: 3, antialias: 1}
tasks: sdn
plan:
  weighted: {tasks: sd}
  three: {}
  three-adversarial: {}
  three-corner: {}
  sharing: {}
  three-released: {encoders: [resnet18], tasks: sdn, sizes: [3], reference: true, protocol: {preset: released}}
generators: null
importance: null
hidden: null
chains: [sdn]
model: {width: 0.0625}
training: {epochs: 1, batch_size: 8}
attacks:
  pgd: {steps: [2], chains: true}
  apgd: {steps: [2]}
  apgd-balanced: {steps: [2]}
  wgd: {steps: [2], balancer: [wgd, wgd_published, wgd_cyclic]}
  balanced: {steps: [2]}
  mim: {steps: [2]}
  budgets: {steps: [2]}
  shorter: {steps: [1]}
  l2: {steps: [2]}
  sparse: {stepper: ilp_sparse, balancer: [dgba], epsilon: ["8/255"], pixels: [4], sections: [three]}
analysis: {steps: 2, bootstrap: 50}
figures: {dpi: 50}
""",
    sections=["plan"],
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = checkout.make(tmp_path_factory.mktemp("everything") / "headstrong", STUDY)
    checkout.run(folder, study="everything")
    return folder / "results" / "everything"


def table(results, name: str) -> pd.DataFrame:
    return pd.read_csv(results / "tables" / f"{name}.csv", keep_default_na=False)


def test_a_switch_that_trains_nothing_has_no_weights_of_its_own(results):
    trained = {path.name for path in (results / "models").iterdir()}
    assert "three-resnet18-sdn" in trained
    assert "three-released-resnet18-sdn" in trained
    assert "three-corner-resnet18-sdn" not in trained
    weights = {
        read_evaluation(results / "evaluations" / f"{name}-resnet18-sdn.h5").clean["d"].loss.tobytes()
        for name in ("three", "three-corner")
    }
    assert len(weights) == 1


def test_every_stepper_and_balancer_was_run(results):
    evaluation = read_evaluation(results / "evaluations" / "three-resnet18-sdn.h5")
    attacks = evaluation.attacks.values()
    assert {attack.stepper for attack in attacks} == {
        "fgsm", "pgd", "mim", "apgd", "noise", "ilp_max_min", "ilp_sparse",
    }  # fmt: skip
    assert {attack.balancer for attack in attacks} == {
        "single", "total", "sign_sum", "wgd_published", "wgd_released", "wgd_cyclic", "dgba",
    }  # fmt: skip


def test_a_sparse_perturbation_is_sparse(results):
    evaluation = read_evaluation(results / "evaluations" / "three-resnet18-sdn.h5")
    sparse = next(attack for attack in evaluation.attacks.values() if attack.stepper == "ilp_sparse")
    assert (sparse.l2 <= (4 * 3) ** 0.5 * sparse.epsilon + 1e-6).all()
    assert (sparse.linf > 0).all()


def test_the_tables_have_what_they_are_for(results):
    balanced = table(results, "balanced")
    assert {"single", "total", "sign_sum", "dgba"} <= set(balanced["balancer"])
    assert set(balanced.loc[balanced["adversarial"].ne(""), "model"]) == {"three-adversarial-resnet18-sdn"}
    transfer = table(results, "transfer")
    shares = transfer.loc[transfer["layout"].ne("")].groupby("layout")["shared_levels"].unique()
    assert {str(int(float(key))): list(value) for key, value in shares.items()} == {"0": [5], "1": [0]}
    switches = table(results, "switches")
    assert set(switches["model"]) == {"three-corner-resnet18-sdn", "three-released-resnet18-sdn"}
    assert set(table(results, "table_2")["attack"]) == {"apgd", "wgd"}
    assert set(table(results, "table_1")["weighting"]) == {"weighted"}
    programs = table(results, "programs")
    assert set(programs["stepper"]) == {"ilp_max_min", "ilp_sparse"}
    for name in ("theory", "marginal", "curves"):
        assert len(table(results, name)), name


def test_the_report_shows_them(results):
    page = (results / "report.html").read_text()
    for words in ("One perturbation against all tasks", "Integer programs", "Transfer against sharing", "Theorem 4"):
        assert words in page


@pytest.mark.parametrize(("study", "models"), [("dgba_taskonomy", 9), ("dgba", 9), ("attacks", 46), ("switches", 20)])
def test_the_studies_of_attacks_can_be_planned(tmp_path, monkeypatch, study, models):
    nyuv2_folders.write_folders(tmp_path / "real" / "nyuv2")
    (tmp_path / "real" / "taskonomy").mkdir()
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path / "real"))
    folder = checkout.make(tmp_path / "headstrong")
    jobs = checkout.dry_run(folder, study=study)
    assert len(jobs["evaluate_model"]) == models
    assert len(jobs["build_data"]) == 2
    assert {"collect_attacks", "make_tables", "draw_figures", "make_report"} <= set(jobs)
