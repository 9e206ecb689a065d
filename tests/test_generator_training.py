"""Training of generators against classifiers of squares and a dense network: what it does; kill and resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import classifier_runs
import training_runs
from classifier_runs import write_squares
from generated_jobs import make_generator_job
from headstrong.attacks.generators import perturbed
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.generator_training import load_generators, make_perturbations, train
from headstrong.jobs import to_dict
from headstrong.models.store import read_tensors
from headstrong.victims import open_victims
from training_runs import history_of, write_data

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
TASKS = ("east", "west")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Two domains of squares, with a classifier of their colours each: (weights, data) by task."""
    folder = tmp_path_factory.mktemp("classes")
    data = {
        task: write_squares(folder / f"{task}.h5", count, seed)
        for seed, (task, count) in enumerate([("east", 36), ("west", 24)])
    }
    job = classifier_runs.job_with(epochs=12, labels=("colour",), augment=False)
    weights = {task: classifier_runs.run(folder / task, job, data[task]) for task in TASKS}
    return weights, data


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    data = write_data(folder / "train.h5", 10)
    job = training_runs.job_with(
        encoder="segnet",
        tasks="sdn",
        weights=(1 / 3,) * 3,
        depth="metres",
        normals="cosine",
        epochs=20,
        learning_rate=3e-3,
        output_start="mean",
    )
    weights = training_runs.run(folder, job, data)
    return dict.fromkeys("sdn", weights), dict.fromkeys("sdn", data)


def job_with(**changes):
    return make_generator_job(**{"tasks": TASKS, "label": "colour", "batch_size": 6, "epochs": 2, **changes})


def dense_job(**changes):
    return job_with(
        **{"kind": "dense", "tasks": tuple("sdn"), "label": "", "shared_input": True, "batch_size": 5, **changes}
    )


def run(folder, job, victims, minutes=1e9):
    weights, data = victims
    train(
        job, weights, data, folder / "weights.safetensors", history=folder / "history.csv", work=folder / "work",
        device="cpu", threads=1, checkpoint_minutes=minutes,
    )  # fmt: skip
    return folder / "weights.safetensors"


def shares_told(job, path, victims):
    """By task, the shares of images of which the class is told right: clean, and with the perturbation."""
    generators, _, size = load_generators(path)
    found = {}
    for task, victim in open_victims("classes", "colour", *victims, "cpu").items():
        rows = range(victim.count)
        images = victim.images(rows)
        made = make_perturbations(generators, job, dict.fromkeys(TASKS, images), size, "cpu")[task]
        truth = victim.batch(rows).labels["colour"]
        found[task] = [
            float((victim.predictions(x) == truth).float().mean()) for x in (images, perturbed(images, made))
        ]
    return found


@pytest.mark.parametrize("mode", ["universal", "instance"])
def test_a_generator_breaks_its_victims(mode, classes, tmp_path):
    job = job_with(method="mta", mode=mode, epsilon=60.0, epochs=25, learning_rate=5e-3)
    for clean, attacked in shares_told(job, run(tmp_path, job, classes), classes).values():
        assert clean > 0.9
        assert attacked < clean - 0.4


def test_a_targeted_generator_leads_to_its_class(classes, tmp_path):
    job = job_with(method="mta", goal="targeted", targets=("green", "red"), epsilon=80.0, epochs=25, learning_rate=5e-3)
    path = run(tmp_path, job, classes)
    generators, _, size = load_generators(path)
    made = make_perturbations(generators, job, None, size, "cpu")
    for task, victim in open_victims("classes", "colour", *classes, "cpu").items():
        wanted = victim.classes.index(dict(zip(TASKS, job.targets, strict=True))[task])
        reached = victim.predictions(perturbed(victim.images(range(victim.count)), made[task])) == wanted
        assert float(reached.float().mean()) > 0.7


@pytest.mark.parametrize("method", ["gap", "mta"])
@pytest.mark.parametrize("mode", ["universal", "instance"])
def test_dense_tasks_lose_with_their_own_perturbations(method, mode, dense, tmp_path):
    job = dense_job(method=method, mode=mode, epsilon=30.0, epochs=25, learning_rate=5e-3)
    path = run(tmp_path, job, dense)
    generators, _, size = load_generators(path)
    for task, victim in open_victims("dense", "", *dense, "cpu").items():
        images = victim.images(range(10))
        made = make_perturbations(generators, job, dict.fromkeys("sdn", images), size, "cpu")
        with torch.no_grad():
            clean, attacked = (victim.losses(x, range(10)).mean() for x in (images, perturbed(images, made[task])))
        if task != "n":  # of the slopes, all normals are alike: the network cannot be wrong
            assert float(attacked) > 1.03 * float(clean)
    history = history_of(tmp_path)
    assert set(history[0]) == {"epoch", "learning_rate", "loss_s", "loss_d", "loss_n"}


