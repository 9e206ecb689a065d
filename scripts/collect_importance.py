"""Collect how well classifiers tell their important classes: importance.csv by trial, importance_settings.csv with what
each setting gains over the cross entropy, and camri_table_1.csv with the published numbers.

python scripts/collect_importance.py --evaluations results/quick/importance/objects.h5 --output tables
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    # Late: pandas takes a second, --help should not.
    from headstrong.analysis import camri_table, importance, importance_settings
    from headstrong.analysis.files import write_tables

    facts = {"code": stage_code("collect_importance"), "inputs": arguments.evaluations}
    with RunRecord(arguments.output / "collect_importance.json", **facts) as record:
        table = importance.build_table(arguments.evaluations)
        settings = importance_settings.build_table(table, importance.tolerances(arguments.evaluations))
        made = {
            "importance": table,
            "importance_settings": settings,
            "camri_table_1": camri_table.build_table(settings),
        }
        record.outputs += write_tables(made, arguments.output)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument(
        "--evaluations", type=Path, nargs="*", default=[], metavar="HDF5", help="one file per family of classifiers"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    sys.exit(program.run(main, parser))
