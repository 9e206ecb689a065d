"""Collect attacks on hidden tasks: hidden.csv by task, hidden_summary.csv averaged over which task is hidden,
forgetting.csv of what copies of the backbone forgot.

python scripts/collect_hidden.py --evaluations results/quick/hidden/*.h5 --output tables
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    from headstrong.analysis import hidden, hidden_summary  # late: pandas takes a second, --help should not
    from headstrong.analysis.files import write_tables

    facts = {"code": stage_code("collect_hidden"), "inputs": arguments.evaluations}
    with RunRecord(arguments.output / "collect_hidden.json", **facts) as record:
        made = {
            "hidden": hidden.build_table(arguments.evaluations),
            "hidden_summary": hidden_summary.build_table(arguments.evaluations),
            "forgetting": hidden.build_forgetting(arguments.evaluations),
        }
        record.outputs += write_tables(made, arguments.output)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument(
        "--evaluations", type=Path, nargs="*", default=[], metavar="HDF5", help="one file per hidden task"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    sys.exit(program.run(main, parser))
