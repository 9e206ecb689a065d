"""How good the derived labels are: on rooms against the ray caster's exact truth, or against Taskonomy's own images.

  python benchmarks/label_accuracy.py [--rooms 12]
  python benchmarks/label_accuracy.py --taskonomy FOLDER

Prints a markdown table. Rooms: angle between derived and true normals, and absolute error of the principal curvatures,
over pixels at least two pixels away from any edge, for exact depth and for depth quantised to 39 mm as the Kinect's.
Taskonomy: for each view of the folder (docs/data.md has the layouts) the correlation, over the pixels with a depth,
between each label as it is and as `labels.derive` makes it from the picture and the z-buffer depth of the view; of
normals the median angle. Labels that a view lacks are left out. The field of view is that of the two depths; where one
is missing, that with which derived normals agree best with the view's own.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation
from scipy.optimize import minimize_scalar

from headstrong import program
from headstrong.data import labels, rooms, taskonomy, taskonomy_views
from headstrong.data.cameras import Intrinsics
from headstrong.errors import MissingDataError

QUANTUM = 0.039  # metres
FOCAL = (0.23, 2.0)  # in widths of an image: fields of view from 130 to 28 degrees
OF_PICTURES, OF_SURFACES = "ke", "nKEpr"


def away_from_edges(raw: dict, pixels: int = 2) -> np.ndarray:
    """Bool (H, W): no true edge, in normal or in depth, within `pixels`."""
    inverse = 1 / raw["d"].astype(np.float64)  # affine on a plane: what bends it sharply is a step
    edge = np.zeros(inverse.shape, dtype=bool)
    for axis in (0, 1):
        turn = np.abs(np.diff(raw["n"], axis=axis + 1)).max(axis=0) > 0.35
        edge |= np.insert(turn, 0, False, axis=axis) | np.insert(turn, turn.shape[axis], False, axis=axis)
        bend = np.abs(np.diff(inverse, n=2, axis=axis))
        edge |= np.pad(bend, [(1, 1) if axis == a else (0, 0) for a in (0, 1)]) > 0.01 * inverse
    return ~binary_dilation(edge, iterations=pixels)


def errors(size: tuple[int, int], seeds: range, quantum: float) -> dict[str, np.ndarray]:
    """Angles in degrees, and curvature errors in 1/m on curved and on flat surfaces."""
    found: dict[str, list] = {"angle": [], "curved": [], "truth": [], "flat": []}
    for seed in seeds:
        raw = rooms.render(seed, size)
        depth = np.round(raw["d"] / quantum) * quantum if quantum else raw["d"].astype(np.float64)
        noise = labels.depth_noise(depth, raw["intrinsics"]) if quantum else 0.0
        n = labels.normals(depth, raw["intrinsics"], noise)
        p = labels.curvatures(depth, n, raw["intrinsics"], noise)
        inner = away_from_edges(raw) & (depth > 0)
        found["angle"].append(np.degrees(np.arccos(np.clip((n * raw["n"]).sum(axis=0), -1, 1)))[inner])
        curved = inner & (np.abs(raw["p"]).max(axis=0) > 0.1)
        off = np.abs(p - raw["p"]).max(axis=0)
        found["curved"].append(off[curved])
        found["truth"].append(np.abs(raw["p"]).max(axis=0)[curved])
        found["flat"].append(off[inner & ~curved])
    return {key: np.concatenate(values) for key, values in found.items()}


def camera_of(raw: dict) -> Intrinsics:
    """The camera of a view with a depth, by what it has of depth_euclidean and normals."""
    height, width = raw["d"].shape
    known = raw["d"] > 0

    def camera(focal: float) -> Intrinsics:
        return Intrinsics(focal, focal, width / 2, height / 2)

    if raw["D"] is not None:
        x, y, _ = labels.rays((height, width), camera(1.0))
        away, stretch = (x * x + y * y)[known], (raw["D"][known] / raw["d"][known]) ** 2 - 1
        return camera(math.sqrt((away * away).sum() / (away * stretch).sum()))
    if raw["n"] is None:
        raise MissingDataError("a view with neither depth_euclidean nor normal: its field of view cannot be found")

    def disagreement(logarithm: float) -> float:
        one = camera(math.exp(logarithm))
        derived = labels.normals(raw["d"], one, labels.depth_noise(raw["d"], one))
        return -float(np.median((derived * raw["n"]).sum(axis=0)[known]))

    bounds = tuple(math.log(width * bound) for bound in FOCAL)
    return camera(math.exp(minimize_scalar(disagreement, bounds=bounds, method="bounded").x))


def agreement(raw: dict) -> dict[str, float]:
    """Correlation of each label of a view with what is derived, of n the median angle in degrees."""
    size = raw["rgb"].shape[1:]
    if raw["d"] is None:
        letters, camera, depth = OF_PICTURES, Intrinsics.from_view(size, 60.0), np.ones(size, np.float32)
    else:
        letters, camera, depth = OF_PICTURES + OF_SURFACES, camera_of(raw), raw["d"]
    made, known, found = labels.derive({"rgb": raw["rgb"], "d": depth}, camera), depth > 0, {}
    for letter in letters:
        if raw[letter] is None:
            continue
        own, derived = raw[letter][..., known].astype(np.float64), made[letter][..., known].astype(np.float64)
        if letter == "n":
            own /= np.sqrt((own * own).sum(axis=0))
            found["n"] = float(np.degrees(np.median(np.arccos(np.clip((own * derived).sum(axis=0), -1, 1)))))
        else:
            channel = (0,) if letter == "p" else ()  # the curvature of larger magnitude
            found[letter] = float(np.corrcoef(own[channel], derived[channel])[0, 1])
    return found


def compare_with_taskonomy(root: Path) -> None:
    """Print the table of the views of a folder."""
    letters = OF_PICTURES + OF_SURFACES
    print("| view | " + " | ".join("n: degrees" if letter == "n" else letter for letter in letters) + " |")
    print("|" + "---|" * (1 + len(letters)))
    for view in taskonomy_views.find(root):
        with Image.open(view.path(root, "rgb")) as image:
            size = (image.height, image.width)
        found = agreement(taskonomy.read_frame(root, view, size))
        shown = (f"{found[letter]:.{1 if letter == 'n' else 2}f}" if letter in found else "" for letter in letters)
        print(f"| {view.name} | " + " | ".join(shown) + " |")


def compare_with_rooms(count: int) -> None:
    """Print the table of the first `count` rooms."""
    print(
        "| size | depth | normals: median, mean | curvature, curved: median 1/m (relative, pixels) | flat: median 1/m |"
    )
    print("|---|---|---|---|---|")
    for side in (64, 128, 256):
        for name, quantum in (("exact", 0.0), ("39 mm", QUANTUM)):
            e = errors((side, side), range(count), quantum)
            relative = np.median(e["curved"] / e["truth"])
            print(
                f"| {side} | {name} | {np.median(e['angle']):.3f}°, {e['angle'].mean():.2f}° "
                f"| {np.median(e['curved']):.3g} ({relative:.1%}, {e['curved'].size}) | {np.median(e['flat']):.2g} |"
            )


def main(arguments: argparse.Namespace) -> None:
    if arguments.taskonomy is None:
        compare_with_rooms(arguments.rooms)
    else:
        compare_with_taskonomy(arguments.taskonomy)


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--rooms", type=int, default=12, help="number of rooms")
    parser.add_argument("--taskonomy", type=Path, help="folder of Taskonomy's images, to compare with instead")
    sys.exit(program.run(main, parser))
