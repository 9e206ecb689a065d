"""Train one classifier of pictures; an interrupted run goes on from its checkpoint in --work with the same bits.

  python scripts/train_classifier.py --job job.json --data results/quick/pictures/domains/studio/train.h5
      --weights weights.safetensors --history history.csv --work work/quick/classifiers/CLASSIFIER

`--job` holds everything that can change the weights: a job file of a study (work/<study>/jobs), or a run record.
`--classes` is for losses that favour important classes: the file that says which they are.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.errors import ConfigError
from headstrong.jobs import classifier_job_from_dict, to_dict
from headstrong.provenance import RunRecord, code_digest


def main(arguments):
    from headstrong.class_choice import important_classes  # late: torch takes seconds, --help should not
    from headstrong.classifier_training import train
    from headstrong.devices import take_device

    _, job = program.read_job(arguments.job, classifier_job_from_dict)
    code = arguments.code or code_digest("headstrong.classifier_training")
    key = job.loss.important if job.loss is not None else None
    if key is not None and arguments.classes is None:
        raise ConfigError(f"--classes: missing; the loss of {job.id} favours '{key}', which a file says what it is")
    important = [] if key is None else important_classes(arguments.classes, key)
    facts = {"code": code, "threads": arguments.threads}
    read = [arguments.data, *([] if key is None else [arguments.classes])]
    facts |= {"inputs": read, "outputs": [arguments.weights, arguments.history]}
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.weights.with_name("run.json"), job=to_dict(job), device=device, **facts) as record,
    ):
        train(
            job,
            arguments.data,
            arguments.weights,
            history=arguments.history,
            work=arguments.work,
            device=device,
            threads=arguments.threads,
            checkpoint_minutes=arguments.checkpoint_minutes,
            code=code,
            important=important,
        )
        record.add(important=important, sha256=record.digest(arguments.weights), data=record.digest(arguments.data))


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    parser.add_argument("--data", type=Path, required=True, help="cache of the training pictures")
    parser.add_argument("--classes", type=Path, help="the choice of important classes (scripts/choose_classes.py)")
    program.add_training_options(parser)
    sys.exit(program.run(main, parser))
