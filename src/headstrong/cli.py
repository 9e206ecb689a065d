"""headstrong: one workflow that re-runs five studies of multi-task networks under adversarial perturbation.

The studies themselves run with `make study` or `snakemake`; this command shows what they would do and what they need.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from headstrong import program


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m headstrong`; returns the exit code."""
    parser = program.argument_parser(__doc__)
    parser.prog = "python -m headstrong"  # as it is typed, wherever this is called from
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "plan", plan, "the models of a study, as CSV").add_argument(
        "--count", action="store_true", help="print only how many there are"
    )
    _add(commands, "config", config, "the configuration of a study with everything filled in, as YAML")
    _add(commands, "schema", schema, "the JSON schema of config.yaml")
    text = "what this machine can run, and what will be used of it"
    commands.add_parser("doctor", help=text, description=text).set_defaults(function=doctor)
    _add_audit(commands)
    _add_fetch(commands)
    _add_verify(commands)
    _add_provenance(commands)
    _add_claims(commands)
    return program.run(lambda arguments: arguments.function(arguments), parser, argv)


def _add(commands: argparse._SubParsersAction, name: str, function: object, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    if name != "schema":
        parser.add_argument(
            "--study", nargs="+", default=["quick"], metavar="NAME", help="study and overlays, e.g. full tiny"
        )
    parser.set_defaults(function=function)
    return parser


def _add_audit(commands: argparse._SubParsersAction) -> None:
    text = "the papers' printed numbers checked against themselves, and what their open choices change in our runs"
    parser = commands.add_parser("audit", help=text, description=f"{text[0].upper()}{text[1:]} (docs/audit.md).")
    parser.add_argument("--format", default="table", metavar="FORMAT", help="table (default), csv or md")
    parser.add_argument("--page", action="store_true", help="the page docs/audit.md instead")
    parser.set_defaults(function=audit)


def _add_fetch(commands: argparse._SubParsersAction) -> None:
    from headstrong.data.acquire import DATASETS

    text = "bring a real data set into its folder, as far as its terms allow"
    parser = commands.add_parser("fetch", help=text, description=text)
    parser.add_argument("dataset", metavar="DATASET", help=", ".join(DATASETS))
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="the folder that holds a folder for each data set (docs/data.md)"
    )
    parser.add_argument("--registry", type=Path, help=argparse.SUPPRESS)  # another datasets.yaml, for tests
    parser.set_defaults(function=fetch)


def _add_verify(commands: argparse._SubParsersAction) -> None:
    text = "look whether a data set is whole: files missing, broken or extra, labels that cannot be"
    parser = commands.add_parser(
        "verify",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Exit code 0: whole; 1: not whole; 3: not there.",
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="taskonomy, nyuv2, office31, celeba, deepfashion, cifar10, "
        "gtsrb, awa2, or folder with the NAME of one of your own",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the folder, for the data set 'folder' only")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set, or the one that holds it")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="side by side")
    parser.add_argument("--report", type=Path, metavar="FILE", help="all that is found, as .json or .csv")
    parser.add_argument("--whole", action="store_true", help="other numbers of pictures than officially are faults")
    parser.set_defaults(function=verify)


def _add_provenance(commands: argparse._SubParsersAction) -> None:
    text = "where a result comes from: rule, settings, code, host, inputs down to the data; whether that still holds"
    parser = commands.add_parser("why", help=text, description=f"{text[0].upper()}{text[1:]} (docs/provenance.md).")
    parser.add_argument("result", type=Path, metavar="RESULT", help="any file of a results folder")
    parser.add_argument("--json", action="store_true", help="all that is known, as JSON")
    parser.set_defaults(function=why)
    text = "a finished study as an RO-Crate: results, what made each of them, and the workflow"
    parser = commands.add_parser("export", help=text, description=f"{text[0].upper()}{text[1:]} (docs/provenance.md).")
    parser.add_argument("study", type=Path, metavar="FOLDER", help="the study's folder, e.g. results/quick")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.zip|DIR", help="the crate to write")
    parser.add_argument(
        "--with-weights", action="store_true", help="weights and data caches too; else they are listed by digest"
    )
    parser.set_defaults(function=export)


