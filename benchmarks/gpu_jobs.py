"""A sample of the jobs of a full study, in a file that needs neither the configuration nor its libraries to be read.

    python -m benchmarks.gpu_jobs          writes benchmarks/full_jobs.json from studies/full.yaml and full_rooms64.yaml

A stratum is a section of the plan, an encoder and a number of tasks. Runs of a stratum are drawn by a hash of their
ids. The sample's order goes round the strata, so that any beginning of it covers as many as it can. A run that early
models are checkpoints of has the evaluation of one of them as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstrong import program
from headstrong.jobs import EvaluationJob, TrainingJob, evaluation_job_from_dict, to_dict, training_job_from_dict
from headstrong.provenance import ROOT, write_atomically
from headstrong.seeds import derive_seed

if TYPE_CHECKING:
    from headstrong.study import ModelSpec, Plan

JOBS = ROOT / "benchmarks" / "full_jobs.json"
FORMAT = "headstrong-full-jobs-1"
FILES = ("config.yaml", "studies/full.yaml", "benchmarks/full_rooms64.yaml")
# Runs of a stratum in the sample, by section and number of tasks; the large strata decide the hours.
SAMPLE = {
    ("combinations", 4): 12,
    ("combinations", 3): 10,
    ("combinations", 2): 6,
    ("weighted", 2): 4,
    ("encoders", 2): 4,
}
OTHERS = 2


@dataclass(frozen=True)
class SampledRun:
    """One training of the study and what is evaluated of it: (stratum, job, epochs) each, `epochs` as trained."""

    stratum: str
    training: TrainingJob
    evaluations: tuple[tuple[str, EvaluationJob, int], ...]


@dataclass(frozen=True)
class FullJobs:
    """The data of the study, how many trainings and evaluations each stratum has, and the sample in its order."""

    data: dict[str, dict[str, Any]]  # by split, what `build_split` takes
    runs: dict[str, int]
    evaluations: dict[str, int]
    sample: tuple[SampledRun, ...]


def stratum(model: ModelSpec) -> str:
    """Section, encoder and number of tasks: "combinations resnet18 3"."""
    return f"{model.section} {model.encoder} {len(model.tasks)}"


def describe(plan: Plan) -> dict[str, Any]:
    """The content of the file: jobs without the fields that all of a kind share, and these once."""
    members: dict[str, list[ModelSpec]] = {}
    for run in plan.runs:
        members.setdefault(stratum(run), []).append(run)
    chosen = [sorted(found, key=_lot)[: _wanted(found[0])] for found in members.values()]
    ordered = [run for turn in zip_longest(*chosen) for run in turn if run is not None]
    trainings = [to_dict(plan.training_job(run.id)) for run in ordered]
    found = [[model, *_early(plan, model)] for model in ordered]
    evaluations = [[to_dict(plan.evaluation_job(model.id)) for model in models] for models in found]
    attacks = [attack for jobs in evaluations for job in jobs for attack in job["attacks"]]
    shared = {
        "training": _shared(trainings),
        "evaluation": _shared([job for jobs in evaluations for job in jobs]),
        "attack": _shared(attacks),
    }
    sample = [
        {
            "stratum": stratum(models[0]),
            "training": _own(training, shared["training"]),
            "evaluations": [
                [stratum(model), model.epochs, _evaluation_without(job, shared)]
                for model, job in zip(models, jobs, strict=True)
            ],
        }
        for training, models, jobs in zip(trainings, found, evaluations, strict=True)
    ]
    return {
        "format": FORMAT,
        "data": {split: plan.data_settings(split) for split in ("train", "test")},
        "runs": {name: len(found) for name, found in members.items()},
        "evaluations": _counts(plan),
        "shared": shared,
        "sample": sample,
    }


def _lot(model: ModelSpec) -> int:
    return derive_seed(0, "sample of the full study", model.id)


def _wanted(model: ModelSpec) -> int:
    return SAMPLE.get((model.section, len(model.tasks)), OTHERS)


def _early(plan: Plan, run: ModelSpec) -> list[ModelSpec]:
    return [model for model in plan.models if model.early and model.run == run.id]


def _counts(plan: Plan) -> dict[str, int]:
    found: dict[str, int] = {}
    for model in plan.models:
        found[stratum(model)] = found.get(stratum(model), 0) + 1
    return found


def _shared(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Fields of the same value in all."""
    return {key: value for key, value in jobs[0].items() if all(job[key] == value for job in jobs)}


def _own(job: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if key not in shared}


def _evaluation_without(job: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    own = _own(job, shared["evaluation"])
    return {**own, "attacks": [_own(attack, shared["attack"]) for attack in job["attacks"]]}


def read_jobs(path: Path = JOBS) -> FullJobs:
    """The jobs of a file that `describe` made."""
    content = json.loads(path.read_text(encoding="utf-8"))
    shared = content["shared"]
    sample = [
        SampledRun(
            one["stratum"],
            training_job_from_dict({**shared["training"], **one["training"]}),
            tuple((name, _evaluation(job, shared), epochs) for name, epochs, job in one["evaluations"]),
        )
        for one in content["sample"]
    ]
    return FullJobs(content["data"], content["runs"], content["evaluations"], tuple(sample))


def _evaluation(own: dict[str, Any], shared: dict[str, Any]) -> EvaluationJob:
    attacks = [{**shared["attack"], **attack} for attack in own["attacks"]]
    return evaluation_job_from_dict({**shared["evaluation"], **own, "attacks": attacks})


def as_text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each run of the sample."""
    lines: Iterator[str] = (json.dumps(one, separators=(",", ":")) for one in content["sample"])
    head = json.dumps({key: value for key, value in content.items() if key != "sample"}, indent=1)
    return f'{head[:-2]},\n "sample": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def current() -> str:
    """What the file should hold."""
    from headstrong.configfiles import load  # late: needs pydantic and yaml, which reading the file does not
    from headstrong.study import Plan

    return as_text(describe(Plan(load([ROOT / name for name in FILES]))))


def main(arguments: argparse.Namespace) -> None:
    write_atomically(arguments.output, current())


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--output", type=Path, default=JOBS, help="the file of jobs")
    sys.exit(program.run(main, parser))
