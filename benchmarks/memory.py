"""Peak memory of training, evaluation and cache building, of so many images and of four times as many.

Each is a process of its own (Linux tells its peak). Data stay in memory up to a limit (2 GiB), beyond which batches are
read from the file; to see growth with the data set without that much data, the limit is set to 1 MiB here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.rows import Row, make_row
from benchmarks.scene import Scene
from benchmarks.starting import evaluation_job
from headstrong.jobs import to_dict
from headstrong.provenance import ROOT

LIMIT = 1 << 20
PEAK = """
import functools, json, sys
from pathlib import Path
stage, settings, data, folder, limit = sys.argv[1], json.loads(sys.argv[2]), *map(Path, sys.argv[3:5]), int(sys.argv[5])
if stage == "building":
    from headstrong.data.build import build_split
    build_split(settings, folder / "built.h5", code="benchmark")
else:
    from headstrong import evaluation, jobs, training
    from headstrong.data.batches import Batches
    training.Batches = evaluation.Batches = functools.partial(Batches, memory_bytes=limit)
    job = getattr(jobs, f"{stage}_job_from_dict")(settings)
    if stage == "training":
        training.train(job, data, folder / "w.safetensors", snapshots={}, history=folder / "h.csv",
            work=folder / "work", device="cpu", threads=1, checkpoint_minutes=60, code="benchmark")
    else:
        evaluation.evaluate(job, folder / "weights.safetensors", data, folder / "e.h5", device="cpu", threads=1,
            code="benchmark")
status = Path("/proc/self/status").read_text()  # of this program alone: ru_maxrss starts at what its parent had
print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


def peak(stage: str, settings: dict, data: Path, folder: Path) -> float:
    """Peak memory in MB of one stage in a process of its own. Raises RuntimeError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", PEAK, stage, json.dumps(settings), str(data), str(folder), str(LIMIT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{stage}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.splitlines()[-1])


def memory_rows(scene: Scene, rounds: int, times: int = 4) -> Iterator[Row]:
    """Peak memory by stage, with the growth from a data set to one of `times` as many images."""
    weights = scene.weights
    small = Scene(scene.folder / "few", scene.side, scene.images, scene.batch, 1, scene.width, scene.tasks)
    large = Scene(scene.folder / "many", scene.side, times * scene.images, scene.batch, 1, scene.width, scene.tasks)
    for one in (small, large):
        one.folder.mkdir(exist_ok=True)
        (one.folder / "weights.safetensors").write_bytes(weights.read_bytes())
    for stage in ("training", "evaluation", "building"):
        found = [[_peak_of(stage, one) for _ in range(rounds)] for one in (large, small)]
        yield _row(stage, found, times, small.images)


def _peak_of(stage: str, scene: Scene) -> float:
    """Evaluation attacks the training images here: of these there are more."""
    settings = {
        "training": to_dict(scene.job),
        "evaluation": to_dict(evaluation_job(scene)),
        "building": scene.settings("train", scene.images),
    }[stage]
    return peak(stage, settings, scene.train_file, scene.folder)


def _row(stage: str, found: Sequence[Sequence[float]], times: int, images: int) -> Row:
    return make_row(
        f"peak memory of {stage}, {times * images} images", "MB", *found, more_is_better=True,
        peer_name=f"ours, {images} images", target="ratio <= 1.1",
    )  # fmt: skip
