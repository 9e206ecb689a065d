"""Evaluate one family of generators: all victims clean, under noise and under every perturbation, into one HDF5.

  python scripts/evaluate_generators.py --job job.json --generator ID=weights.safetensors
      --victim VICTIMS/TASK=victim.safetensors --data TASK=test.h5 --output family.h5 --perturbations folder

`--job` holds everything that can change the numbers: a job file of a study (work/<study>/jobs), or a run record.
Options with = come once for each generator, victim or task. `--train` is for dense victims: their constant predictor.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.errors import ConfigError
from headstrong.jobs import generated_job_from_dict
from headstrong.provenance import RunRecord, code_digest

FORMS = {"generator": "ID=PATH", "victim": "VICTIMS/TASK=PATH", "data": "TASK=PATH", "train": "TASK=PATH"}


def main(arguments):
    given = {name: program.named_paths(f"--{name}", getattr(arguments, name), form) for name, form in FORMS.items()}
    victims = {victim_and_task(name): path for name, path in given["victim"].items()}
    fields, job = program.read_job(arguments.job, generated_job_from_dict)

    from headstrong.devices import take_device
    from headstrong.generated import evaluate_family  # late: torch takes seconds, --help and mistakes should not

    code = arguments.code or code_digest("headstrong.generated")
    facts = {"code": code, "threads": arguments.threads}
    facts["inputs"] = [path for paths in given.values() for path in paths.values()]
    facts["outputs"] = [arguments.output, arguments.perturbations]
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.output.with_suffix(".json"), job=fields, device=device, **facts) as record,
    ):
        evaluate_family(
            job,
            given["generator"],
            victims,
            given["data"],
            given["train"] or None,
            arguments.output,
            arguments.perturbations,
            device=device,
            threads=arguments.threads,
            code=code,
        )
        weights = {name: record.digest(path) for kind in ("generator", "victim") for name, path in given[kind].items()}
        record.add(sha256=record.digest(arguments.output), weights=weights)


def victim_and_task(name):
    """The two parts of VICTIMS/TASK; ConfigError for another text."""
    victims, slash, task = name.partition("/")
    if not (victims and slash and task):
        raise ConfigError(f"--victim {name}: expected {FORMS['victim']}")
    return victims, task


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_job_option(parser)
    several = {"action": "append", "default": []}
    parser.add_argument(
        "--generator", **several, metavar=FORMS["generator"], help="safetensors file of one set of generators"
    )
    parser.add_argument("--victim", **several, metavar=FORMS["victim"], help="safetensors file of one victim")
    parser.add_argument("--data", **several, metavar=FORMS["data"], help="cache of a task's test images")
    parser.add_argument("--train", **several, metavar=FORMS["train"], help="dense: cache of a task's training images")
    parser.add_argument("--output", type=Path, required=True, help="HDF5 file to write; its run record goes beside it")
    parser.add_argument("--perturbations", type=Path, required=True, help="folder for the universal perturbations")
    program.add_machine_options(parser)
    sys.exit(program.run(main, parser))
