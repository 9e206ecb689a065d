"""Build one split of a data set: render or read the images, derive the labels, encode them, write one HDF5 cache.

python scripts/build_data.py --settings settings.json --output results/quick/data/test.h5

settings.json: {"source": "rooms", "split": "test", "size": [64, 64], "count": 64, "antialias": 2, "seed": 0}
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.data import manifest
from headstrong.data.build import SOURCES, build_split, code_modules
from headstrong.errors import ConfigError
from headstrong.provenance import RunRecord, code_digest

KINDS = {"source": str, "split": str, "size": list, "count": int | None}
OF_ROOMS = {"count": int, "seed": int, "antialias": int}
OF_PHOTOGRAPHS = {"classes": int}


def main(arguments):
    settings = program.read_settings(arguments.settings, KINDS)
    if settings["source"] not in SOURCES:
        choice = f"source '{settings['source']}' is unknown; choose from {', '.join(SOURCES)}"
        raise ConfigError(f"--settings {arguments.settings}: {choice}")
    own = OF_ROOMS if settings["source"] == "rooms" else OF_PHOTOGRAPHS
    program.check_settings(arguments.settings, settings, own)
    code = arguments.code or code_digest(*code_modules(settings["source"]))
    outputs = [arguments.output, manifest.path_of(arguments.output)]
    with RunRecord(arguments.output.with_suffix(".json"), outputs=outputs, settings=settings, code=code) as record:
        build_split(settings, arguments.output, code=code, processes=arguments.processes)
        record.add(sha256=record.digest(arguments.output))


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_settings_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="the HDF5 file; its run record is written beside it")
    parser.add_argument("--processes", type=int, default=1, help="processes to render or read with")
    parser.add_argument("--code", help="digest of the code; computed when not given")
    sys.exit(program.run(main, parser))