def _add_claims(commands: argparse._SubParsersAction) -> None:
    text = "the verdicts of a study on the papers' claims; without a study, the claims and the rules of their verdicts"
    parser = commands.add_parser("claims", help=text, description=f"{text[0].upper()}{text[1:]} (docs/claims.md).")
    parser.add_argument("study", type=Path, nargs="?", metavar="FOLDER", help="the study's folder, e.g. results/quick")
    parser.add_argument("--format", choices=["text", "md", "csv"], default="text", help="how to print them")
    parser.set_defaults(function=claims)


def plan(arguments: argparse.Namespace) -> None:
    """Print the plan as CSV (columns `study.COLUMNS`), or its count; counts by section, and how long the study takes by
    what is recorded of it or its like, go to the error stream."""
    from headstrong import run_times
    from headstrong.configfiles import load_plan, study_files
    from headstrong.machine import processors
    from headstrong.study import COLUMNS, rows

    found = load_plan(study_files(arguments.study))
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
        for line in run_times.in_words(run_times.estimate(found), processors()[1]):
            print(line, file=sys.stderr)
        return
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(found.models))


def config(arguments: argparse.Namespace) -> None:
    """Print the merged configuration."""
    from headstrong.configfiles import as_yaml, load, study_files

    print(as_yaml(load(study_files(arguments.study))), end="")


def schema(_: argparse.Namespace) -> None:
    """Print the JSON schema."""
    from headstrong.config import schema as text

    print(text(), end="")


def doctor(_: argparse.Namespace) -> None:
    """Print what this machine offers and what will be used of it."""
    from headstrong.doctor import report

    _show_any_name()
    for line in report():
        print(line, flush=True)


def audit(arguments: argparse.Namespace) -> None:
    """Print the audit of the published numbers; ConfigError for an unknown --format."""
    from headstrong.errors import ConfigError

    if arguments.format not in ("table", "csv", "md"):
        raise ConfigError(f"--format {arguments.format}: expected table, csv or md")
    from headstrong.analysis import audit_text
    from headstrong.analysis.audit import findings

    found = findings()
    if arguments.page:
        text = audit_text.page(found)
    elif arguments.format == "csv":
        text = audit_text.as_csv(found)
    elif arguments.format == "md":
        text = audit_text.as_markdown(found)
    else:
        text = audit_text.as_table(found, shutil.get_terminal_size((100, 24)).columns)
    _show_any_name()
    print(text, end="")


def fetch(arguments: argparse.Namespace) -> None:
    """Download, check and unpack a data set, or say what a person must do; raises what `data.fetch.fetch` raises."""
    from headstrong.data.fetch import fetch as bring
    from headstrong.data.registry import REGISTRY

    print(bring(arguments.dataset, arguments.root, arguments.registry or REGISTRY))


def verify(arguments: argparse.Namespace) -> int:
    """Print whether a data set is whole; 1 where it is not. ConfigError for options that cannot be, before it looks."""
    from headstrong.data import verification, verify_report
    from headstrong.errors import ConfigError

    if arguments.processes < 1:
        raise ConfigError(f"--processes {arguments.processes}: expected 1 or more")
    if arguments.report is not None:
        verify_report.check_name(arguments.report)
    root = verification.place(arguments.dataset, arguments.root, arguments.name)
    verdict = verification.verify(
        arguments.dataset, root, processes=arguments.processes, whole=arguments.whole, name=arguments.name
    )
    if arguments.report is not None:
        verify_report.write(verdict, arguments.report)
    _show_any_name()
    print(verify_report.text(verdict))
    return 1 if verdict.faults else 0


def why(arguments: argparse.Namespace) -> None:
    """Print where a result comes from; raises what `why.explain` raises."""
    from headstrong.why import explain, in_words

    found = explain(arguments.result)
    print(json.dumps(found, indent=1, ensure_ascii=False) if arguments.json else in_words(found))


def export(arguments: argparse.Namespace) -> None:
    """Write the RO-Crate of a study; raises what `crate.export` raises."""
    from headstrong.crate import export as write

    print(write(arguments.study, arguments.output, weights=arguments.with_weights))


def claims(arguments: argparse.Namespace) -> None:
    """Print verdicts, or without a study what is claimed; MissingDataError where the study's folder is not there."""
    from headstrong.analysis import claims_words
    from headstrong.errors import MissingDataError

    if arguments.study is not None and not arguments.study.is_dir():
        raise MissingDataError(f"{arguments.study}: no such folder; give the folder of a study, e.g. results/quick")
    _show_any_name()
    print(claims_words.of_study(arguments.study, arguments.format), end="")


def _show_any_name() -> None:
    """Names of files are printed whatever the terminal can show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
