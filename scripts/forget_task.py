"""Make a copy of a network's backbone forget a task, as someone can who does not see it: fine-tuned on the other tasks.

  python scripts/forget_task.py --job job.json --victim results/quick/classifiers/CLASSIFIER/weights.safetensors
      --train train.h5 --test test.h5 --weights copy.safetensors --features features.h5 --history history.csv
      --work work/forgetting

An interrupted run goes on from its checkpoint in --work with the same bits. `--job` holds everything that can change
the copy: a job file of a study (work/<study>/jobs), or a run record.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.jobs import forgetting_job_from_dict, to_dict
from headstrong.provenance import RunRecord, code_digest


def main(arguments):
    _, job = program.read_job(arguments.job, forgetting_job_from_dict)

    from headstrong.devices import take_device
    from headstrong.forgetting import forget  # late: torch takes seconds, --help should not

    code = arguments.code or code_digest("headstrong.forgetting")
    facts = {"code": code, "threads": arguments.threads}
    facts["inputs"] = [arguments.victim, arguments.train, arguments.test]
    facts["outputs"] = [arguments.weights, arguments.features, arguments.history]
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.weights.with_name("run.json"), job=to_dict(job), device=device, **facts) as record,
    ):
        forget(
            job,
            arguments.victim,
            arguments.train,
            arguments.test,
            arguments.weights,
            arguments.features,
            history=arguments.history,
            work=arguments.work,
            device=device,
            threads=arguments.threads,
            checkpoint_minutes=arguments.checkpoint_minutes,
            code=code,
        )
        record.add(
            sha256=record.digest(arguments.weights),
            victim=record.digest(arguments.victim),
            data=record.digest(arguments.train),
        )


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    parser.add_argument("--victim", type=Path, required=True, help="weights of the network")
    parser.add_argument("--train", type=Path, required=True, help="training images; only visible tasks are read")
    parser.add_argument("--test", type=Path, required=True, help="test images, whose features are kept")
    parser.add_argument("--features", type=Path, required=True, help="HDF5 of features to write")
    program.add_training_options(parser)
    sys.exit(program.run(main, parser))
