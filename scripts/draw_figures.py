"""Draw every figure of a study from its tables, and index.json with their captions.

python scripts/draw_figures.py --vulnerability results/quick/tables/vulnerability.csv --plan results/quick/plan.csv
    --surrogates results/quick/tables/surrogates.csv --settings settings.json --output figures

settings.json has the attack shown, the orders in which tasks are attacked, and what figures look like:
    {"attack": {"family": "pgd", "norm": "linf", "epsilon": "8/255", "steps": 25},
    "chains": ["DEnds", "sdnDE"], "look": {"formats": ["svg"], "dpi": 150, "width": 7.0}}
"""

import inspect
import sys
from pathlib import Path

from headstrong import program
from headstrong.errors import ConfigError
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code

ATTACK = {"family", "norm", "epsilon", "steps"}


def main(arguments):
    from headstrong.analysis.files import read_table  # late: pandas takes a second, --help should not
    from headstrong.analysis.plan import read_plan
    from headstrong.analysis.tables import choose_attack
    from headstrong.figures.gallery import draw_all, draw_without_models

    without_models = arguments.vulnerability is None  # a study without models of a plan
    spine = [arguments.vulnerability, arguments.plan, arguments.surrogates]
    if len(set(map(bool, spine))) == 2:
        raise ConfigError("--vulnerability, --plan, --surrogates: give all three, or none for a study without models")
    _check_names(arguments.tables, draw_without_models if without_models else draw_all)
    tables = {path.stem: read_table(path) for path in arguments.tables}
    settings = program.read_settings(arguments.settings, {"attack": dict, "chains": list, "look": dict})
    files = {"examples": arguments.generated, "importance": arguments.importance}
    read = [*filter(None, spine), *arguments.tables, *arguments.generated, *arguments.importance]
    if not without_models and set(settings["attack"]) != ATTACK:
        found = ", ".join(sorted(settings["attack"])) or "nothing"
        raise ConfigError(
            f"--settings {arguments.settings}: attack: expected {', '.join(sorted(ATTACK))}; found {found}"
        )
    facts = {"settings": settings, "code": stage_code("draw_figures"), "inputs": read, "outputs": [arguments.output]}
    # Beside the folder: Snakemake owns all that is in it.
    with RunRecord(arguments.output.absolute().with_name("draw_figures.json"), **facts):
        if without_models:
            draw_without_models(arguments.output, settings=settings["look"], **files, **tables)
            return
        vulnerability = read_table(arguments.vulnerability)
        draw_all(
            vulnerability,
            read_plan(arguments.plan),
            read_table(arguments.surrogates),
            arguments.output,
            choice=choose_attack(vulnerability, **settings["attack"]),
            chains=settings["chains"],
            settings=settings["look"],
            **files,
            **tables,
        )


def _check_names(paths, draw):
    """ConfigError where a file is called as no table that `draw` takes."""
    taken = inspect.signature(draw).parameters.values()
    names = [one.name for one in taken if one.default is None and "DataFrame" in str(one.annotation)]
    for path in paths:
        if path.stem not in names:
            raise ConfigError(
                f"--tables: {path}: nothing is drawn from a table of this name here; {', '.join(names)} are"
            )


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--vulnerability", type=Path, help="vulnerability.csv; without it, no figures of models")
    parser.add_argument("--plan", type=Path, help="plan.csv of the study")
    parser.add_argument("--surrogates", type=Path, help="surrogates.csv")
    parser.add_argument(
        "--tables",
        type=Path,
        nargs="*",
        default=[],
        metavar="CSV",
        help="balanced, transfer, theory, ..., by their names",
    )
    parser.add_argument(
        "--generated", type=Path, nargs="*", default=[], metavar="HDF5", help="evaluations of generators, for pictures"
    )
    parser.add_argument(
        "--importance",
        type=Path,
        nargs="*",
        default=[],
        metavar="HDF5",
        help="evaluations of important classes, for angles and features",
    )
    program.add_settings_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    sys.exit(program.run(main, parser))
