"""Make report.html, one self-contained page, from the tables, figures and records of a study.

python scripts/make_report.py --results results/quick --settings settings.json --output report.html

settings.json: the whole configuration, as the run record of a report has it, or that record.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    from headstrong.analysis import audit  # late: pandas takes a second, --help should not
    from headstrong.report.page import render

    settings = program.read_settings(arguments.settings, {"protocol": dict})
    results = arguments.results
    read = [results / "plan.csv", *sorted(results.glob("tables/*.csv")), results / "figures"]
    read += [path for pattern in ("pictured/*.h5", "models/*/history.csv") for path in sorted(results.glob(pattern))]
    facts = {"inputs": [path for path in read if path.exists()], "outputs": [arguments.output]}
    record = arguments.output.with_name("make_report.json")
    with RunRecord(record, settings=settings, code=stage_code("make_report"), **facts):
        codes = program.read_json("--codes", arguments.codes) if arguments.codes else {}
        render(results, arguments.output, settings=settings, code=codes, audit=audit.findings())


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the study's folder")
    program.add_settings_option(parser)
    parser.add_argument(
        "--codes", type=Path, metavar="FILE", help="JSON with the digests of the code of the last stages, by stage"
    )
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    sys.exit(program.run(main, parser))
