"""What a finished study took, by stage, from the run records that its jobs left.

    python -m benchmarks.stages results/full-tiny --output results/reference/full-tiny/stages.csv

Seconds are those of the jobs themselves (wall-clock, from reading inputs to whole outputs), without Snakemake's own
time between them: `first` and `last` tell when the first job of a stage began and the last one ended, in UTC.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from headstrong.analysis.files import write_table
from headstrong.lineage import read_record

COLUMNS = ("rule", "jobs", "seconds", "median_seconds", "longest_seconds", "longest_job", "first", "last")


def stages(study: Path) -> pd.DataFrame:
    """A row per rule, COLUMNS, in the order of their first jobs. Raises BrokenFileError for a broken record."""
    records = pd.DataFrame([found for path in sorted(study.rglob("*.json")) if (found := _facts(path)) is not None])
    rows = [_row(str(rule), jobs) for rule, jobs in records.groupby("rule")]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(["first", "rule"], ignore_index=True)


def _facts(path: Path) -> dict[str, object] | None:
    record = read_record(path)
    if record is None or record.old:
        return None
    keys = ("rule", "seconds", "start", "end")
    name = path.parent.name if path.stem == "run" else path.stem
    return {"job": name, **{key: record.content[key] for key in keys}}


def _row(rule: str, jobs: pd.DataFrame) -> dict[str, object]:
    longest = jobs.loc[jobs["seconds"].idxmax()]
    return {
        "rule": rule,
        "jobs": len(jobs),
        "seconds": round(jobs["seconds"].sum(), 1),
        "median_seconds": round(jobs["seconds"].median(), 2),
        "longest_seconds": round(longest["seconds"], 1),
        "longest_job": longest["job"],
        "first": jobs["start"].min(),
        "last": jobs["end"].max(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the folder of a finished study, results/<study>")
    parser.add_argument("--output", type=Path, required=True, help="the CSV to write")
    arguments = parser.parse_args()
    write_table(stages(arguments.study), arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