def test_one_task_makes_gap_and_mta_the_same(classes, tmp_path):
    one = ({"east": classes[0]["east"]}, {"east": classes[1]["east"]})
    made = {
        method: read_tensors(run(tmp_path / method, job_with(method=method, tasks=("east",)), one))[0]
        for method in ("gap", "mta")
    }
    assert made["gap"].keys() == made["mta"].keys()
    assert all(torch.equal(made["gap"][name], made["mta"][name]) for name in made["gap"])


def test_gaps_generators_do_not_see_each_other(classes, tmp_path):
    """Trained side by side or alone, a task's perturbation is the same up to the rounding of Adam's epsilon."""
    both = run(tmp_path / "both", job_with(epochs=1), classes)
    one = ({"east": classes[0]["east"]}, {"east": classes[1]["east"]})
    alone = run(tmp_path / "alone", job_with(epochs=1, tasks=("east",)), one)
    made = []
    for path in (both, alone):
        generators, job, size = load_generators(path)
        made.append(make_perturbations(generators, job, None, size, "cpu")["east"] * 255)
    torch.testing.assert_close(*made, atol=0.05, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"weights": "learned", "mode": "instance", "method": "mta", "dropout": 0.5}])
def test_killed_and_resumed_gives_the_bits_of_an_undisturbed_run(changes, classes, tmp_path):
    job = job_with(epochs=2, **changes)
    whole = run(tmp_path / "whole", job, classes)
    kill_after(tmp_path / "killed", job, classes, epoch=1, step=1)
    resumed = run(tmp_path / "killed", job, classes)
    assert resumed.read_bytes() == whole.read_bytes()
    assert (tmp_path / "killed" / "history.csv").read_bytes() == (tmp_path / "whole" / "history.csv").read_bytes()
    assert not (tmp_path / "killed" / "work").exists()


CHILD = """
import json, sys
from pathlib import Path
from headstrong.generator_training import train
from headstrong.jobs import generator_job_from_dict
folder, job, victims, data = Path(sys.argv[1]), *(json.loads(text) for text in sys.argv[2:])
paths = [{task: Path(path) for task, path in given.items()} for given in (victims, data)]
train(generator_job_from_dict(job), *paths, folder / "weights.safetensors", history=folder / "history.csv",
      work=folder / "work", device="cpu", threads=1, checkpoint_minutes=0)
"""


def kill_after(folder, job, victims, epoch, step):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    given = [json.dumps({task: str(path) for task, path in paths.items()}) for paths in victims]
    command = [sys.executable, "-c", CHILD, str(folder), json.dumps(to_dict(job)), *given]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as child:
        place = (0, 0)
        try:
            while place < (epoch, step):
                assert child.poll() is None, "the training ended before it could be killed"
                if (folder / "work" / "last.ckpt").exists():
                    description = read_tensors(folder / "work" / "last.ckpt")[1]
                    place = (description["epoch"], description["step"])
        finally:
            child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def test_every_task_walks_through_all_its_images(classes, tmp_path):
    """36 and 24 images in batches of 6: six steps an epoch; the smaller domain is seen one and a half times."""
    run(tmp_path, job_with(epochs=1), classes)
    from headstrong.generator_training import _Trainer

    trainer = _Trainer(job_with(), open_victims("classes", "colour", *classes, "cpu"), "cpu")
    assert trainer.run.steps == 6
    seen = [trainer._rows("east", 0, step) for step in range(6)]
    assert sorted(torch.cat(seen).tolist()) == list(range(36))
    west = [trainer._rows("west", epoch, step) for epoch in (0, 1) for step in range(6)]
    assert sorted(torch.cat(west).tolist()) == sorted(3 * list(range(24)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"goal": "targeted", "targets": ("pink", "red")},
            "'pink' is no class of east; its classes are red, green, blue",
        ),
        ({"goal": "targeted", "targets": ("red",)}, "1 targets for 2 tasks"),
        ({"method": "magic"}, "choose gap or mta"),
        ({"scaling": "channel", "norm": "l2"}, "linf only"),
        ({"tasks": ("east", "north")}, "north"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(changes, said, classes, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, job_with(**changes), classes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "weights.safetensors").exists()


def test_files_that_are_no_generators_are_named(classes, tmp_path):
    with pytest.raises(MissingDataError, match="train these generators first"):
        load_generators(tmp_path / "absent.safetensors")
    with pytest.raises(BrokenFileError, match="not generators of headstrong"):
        load_generators(classes[0]["east"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_equal_bits_on_a_gpu(classes, tmp_path):
    job = job_with(epochs=2, mode="instance", method="mta")
    made = []
    for name in ("a", "b"):
        weights, data = classes
        path = tmp_path / name / "weights.safetensors"
        train(job, weights, data, path, history=path.with_name("h.csv"), work=path.parent / "work", device="cuda",
              threads=1, checkpoint_minutes=1e9)  # fmt: skip
        made.append(path.read_bytes())
    assert made[0] == made[1]
