"""How fast a data cache is built, on one and two processes, and the memory it takes.

    python benchmarks/cache_building.py --output results/cache_building.json

Rooms are rendered; the folder in Taskonomy's layout is made here, of smooth random images at 256 x 256. Every build
is a process of its own, and the start of its worker processes is part of its time. Written as JSON: images per second
by source and number of processes, median over the rounds, in which all of them take turns; the same once started,
from the shortest times of all images and of a quarter of them; the writer's share of the processor time of two
processes, which bounds what more processes can give, and the load of the machine, which tells whether they had a core
each; peak memory in MB of the building process and of its largest worker process, and of the building process for a
quarter of the images; ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstrong import program
from headstrong.data.acquire import VARIABLE
from headstrong.data.taskonomy_views import DOMAINS
from headstrong.provenance import ROOT, write_atomically

SIDE = 256
BUILD = """
import json, resource, sys, time
from pathlib import Path
from headstrong.data.build import build_split

if __name__ == "__main__":
    start = time.perf_counter()
    build_split(json.loads(sys.argv[1]), Path(sys.argv[2]), code="benchmark", processes=int(sys.argv[3]))
    seconds = time.perf_counter() - start
    own, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    worked = [one.ru_utime + one.ru_stime for one in times]
    print(json.dumps({"seconds": seconds, "own": own, "worker": worker, "writer_share": worked[0] / sum(worked)}))
"""


def smooth(rng: np.random.Generator, channels: int, high: int) -> np.ndarray:
    """An image (SIDE, SIDE, channels) of few waves, with a little noise, from 0 to `high`."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(rng.uniform(2, 20) * x + rng.uniform(2, 20) * y + rng.uniform(0, 6)) for _ in range(channels)]
    noisy = 0.5 + 0.45 * np.stack(waves, axis=-1) + rng.normal(0, 0.01, (SIDE, SIDE, channels))
    return np.clip(noisy, 0, 1) * high


def make_folder(root: Path, views: int) -> None:
    """The sample of one building, with as many views, all for training."""
    rng = np.random.default_rng(0)
    for letter, names in DOMAINS.items():
        folder = root / names[0]
        folder.mkdir(parents=True)
        for point in range(views):
            if letter in ("rgb", "n", "p", "r"):
                array = smooth(rng, 3, 255).astype(np.uint8)
            elif letter == "s":
                array = smooth(rng, 1, 16)[..., 0].astype(np.uint8)
            else:
                array = smooth(rng, 1, 6000)[..., 0].astype(np.uint16)
            Image.fromarray(array).save(folder / f"point_{point}_view_0_domain_{names[0]}.png")


def build(settings: dict[str, Any], processes: int, folder: Path) -> dict[str, float]:
    """Seconds and memory of one build."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), VARIABLE: str(folder)}
    path = folder / "build.py"  # a file, because worker processes import the main program
    path.write_text(BUILD)
    command = [sys.executable, str(path), json.dumps(settings), str(folder / "train.h5"), str(processes)]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(result.stdout)


def measure(settings: dict[str, Any], count: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Speed and memory of one source."""
    few_count = count // 4
    seen: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    begun: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes in seen:
            seen[processes].append(build(settings | {"count": count}, processes, folder))
            begun[processes].append(build(settings | {"count": few_count}, processes, folder))
    few = max(begun[1], key=lambda one: one["own"])
    running = {
        processes: (count - few_count)
        / max(1e-3, min(one["seconds"] for one in seen[processes]) - min(one["seconds"] for one in begun[processes]))
        for processes in seen
    }
    speeds = {
        processes: count / statistics.median(one["seconds"] for one in found) for processes, found in seen.items()
    }
    own = max(one["own"] for one in seen[1])
    return {
        "images": count,
        "images_per_second": {str(processes): round(speed, 2) for processes, speed in speeds.items()},
        "images_per_second_once_started": {str(processes): round(speed, 2) for processes, speed in running.items()},
        "two_against_one": round(speeds[2] / speeds[1], 2),
        "two_against_one_once_started": round(running[2] / running[1], 2),
        "writer_share_of_two": round(statistics.median(one["writer_share"] for one in seen[2]), 2),
        "peak_mb": round(own),
        "peak_mb_quarter_of_the_images": round(few["own"]),
        "peak_ratio": round(own / few["own"], 3),
        "peak_mb_two_processes": {
            "builder": round(max(one["own"] for one in seen[2])),
            "largest_worker": round(max(one["worker"] for one in seen[2])),
        },
    }


def main(arguments: argparse.Namespace) -> None:
    size = {"split": "train", "size": list(arguments.size)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_folder(folder / "taskonomy", arguments.count)
        sources = {
            "rooms": size | {"source": "rooms", "seed": 0, "antialias": 1},
            "taskonomy": size | {"source": "taskonomy", "classes": 13},
        }
        found = {
            name: measure(settings, arguments.count, arguments.rounds, folder) for name, settings in sources.items()
        }
    facts = {
        "size": list(arguments.size),
        "rounds": arguments.rounds,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "sources": found,
    }
    text = json.dumps(facts, indent=1) + "\n"
    if arguments.output:
        write_atomically(arguments.output, text)
    print(text, end="")


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("--count", type=int, default=192, help="images")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 96), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON to write")
    sys.exit(program.run(main, parser))
