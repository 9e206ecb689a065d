"""Add a universal perturbation to your own pictures: PNG files that hold exactly what a network would be given.

  python scripts/apply_perturbation.py --perturbation results/quick/perturbations/FAMILY/GENERATOR/TASK.npy
      --images photographs --output perturbed

No pixel leaves [0, 255] or the perturbation's ball, whose radius is in the perturbation.json beside it: changes are
rounded towards the original. A picture of another size than the perturbation's is refused without --resize or --tile.
"""

import sys
from pathlib import Path

from headstrong import program, radius
from headstrong.errors import ConfigError, MissingDataError
from headstrong.provenance import RunRecord
from headstrong.stages import stage_code


def main(arguments):
    from headstrong.generated_files import perturb_picture, read_perturbation, read_picture, resized, write_picture

    perturbation = read_perturbation(arguments.perturbation)
    largest = 0
    outputs = output_of_each(pictures_in(arguments.images), arguments.output)
    facts = {"settings": {"resize": arguments.resize, "tile": arguments.tile}, "outputs": outputs.values()}
    facts |= {"code": stage_code("apply_perturbation"), "inputs": [arguments.perturbation, *outputs]}
    with RunRecord(arguments.output / "apply_perturbation.json", **facts):
        for picture, output in outputs.items():
            colours, transparency = read_picture(picture)
            if arguments.resize and colours.shape[:2] != perturbation.size:
                colours = resized(colours, perturbation.size)
                transparency = None if transparency is None else resized(transparency, perturbation.size)
            try:
                changed = perturb_picture(colours, perturbation, tile=arguments.tile)
            except ConfigError as error:
                raise ConfigError(f"{picture}: {error}") from None
            write_picture(output, changed, transparency)
            largest = max(largest, int(abs(changed.astype(int) - colours).max()))
    ball = f"{perturbation.norm} ball of radius {radius.text(perturbation.epsilon, perturbation.norm)}"
    print(f"{len(outputs)} pictures in {arguments.output}; largest change {largest}/255, {ball}")


def pictures_in(given):
    """The files named, and the pictures in the folders named, in order; MissingDataError where there are none."""
    from PIL import Image

    suffixes = Image.registered_extensions()
    found = []
    for path in given:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in suffixes)
        else:
            found.append(path)
    if not found:
        raise MissingDataError(f"{given[0]}: no pictures in it; give a folder with pictures, or files")
    return list(dict.fromkeys(found))


def output_of_each(pictures, folder):
    """The PNG that each picture becomes. ConfigError where two would share one, or one would replace an original."""
    outputs = {picture: folder / f"{picture.stem}.png" for picture in pictures}
    originals = {picture.resolve() for picture in pictures}
    taken = {}
    for picture, output in outputs.items():
        # Some file systems do not tell A.png from a.png.
        other = taken.setdefault(output.name.casefold(), picture)
        if other != picture:
            raise ConfigError(f"{picture}: would become {output}, as {other} does; rename one")
        if output.resolve() in originals:
            raise ConfigError(f"{output}: is one of the pictures given; choose another --output")
    return outputs


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument(
        "--perturbation", type=Path, required=True, help="V.npy of an evaluation, perturbation.json beside"
    )
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="a folder of pictures, or picture files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write PNG files to")
    fit = parser.add_mutually_exclusive_group()
    fit.add_argument("--resize", action="store_true", help="bring pictures to the perturbation's size")
    fit.add_argument(
        "--tile", action="store_true", help="repeat the perturbation over larger pictures, or cut it (linf)"
    )
    sys.exit(program.run(main, parser))
