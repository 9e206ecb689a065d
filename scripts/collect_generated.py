"""Collect what generated perturbations do to their victims, and what they cost: generated.csv, generator_cost.csv, and
mta_tables.csv with the published numbers.

python scripts/collect_generated.py --evaluations results/quick/generated/office.h5
    --cost results/quick/generated/office-cost.csv --output tables
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    from headstrong.analysis import generated, mta_tables  # late: pandas takes a second, --help should not
    from headstrong.analysis.files import write_tables

    facts = {"settings": {"seed": arguments.seed, "bootstrap": arguments.bootstrap}}
    facts |= {"code": stage_code("collect_generated"), "inputs": [*arguments.evaluations, *arguments.cost]}
    with RunRecord(arguments.output / "collect_generated.json", **facts) as record:
        table = generated.build_table(arguments.evaluations, seed=arguments.seed, draws=arguments.bootstrap)
        cost = mta_tables.read_costs(arguments.cost)
        made = {"generated": table, "generator_cost": cost, "mta_tables": mta_tables.build_table(table, cost)}
        record.outputs += write_tables(made, arguments.output)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument(
        "--evaluations", type=Path, nargs="*", default=[], metavar="HDF5", help="one file per family of generators"
    )
    parser.add_argument(
        "--cost", type=Path, nargs="*", default=[], metavar="CSV", help="measured times; without them, no Table 7"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--bootstrap", type=int, default=2000, help="bootstrap draws for standard errors")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    sys.exit(program.run(main, parser))
