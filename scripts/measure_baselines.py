"""Measure what predicting a constant would score: the training mean, and for segmentation the most frequent class.

python scripts/measure_baselines.py --train results/quick/data/train.h5 --test results/quick/data/test.h5
    --tasks sdDnE --output baselines.csv
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    from headstrong.analysis.baselines import build_table  # late: pandas takes a second, --help should not
    from headstrong.analysis.files import write_table

    samples = arguments.samples or None
    how = {"pixels": arguments.pixels, "samples": samples, "curvature": arguments.curvature, "depth": arguments.depth}
    facts = {"settings": {"tasks": arguments.tasks, **how}, "code": stage_code("measure_baselines")}
    facts |= {"inputs": [arguments.train, arguments.test], "outputs": [arguments.output]}
    with RunRecord(arguments.output.with_name("measure_baselines.json"), **facts):
        table = build_table(arguments.train, arguments.test, arguments.tasks, **how)
        write_table(table, arguments.output)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--train", type=Path, required=True, help="cache of the training split")
    parser.add_argument("--test", type=Path, required=True, help="cache of the test split")
    parser.add_argument("--tasks", required=True, help="letters of the tasks")
    parser.add_argument("--pixels", choices=["valid", "all"], default="valid", help="pixels that count")
    parser.add_argument("--curvature", choices=["decoded", "grey"], default="decoded", help="targets of p")
    parser.add_argument("--depth", choices=["encoded", "metres"], default="encoded", help="targets of d and D")
    parser.add_argument("--samples", type=int, default=0, help="the first so many test images; 0: all")
    parser.add_argument("--output", type=Path, required=True, help="the CSV to write")
    sys.exit(program.run(main, parser))
