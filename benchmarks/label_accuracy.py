"""How good the derived labels are: `labels.py` on the depth of rooms, against the ray caster's exact truth.

  python benchmarks/label_accuracy.py [--rooms 12]

Prints a markdown table: angle between derived and true normals, and absolute error of the principal curvatures, over
pixels at least two pixels away from any edge, for the exact depth and for depth quantised to 39 mm as the Kinect's.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from scipy.ndimage import binary_dilation

from headstrong import program
from headstrong.data import labels, rooms

QUANTUM = 0.039  # metres


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


def main(arguments: argparse.Namespace) -> None:
    print(
        "| size | depth | normals: median, mean | curvature, curved: median 1/m (relative, pixels) | flat: median 1/m |"
    )
    print("|---|---|---|---|---|")
    for side in (64, 128, 256):
        for name, quantum in (("exact", 0.0), ("39 mm", QUANTUM)):
            e = errors((side, side), range(arguments.rooms), quantum)
            relative = np.median(e["curved"] / e["truth"])
            print(
                f"| {side} | {name} | {np.median(e['angle']):.3f}°, {e['angle'].mean():.2f}° "
                f"| {np.median(e['curved']):.3g} ({relative:.1%}, {e['curved'].size}) | {np.median(e['flat']):.2g} |"
            )


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--rooms", type=int, default=12, help="number of rooms")
    sys.exit(program.run(main, parser))
