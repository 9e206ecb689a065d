"""What runs again after a change, and what does not: one finished study, and dry runs on it."""

import contextlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

import checkout
from headstrong.errors import MachineError

TRAINING = {"train_model", "train_model_with_checkpoints"}
FOLDER = "user's dätä (1) & more"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A study run in an oddly named folder under LC_ALL=C, and what a second Snakemake said that started meanwhile."""
    folder = checkout.make(tmp_path_factory.mktemp("finished") / FOLDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C")
        place = {"cwd": folder, "env": checkout.environment(), "stdin": subprocess.DEVNULL}
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(checkout.command(), **place, **silent) as first:
            while not list(folder.glob("results/micro/logs/build_data/*")):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"the study ended with {first.wait(timeout=0.05)} before a job started")
            second = checkout.snakemake(folder)
        if first.returncode:
            checkout.run(folder)  # says what failed, if it fails again
            pytest.fail(f"the study ended with {first.returncode}, and not so when it was run again")
    return folder, second


@pytest.fixture(scope="module")
def finished(undisturbed) -> Path:
    assert (undisturbed[0] / "results" / "micro" / "report.html").is_file()
    return undisturbed[0]


@pytest.fixture
def study(finished, tmp_path) -> Path:
    return checkout.copy(finished, tmp_path / "headstrong")


def change(folder: Path, **sections) -> None:
    file = folder / "studies" / "micro.yaml"
    content = yaml.safe_load(file.read_text())
    for section, values in sections.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def edit(file: Path) -> None:
    with file.open("a") as handle:
        handle.write("\n_EDITED = True\n")


def test_a_second_snakemake_says_who_runs_the_study_and_disturbs_nothing(undisturbed):
    second = undisturbed[1]
    (line,) = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
    assert "the study is being run by" in line
    assert second.returncode == MachineError.code
    assert "Traceback" not in second.stderr


def test_nothing_changed_nothing_to_do(study):
    assert checkout.dry_run(study) == {}


def test_another_epsilon_attacks_again_and_trains_nothing(study):
    change(
        study,
        attacks={"pgd": {"steps": [2], "epsilon": [0.01]}},
        analysis={"steps": 2, "bootstrap": 50, "epsilon": 0.01},
    )
    jobs = checkout.dry_run(study)
    assert not TRAINING & set(jobs)
    assert "build_data" not in jobs
    assert len(jobs["evaluate_model"]) == 6
    assert {"collect_vulnerability", "make_tables", "make_report"} <= set(jobs)


def test_figure_settings_redraw_figures_and_nothing_else(study):
    change(study, figures={"dpi": 60})
    assert set(checkout.dry_run(study)) == {"write_config", "draw_figures", "make_report", "all"}


def test_more_draws_for_intervals_make_tables_again_and_nothing_before_them(study):
    change(study, analysis={"steps": 2, "bootstrap": 60})
    jobs = set(checkout.dry_run(study))
    assert {"make_tables", "make_report"} <= jobs
    assert not jobs & {*TRAINING, "build_data", "evaluate_model", "measure_baselines"}


def test_one_more_task_adds_only_its_models(study):
    change(study, tasks="sdE")
    jobs = checkout.dry_run(study)
    trained = [wildcards for rule in TRAINING & set(jobs) for wildcards in jobs[rule]]
    assert sorted(trained) == [
        "run=combinations-resnet18-d_E",
        "run=combinations-resnet18-s_E",
        "run=single-resnet18-_E",
    ]
    assert len(jobs["evaluate_model"]) == 6
    assert all("_E" in wildcards for wildcards in jobs["evaluate_model"])
    assert "build_data" not in jobs


@pytest.mark.parametrize("file", ["figures/style.py", "analysis/vulnerability.py", "analysis/surrogates.py"])
def test_an_edit_in_figures_or_analysis_trains_and_attacks_nothing(study, file):
    edit(study / "src" / "headstrong" / file)
    jobs = set(checkout.dry_run(study))
    assert jobs
    assert not (TRAINING | {"evaluate_model", "build_data"}) & jobs


def test_an_edit_in_the_trainer_trains_again(study):
    edit(study / "src" / "headstrong" / "training.py")
    jobs = checkout.dry_run(study)
    assert sum(len(jobs.get(rule, [])) for rule in TRAINING) == 3
    assert "build_data" not in jobs


def test_an_edited_docstring_runs_nothing(study):
    file = study / "src" / "headstrong" / "training.py"
    text = file.read_text()
    assert text.startswith('"""')
    file.write_text(text.replace('"""', '"""In other words: ', 1))
    assert checkout.dry_run(study) == {}


def test_restored_results_beside_a_fresh_clone_run_nothing(study, tmp_path):
    archive = tmp_path / "results.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(study / "results", "results")
    shutil.rmtree(study / "results")
    clone = checkout.make(tmp_path / "clone")
    with tarfile.open(archive) as tar:
        tar.extractall(clone, filter="data")
    assert not (clone / ".snakemake").exists()
    assert checkout.dry_run(clone) == {}


def test_a_mistake_in_the_config_stops_before_any_job_with_one_line(study):
    change(study, training={"epochs": 0, "batch_size": 8})
    result = checkout.snakemake(study)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "studies/micro.yaml: training.epochs" in errors[0]
    assert "Traceback" not in result.stderr


def test_snakemakes_own_report_is_made(study):
    result = checkout.snakemake(study, "--report", "report.zip")
    assert result.returncode == 0, result.stderr[-2000:]
    assert (study / "report.zip").stat().st_size > 0


def test_a_model_that_the_plan_does_not_have_is_said_without_a_traceback(study):
    for name in ("evaluations/combinations-resnet18-xy.h5", "models/combinations-resnet18-xy/weights.safetensors"):
        result = checkout.snakemake(study, "--", f"results/micro/{name}")
        assert result.returncode != 0
        assert "(a model of the plan; combinations-resnet18-xy is none)" in result.stderr
        assert "Traceback" not in result.stderr
