"""Collect attacks on hidden tasks: hidden.csv by task, hidden_summary.csv averaged over which task is hidden,
forgetting.csv of what copies of the backbone forgot.

python scripts/collect_hidden.py --evaluations results/quick/hidden/*.h5 --output tables
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.analysis import hidden, hidden_summary
from headstrong.analysis.files import write_table


def main(arguments):
    write_table(hidden.build_table(arguments.evaluations), arguments.output / "hidden.csv")
    write_table(hidden_summary.build_table(arguments.evaluations), arguments.output / "hidden_summary.csv")
    write_table(hidden.build_forgetting(arguments.evaluations), arguments.output / "forgetting.csv")


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument(
        "--evaluations", type=Path, nargs="*", default=[], metavar="HDF5", help="one file per hidden task"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    sys.exit(program.run(main, parser))
