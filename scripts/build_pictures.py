"""Build the pictures of one domain and split: render or read them, bring them to size, write one HDF5 file.

python scripts/build_pictures.py --settings settings.json --output results/mta/pictures/objects/room/test.h5

settings.json: {"source": "objects", "domain": "room", "split": "test", "size": [64, 64], "count": 100, "seed": 0}
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.data import manifest
from headstrong.data.build import BAD_IMAGES, build_pictures, picture_modules
from headstrong.provenance import RunRecord, code_digest

KINDS = {"source": str, "domain": str, "split": str, "size": list, "count": int | None, "seed": int}


def main(arguments):
    settings = program.read_settings(arguments.settings, KINDS)
    if arguments.on_bad_image not in (None, settings.get("on_bad_image", "fail")):
        settings["on_bad_image"] = arguments.on_bad_image
    code = arguments.code or code_digest(*picture_modules(settings["source"]))
    outputs = [arguments.output, manifest.path_of(arguments.output)]
    with RunRecord(arguments.output.with_suffix(".json"), outputs=outputs, settings=settings, code=code) as record:
        skipped = build_pictures(settings, arguments.output, code=code, processes=arguments.processes)
        record.add(sha256=record.digest(arguments.output), skipped=skipped)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_settings_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="the HDF5 file; its run record is written beside it")
    parser.add_argument("--processes", type=int, default=1, help="processes to render or read with")
    parser.add_argument(
        "--on-bad-image",
        choices=BAD_IMAGES,
        help="a picture that cannot be read: stop, or leave it out, count and list it (default: as the settings say, "
        "else fail)",
    )
    parser.add_argument("--code", help="digest of the code; computed when not given")
    sys.exit(program.run(main, parser))
