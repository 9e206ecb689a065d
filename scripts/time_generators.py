"""Time generators: how long the perturbations of all tasks take for one image, GAP and MTA in turns, and their size.

  python scripts/time_generators.py --jobs jobs.json --size 128 128 --output cost.csv
  python scripts/time_generators.py --published --size 288 384

`--jobs` names a JSON list of generator jobs; `--published` takes the networks of the published Table 7 instead. The
times are those of this machine: a second run gives others. Without --output the table is printed.
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.errors import ConfigError
from headstrong.jobs import generator_job_from_dict, to_dict
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    jobs = None if arguments.published else jobs_of(arguments.jobs)

    import pandas as pd  # late, as is torch: both take seconds, --help and mistakes should not

    from headstrong.analysis.files import write_table
    from headstrong.devices import take_device
    from headstrong.generator_timing import COLUMNS, measure, published_jobs

    jobs = published_jobs() if jobs is None else jobs
    size = tuple(arguments.size)
    settings = {"size": size, "rounds": arguments.rounds, "jobs": [to_dict(job) for job in jobs]}

    def table(device):
        how = {"rounds": arguments.rounds, "device": device, "threads": arguments.threads}
        return pd.DataFrame(measure(jobs, size, **how), columns=list(COLUMNS))

    with take_device(arguments.device, alone=True) as device:
        if arguments.output is None:
            print(table(device).to_string(index=False))
            return
        facts = {"code": stage_code("time_generators"), "outputs": [arguments.output], "device": device}
        with RunRecord(arguments.output.with_suffix(".json"), settings=settings, threads=arguments.threads, **facts):
            write_table(table(device), arguments.output)


def jobs_of(path):
    """The generator jobs in the file that --jobs names; ConfigError where it holds anything else."""
    try:
        return [generator_job_from_dict(fields) for fields in program.read_json("--jobs", path)]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--jobs {path}: not a JSON list of generator jobs ({error!r})") from None


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--jobs", type=Path, metavar="FILE", help="JSON with a list of generator jobs")
    what.add_argument("--published", action="store_true", help="the networks of the published table")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), required=True, help="pixels, multiples of 4")
    parser.add_argument("--rounds", type=int, default=21, help="runs of each network that count")
    parser.add_argument("--device", default="auto", help=program.DEVICE_HELP)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--output", type=Path, help="the CSV to write; none: it is printed")
    sys.exit(program.run(main, parser))
