"""Pictures of one model under one attack: images, attacked images, truth and predictions, into one HDF5.

  python scripts/picture_attacks.py --job job.json --weights weights.safetensors --data results/quick/data/test.h5
      --output pictured.h5

`--job` holds everything that can change the numbers: a job file of a study (work/<study>/jobs), or a run record.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.jobs import evaluation_job_from_dict
from headstrong.provenance import RunRecord, code_digest


def main(arguments):
    from headstrong.devices import take_device
    from headstrong.pictured import picture  # late: torch takes seconds, --help should not

    fields, job = program.read_job(arguments.job, evaluation_job_from_dict)
    code = arguments.code or code_digest("headstrong.pictured")
    facts = {"code": code, "threads": arguments.threads}
    facts |= {"inputs": [arguments.weights, arguments.data], "outputs": [arguments.output]}
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.output.with_suffix(".json"), job=fields, device=device, **facts) as record,
    ):
        picture(
            job,
            arguments.weights,
            arguments.data,
            arguments.output,
            device=device,
            threads=arguments.threads,
            code=code,
        )
        record.add(sha256=record.digest(arguments.output), weights=record.digest(arguments.weights))


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors file of the model")
    parser.add_argument("--data", type=Path, required=True, help="cache of the test split")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write; its run record goes beside it")
    program.add_machine_options(parser)
    sys.exit(program.run(main, parser))
