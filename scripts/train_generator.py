"""Train the generators of one job against its victims; an interrupted run goes on from its checkpoint in --work.

  python scripts/train_generator.py --job job.json --victim studio=classifier.safetensors --data studio=train.h5
      --weights weights.safetensors --history history.csv --work work/quick/generators/ID

`--job` holds everything that can change the weights: a job file of a study (work/<study>/jobs), or a run record.
`--victim` and `--data` are given once for each task.
"""

import sys

from headstrong import program
from headstrong.jobs import generator_job_from_dict, to_dict
from headstrong.provenance import RunRecord, code_digest


def main(arguments):
    victims = program.named_paths("--victim", arguments.victim, "TASK=PATH")
    data = program.named_paths("--data", arguments.data, "TASK=PATH")
    _, job = program.read_job(arguments.job, generator_job_from_dict)

    from headstrong.devices import take_device
    from headstrong.generator_training import train  # late: torch takes seconds, --help and mistakes should not

    code = arguments.code or code_digest("headstrong.generator_training")
    facts = {"code": code, "threads": arguments.threads}
    facts |= {"inputs": [*victims.values(), *data.values()], "outputs": [arguments.weights, arguments.history]}
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.weights.with_name("run.json"), job=to_dict(job), device=device, **facts) as record,
    ):
        train(
            job,
            victims,
            data,
            arguments.weights,
            history=arguments.history,
            work=arguments.work,
            device=device,
            threads=arguments.threads,
            checkpoint_minutes=arguments.checkpoint_minutes,
            code=code,
        )
        record.add(
            sha256=record.digest(arguments.weights),
            victims={task: record.digest(path) for task, path in victims.items()},
            data={task: record.digest(path) for task, path in data.items()},
        )


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    parser.add_argument(
        "--victim", action="append", required=True, metavar="TASK=PATH", help="weights of a task's victim"
    )
    parser.add_argument("--data", action="append", required=True, metavar="TASK=PATH", help="training images of a task")
    program.add_training_options(parser)
    sys.exit(program.run(main, parser))
