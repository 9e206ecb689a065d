"""Evaluate a family of important classes: what every trial says of every picture, into one HDF5.

  python scripts/evaluate_importance.py --job job.json --classes classes.json --weights results/quick/classifiers
      --data validation=validation.h5 --data test=test.h5 --output results/quick/importance/shapes.h5

`--job` holds everything that can change the numbers: a job file of a study (work/<study>/jobs), or a run record.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.jobs import importance_job_from_dict, to_dict
from headstrong.provenance import RunRecord, code_digest


def main(arguments):
    form = "validation=FILE or test=FILE"
    pictures = program.named_paths("--data", arguments.data, form, names=("validation", "test"))
    _, job = program.read_job(arguments.job, importance_job_from_dict)

    from headstrong.devices import take_device
    from headstrong.importance import evaluate  # late: torch takes seconds, --help should not

    code = arguments.code or code_digest("headstrong.importance")
    facts = {"code": code, "threads": arguments.threads}
    weights = [arguments.weights / trial / "weights.safetensors" for trial in job.trials]
    facts |= {"inputs": [arguments.classes, *pictures.values(), *weights], "outputs": [arguments.output]}
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.output.with_suffix(".json"), job=to_dict(job), device=device, **facts) as record,
    ):
        evaluate(
            job,
            arguments.weights,
            pictures,
            arguments.classes,
            arguments.output,
            device=device,
            threads=arguments.threads,
            code=code,
        )
        record.add(sha256=record.digest(arguments.output))


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    parser.add_argument("--classes", type=Path, required=True, help="the choice of important classes (JSON)")
    parser.add_argument("--weights", type=Path, required=True, help="folder with <trial>/weights.safetensors")
    parser.add_argument("--data", action="append", default=[], metavar="SPLIT=FILE", help="pictures of a split")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 to write")
    program.add_machine_options(parser)
    sys.exit(program.run(main, parser))
