"""From a fresh interpreter to the first step of a training and of an attack, as the workflow starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row, make_row
from benchmarks.scene import Scene, attack
from benchmarks.timing import children_seconds
from headstrong.jobs import EvaluationJob, to_dict
from headstrong.provenance import ROOT, settings_json, write_atomically

# The program itself, stopped where its first step would begin.
STOPPED = """
import os, runpy, sys
module, name, script = sys.argv[1:4]
found = __import__(f"headstrong.{module}", fromlist=[name])
def stop(*_, **__):
    print("first step", flush=True)
    os._exit(0)
setattr(found, name, stop)
sys.argv = sys.argv[3:]
runpy.run_path(script, run_name="__main__")
"""


def evaluation_job(scene: Scene) -> EvaluationJob:
    """A short evaluation of the model of a scene."""
    return EvaluationJob(
        id="bench", tasks=scene.tasks, attacks=(attack(scene.tasks, steps=1),), samples=None, batch_size=scene.batch,
        error_pixels="valid", miou="labelled", loss_pixels="valid", class_weights="uniform", precision="float32",
        seed=0,
    )  # fmt: skip


def seconds_of(*command: str) -> float:
    """Processor seconds of an interpreter with these arguments. Raises RuntimeError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    start = children_seconds()
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{command[-1]}: {done.stderr.strip().splitlines()[-1]}")
    return children_seconds() - start


def commands(scene: Scene, folder: Path) -> dict[str, tuple[str, ...]]:
    """Arguments of the interpreter that train and evaluate, and stop before the first step."""
    jobs = {}
    for name, job in {"train": scene.job, "evaluate": evaluation_job(scene)}.items():
        jobs[name] = folder / f"{name}.json"
        write_atomically(jobs[name], settings_json(to_dict(job)))
    train = (
        "train_model.py", "--job", str(jobs["train"]), "--data", str(scene.train_file),
        "--weights", str(folder / "w.safetensors"), "--history", str(folder / "h.csv"), "--work", str(folder / "work"),
    )  # fmt: skip
    evaluate = (
        "evaluate_model.py", "--job", str(jobs["evaluate"]), "--data", str(scene.test_file),
        "--weights", str(scene.weights), "--output", str(folder / "e.h5"),
    )  # fmt: skip
    rest = ("--threads", "1", "--device", "cpu", "--code", "benchmark")
    stopped = {"training": ("training", "train_step", train), "attack": ("evaluation", "perturb", evaluate)}
    return {
        name: ("-c", STOPPED, module, function, str(ROOT / "scripts" / script), *arguments, *rest)
        for name, (module, function, (script, *arguments)) in stopped.items()
    }


def starting_rows(scene: Scene, rounds: int) -> Iterator[Row]:
    """Seconds to the first step, and of the import of torch alone."""
    folder = scene.folder / "starts"
    ways = {**commands(scene, folder), "torch": ("-c", "import torch")}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, command in ways.items():
            seconds = seconds_of(*command)
            if number:
                found[name].append(seconds)
    for name in ("training", "attack"):
        yield make_row(
            f"start of a job to its first step of {name}", "s", found[name], found["torch"],
            peer_name="the import of torch alone", target="ours < 5",
        )  # fmt: skip
