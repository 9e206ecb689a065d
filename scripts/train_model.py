"""Train one model; an interrupted run goes on from its checkpoint in --work with the same bits.

  python scripts/train_model.py --job job.json --data results/quick/data/train.h5 --weights weights.safetensors
      --history history.csv --work work/quick/MODEL

`--job` holds everything that can change the weights: a job file of a study (work/<study>/jobs), or a run record.
"""

import argparse
import sys
from pathlib import Path

from headstrong import program
from headstrong.jobs import to_dict, training_job_from_dict
from headstrong.provenance import RunRecord, training_code


def main(arguments):
    snapshots = program.once("--snapshot", arguments.snapshot)
    _, job = program.read_job(arguments.job, training_job_from_dict)

    from headstrong.devices import take_device  # late: torch takes seconds, --help and mistakes should not
    from headstrong.training import train

    code = arguments.code or training_code(job.adversarial is not None)
    facts = {"code": code, "threads": arguments.threads}
    facts |= {"inputs": [arguments.data], "outputs": [arguments.weights, arguments.history, *snapshots.values()]}
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.weights.with_name("run.json"), job=to_dict(job), device=device, **facts) as record,
    ):
        train(
            job,
            arguments.data,
            arguments.weights,
            snapshots=snapshots,
            history=arguments.history,
            work=arguments.work,
            device=device,
            threads=arguments.threads,
            checkpoint_minutes=arguments.checkpoint_minutes,
            code=code,
        )
        record.add(sha256=record.digest(arguments.weights), data=record.digest(arguments.data))


def snapshot(given):
    epoch, _, path = given.partition("=")
    if not (epoch.isdecimal() and path):
        raise argparse.ArgumentTypeError(f"{given!r}: expected EPOCH=PATH, as in 3=epoch-3.safetensors")
    return int(epoch), Path(path)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    parser.add_argument("--data", type=Path, required=True, help="cache of the training split")
    parser.add_argument(
        "--snapshot", type=snapshot, action="append", default=[], metavar="EPOCH=PATH", help="weights to keep as well"
    )
    program.add_training_options(parser)
    sys.exit(program.run(main, parser))
