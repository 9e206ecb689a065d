"""Attack one hidden task and measure all tasks, per image, into one HDF5.

  python scripts/evaluate_hidden.py --job job.json --victim results/quick/classifiers/CLASSIFIER/weights.safetensors
      --test test.h5 --copy heads=results/quick/forgetting/COPY/weights.safetensors --output hidden.h5

`--job` holds everything that can change the numbers: a job file of a study (work/<study>/jobs), or a run record.
Beside each forgetful copy lies features.h5, as scripts/forget_task.py wrote it.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.jobs import hidden_job_from_dict, to_dict
from headstrong.provenance import RunRecord, code_digest


def main(arguments):
    copies = program.named_paths("--copy", arguments.copy, "ACCESS=FILE, e.g. heads=weights.safetensors")
    _, job = program.read_job(arguments.job, hidden_job_from_dict)

    from headstrong.devices import take_device
    from headstrong.hidden_evaluation import evaluate  # late: torch takes seconds, --help should not

    code = arguments.code or code_digest("headstrong.hidden_evaluation")
    facts = {"code": code, "threads": arguments.threads}
    files = {access: (path, path.with_name("features.h5")) for access, path in copies.items()}
    facts["inputs"] = [arguments.victim, arguments.test, *(path for pair in files.values() for path in pair)]
    facts["outputs"] = [arguments.output]
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.output.with_suffix(".json"), job=to_dict(job), device=device, **facts) as record,
    ):
        evaluate(
            job,
            arguments.victim,
            arguments.test,
            files,
            arguments.output,
            device=device,
            threads=arguments.threads,
            code=code,
        )
        record.add(sha256=record.digest(arguments.output), victim=record.digest(arguments.victim))


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    parser.add_argument("--victim", type=Path, required=True, help="weights of the network")
    parser.add_argument("--test", type=Path, required=True, help="test images with all labels")
    parser.add_argument("--copy", action="append", default=[], metavar="ACCESS=FILE", help="a forgetful copy's weights")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 to write")
    program.add_machine_options(parser)
    sys.exit(program.run(main, parser))
