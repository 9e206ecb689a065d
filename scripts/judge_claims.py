"""Judge the claims of the five papers by the tables of a study: claims.csv, a row per claim with its verdict.

python scripts/judge_claims.py --tables results/quick/tables/*.csv --plan results/quick/plan.csv
    --evaluations results/quick/evaluations --settings settings.json --output claims.csv

settings.json: {"bootstrap": 2000, "seed": 0, "protocol": {"R": "corrected; rooms (embedded), 64x64"}}
The protocol of a system is described in words, with the scale of the study.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.errors import ConfigError
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    settings = program.read_settings(arguments.settings, {"protocol": dict, "seed": int, "bootstrap": int})
    if arguments.evaluations and not arguments.plan:
        raise ConfigError("--evaluations: --plan is missing; give the plan.csv of the models in that folder")

    from headstrong.analysis.claims import build_table  # late: pandas takes a second, --help and mistakes should not
    from headstrong.analysis.files import write_table
    from headstrong.analysis.plan import evaluations_of

    inputs = [*arguments.tables, *([arguments.plan] if arguments.plan else [])]
    if arguments.evaluations:
        inputs += evaluations_of(arguments.evaluations, arguments.plan)
    facts = {"code": stage_code("judge_claims"), "settings": settings, "inputs": inputs}
    with RunRecord(arguments.output.with_name("judge_claims.json"), outputs=[arguments.output], **facts):
        table = build_table(
            arguments.tables,
            arguments.plan,
            arguments.evaluations,
            protocol=settings["protocol"],
            seed=settings["seed"],
            draws=settings["bootstrap"],
        )
        write_table(table, arguments.output)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--tables", type=Path, nargs="+", required=True, metavar="CSV", help="tables of the study")
    parser.add_argument("--plan", type=Path, help="plan.csv of the study, where it has models")
    parser.add_argument("--evaluations", type=Path, metavar="FOLDER", help="of the models of the plan")
    program.add_settings_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="claims.csv to write")
    sys.exit(program.run(main, parser))
