"""Collect what the evaluations say about the attacks themselves: balancers compared, transfer between tasks, Theorems 2
and 4, curves by step, integer programs, and the attacks' checks.

python scripts/collect_attacks.py --plan results/quick/plan.csv --evaluations results/quick/evaluations --output tables
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    # Late: pandas takes a second, --help should not.
    from headstrong.analysis import balanced, checks, curves, marginal, theory, transfer
    from headstrong.analysis.files import write_tables
    from headstrong.analysis.plan import evaluations_of

    folder, plan, processes = arguments.evaluations, arguments.plan, {"processes": arguments.processes}
    drawn = {"seed": arguments.seed, "draws": arguments.bootstrap, **processes}
    facts = {"settings": {"seed": arguments.seed, "bootstrap": arguments.bootstrap}}
    facts |= {"code": stage_code("collect_attacks"), "inputs": [plan, *evaluations_of(folder, plan)]}
    with RunRecord(arguments.output / "collect_attacks.json", **facts) as record:
        made = {
            "balanced": balanced.build_table(folder, plan, **drawn),
            "transfer": transfer.build_table(folder, plan, **drawn),
            "theory": theory.build_table(folder, plan, **drawn),
            "marginal": marginal.build_table(folder, plan, **processes),
            "curves": curves.build_table(folder, plan, **processes),
            "flags": checks.build_flags(folder, plan, **processes),
            "programs": checks.build_programs(folder, plan, **processes),
        }
        record.outputs += write_tables(made, arguments.output)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="plan.csv of the study")
    parser.add_argument("--evaluations", type=Path, required=True, help="folder with one HDF5 per model")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--bootstrap", type=int, default=2000, help="bootstrap draws for standard errors")
    parser.add_argument("--processes", type=int, default=1, help="processes to read with; the tables are the same")
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables")
    sys.exit(program.run(main, parser))
