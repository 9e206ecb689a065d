"""headstrong: one workflow that re-runs five studies of multi-task networks under adversarial perturbation.

The studies themselves run with `make study` or `snakemake`; this command shows what they would do and what they need.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

from headstrong import program


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m headstrong`; returns the exit code."""
    parser = program.argument_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "plan", plan, "the models of a study, as CSV").add_argument(
        "--count", action="store_true", help="print only how many there are"
    )
    _add(commands, "config", config, "the configuration of a study with everything filled in, as YAML")
    _add(commands, "schema", schema, "the JSON schema of config.yaml")
    commands.add_parser("doctor", help="what this machine can run").set_defaults(function=doctor)
    return program.run(lambda arguments: arguments.function(arguments), parser, argv)


def _add(commands: argparse._SubParsersAction, name: str, function: object, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    if name != "schema":
        parser.add_argument(
            "--study", nargs="+", default=["quick"], metavar="NAME", help="study and overlays, e.g. full tiny"
        )
    parser.set_defaults(function=function)
    return parser


def plan(arguments: argparse.Namespace) -> None:
    """Print the plan, or its count; the count by section goes to the error stream."""
    from headstrong.configfiles import load, study_files
    from headstrong.study import COLUMNS, Plan, rows

    found = Plan(load(study_files(arguments.study)))
    if arguments.count:
        print(found.count())
        sections = Counter(model.section for model in found.models)
        print(", ".join(f"{name} {count}" for name, count in sections.items()), file=sys.stderr)
        made = found.generated
        if made.generators:
            print(f"{len(made.classifiers)} classifiers, {len(made.generators)} generators", file=sys.stderr)
        if found.importance.trials:
            print(f"{len(found.importance.trials)} classifiers for important classes", file=sys.stderr)
        if found.hidden.turns:
            turns, copies = len(found.hidden.turns), len(found.hidden.forgettings)
            print(f"{turns} hidden tasks, {copies} forgetful copies", file=sys.stderr)
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(found.models))


def config(arguments: argparse.Namespace) -> None:
    """Print the merged configuration."""
    import yaml

    from headstrong.configfiles import load, study_files

    print(yaml.safe_dump(load(study_files(arguments.study)).model_dump(), sort_keys=False), end="")


def schema(_: argparse.Namespace) -> None:
    """Print the JSON schema."""
    from headstrong.config import schema as text

    print(text(), end="")


def doctor(_: argparse.Namespace) -> None:
    """Print what this machine offers: versions, processors, GPU, SLURM, data sets."""
    from headstrong.data.acquire import DATASETS, locate
    from headstrong.errors import UserError
    from headstrong.provenance import versions

    for name, version in versions().items():
        print(f"{name:14} {version}")
    print(f"{'processors':14} {os.cpu_count()}")
    print(f"{'GPU':14} {_gpus()}")
    sbatch = shutil.which("sbatch")
    slurm_plugin = importlib.util.find_spec("snakemake_executor_plugin_slurm") is not None
    print(f"{'SLURM':14} {sbatch or 'no sbatch here'}; Snakemake plugin {'installed' if slurm_plugin else 'missing'}")
    print(f"{'rooms, objects':14} embedded, nothing to place")
    for dataset in DATASETS:
        try:
            print(f"{dataset:14} {locate(dataset)}")
        except UserError as error:
            print(f"{dataset:14} {error}")


def _gpus() -> str:
    # Importing torch takes seconds and may fail; a process of its own keeps doctor standing.
    code = (
        "import torch; n = torch.cuda.device_count(); "
        "print(', '.join(torch.cuda.get_device_name(i) for i in range(n)) or 'none, everything runs on the CPU')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines() or [
        "no answer from torch"
    ]
    return lines[-1]
