"""Write plan.csv: one row per model of the study.

`--settings` names what decides which models there are, as `headstrong.study.plan_settings` gives it.
"""

import csv
import io
import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord, write_atomically
from headstrong.stages import stage_code
from headstrong.study import COLUMNS, models_of, rows

KINDS = {"seed": int, "tasks": str, "epochs": int, "sections": dict, "lambdas": dict}


def main(arguments):
    settings = program.read_settings(arguments.settings, KINDS)
    facts = {"settings": settings, "code": stage_code("write_plan"), "outputs": [arguments.output]}
    with RunRecord(arguments.output.with_name("write_plan.json"), **facts):
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(models_of(settings)))
        write_atomically(arguments.output, table.getvalue())


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_settings_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="the CSV to write")
    sys.exit(program.run(main, parser))
