"""Make the tables in the papers' shapes from vulnerability.csv: pairs, Tables 1 to 3, combinations, switches.

python scripts/make_tables.py --vulnerability results/quick/tables/vulnerability.csv --plan results/quick/plan.csv
    --settings settings.json --output tables

settings.json has the attack that the tables show, and the bootstrap's draws and seed: {"family": "pgd", "norm": "linf",
    "epsilon": "8/255", "steps": 25, "bootstrap": 2000, "seed": 0}
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code

ATTACK = {"family": str | None, "norm": str, "epsilon": float | str, "steps": int | None}


def main(arguments):
    settings = program.read_settings(arguments.settings, ATTACK | {"seed": int, "bootstrap": int})

    from headstrong.analysis.build import build_tables  # late: pandas takes a second, --help and mistakes should not
    from headstrong.analysis.files import read_table, write_tables
    from headstrong.analysis.plan import read_plan
    from headstrong.analysis.tables import choose_attack

    facts = {"code": stage_code("make_tables"), "inputs": [arguments.vulnerability, arguments.plan]}
    with RunRecord(arguments.output / "make_tables.json", settings=settings, **facts) as record:
        vulnerability = read_table(arguments.vulnerability)
        attack = {key: settings[key] for key in ATTACK}
        choice = choose_attack(vulnerability, **attack)
        made = build_tables(
            vulnerability, read_plan(arguments.plan), choice, seed=settings["seed"], draws=settings["bootstrap"]
        )
        record.outputs += write_tables(made, arguments.output)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--vulnerability", type=Path, required=True, help="vulnerability.csv")
    parser.add_argument("--plan", type=Path, required=True, help="plan.csv of the study")
    program.add_settings_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    sys.exit(program.run(main, parser))
