"""Choose the important classes of a family: by name, or by how well the cross entropy's classifiers recall them.

python scripts/choose_classes.py --settings settings.json --pictures validation.h5
    --weights A.safetensors B.safetensors --output classes.json --recall recall.csv

settings.json: {"family": "shapes", "label": "shape", "ranking": "validation",
    "important": {"worst1": [], "balls": ["ball", "egg"]}}
"""

import sys
from pathlib import Path

from headstrong import program
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code

KINDS = {"family": str, "label": str, "important": dict, "ranking": str}


def main(arguments):
    settings = program.read_settings(arguments.settings, KINDS)

    from headstrong.class_choice import choose  # late: torch takes seconds, --help and mistakes should not
    from headstrong.devices import take_device
    from headstrong.runtime import reproducible

    outputs = (arguments.output, arguments.recall)
    facts = {"code": stage_code("choose_classes"), "threads": arguments.threads}
    facts |= {"inputs": [arguments.pictures, *arguments.weights], "outputs": outputs}
    with (
        take_device(arguments.device) as device,
        RunRecord(arguments.output.with_suffix(".run.json"), settings=settings, device=device, **facts),
        reproducible(device, arguments.threads),
    ):
        choose(settings, arguments.weights, arguments.pictures, *outputs, device=device, batch_size=64)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    program.add_settings_option(parser)
    parser.add_argument("--pictures", type=Path, required=True, help="pictures by which classes are ranked")
    parser.add_argument(
        "--weights", type=Path, nargs="*", default=[], help="classifiers trained with the cross entropy"
    )
    parser.add_argument("--device", default="auto", help=program.DEVICE_HELP)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--output", type=Path, required=True, help="JSON to write: the choice")
    parser.add_argument("--recall", type=Path, required=True, help="CSV to write: the recall of every class")
    sys.exit(program.run(main, parser))
