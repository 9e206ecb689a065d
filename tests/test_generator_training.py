"""Training of generators against classifiers of squares and a dense network: what it does; kill and resume."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from classifier_runs import write_squares
from headstrong.attacks.generators import pattern, perturbed, scale
from headstrong.errors import BrokenFileError, ConfigError, DivergedError, MissingDataError
from headstrong.generator_training import (
    batch_rows,
    build_generators,
    load_generators,
    make_perturbations,
    patterns,
    save_generators,
)
from headstrong.jobs import to_dict
from headstrong.models.classifier import load_classifier
from headstrong.models.store import read_tensors
from headstrong.victims import open_victims
from job_files import job_file
from training_runs import history_of, outputs_of
from victim_runs import (
    COLOURS,
    SIDE,
    TASKS,
    class_victims,
    dense_job,
    dense_victims,
    job_with,
    kill_after,
    random_signs,
    run,
    stopped,
    used,
    write_classifier,
)

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
STRONG = {"epochs": 10, "learning_rate": 5e-3, "epsilon": 30 / 255}


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Two domains of squares, with a classifier of their colours each: (weights, data) by task."""
    return class_victims(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return dense_victims(tmp_path_factory.mktemp("dense"))


def only(task, files):
    return tuple({task: paths[task]} for paths in files)


def share(found):
    return float(found.float().mean())


# What it does to victims, beside noise that has all of the radius


@pytest.mark.parametrize(("method", "mode"), [("gap", "universal"), ("mta", "universal"), ("mta", "instance")])
def test_a_generator_breaks_its_victims_and_noise_does_not(method, mode, classes, tmp_path):
    job = job_with(method=method, mode=mode, **STRONG)
    generators, _, size = load_generators(run(tmp_path, job, classes))
    opened = open_victims("classes", "colour", *classes, "cpu")
    images = {task: victim.images(range(victim.count)) for task, victim in opened.items()}
    made = make_perturbations(generators, job, images, size, "cpu")
    for task, victim in opened.items():
        truth = victim.batch(range(victim.count)).labels["colour"]
        noise = random_signs(images[task], job.epsilon)
        clean, noisy, attacked = (
            share(victim.predictions(x) == truth)
            for x in (images[task], perturbed(images[task], noise), perturbed(images[task], made[task]))
        )
        assert clean == 1
        assert noisy > 0.5
        assert attacked < 0.25


def test_a_targeted_generator_leads_to_its_class(classes, tmp_path):
    job = job_with(method="mta", goal="targeted", targets=("green", "red"), **STRONG)
    generators, _, size = load_generators(run(tmp_path, job, classes))
    made = make_perturbations(generators, job, None, size, "cpu")
    for (task, victim), target in zip(
        open_victims("classes", "colour", *classes, "cpu").items(), job.targets, strict=True
    ):
        images = victim.images(range(victim.count))
        wanted = COLOURS.index(target)
        assert share(victim.predictions(perturbed(images, random_signs(images, job.epsilon))) == wanted) < 0.65
        assert share(victim.predictions(perturbed(images, made[task])) == wanted) > 0.9


@pytest.mark.parametrize(("method", "mode"), [("gap", "universal"), ("mta", "instance")])
def test_every_dense_task_loses_to_its_own_perturbation(method, mode, dense, tmp_path):
    job = dense_job(method=method, mode=mode, **{**STRONG, "epochs": 20})
    generators, _, size = load_generators(run(tmp_path, job, dense))
    for task, victim in open_victims("dense", "", *dense, "cpu").items():
        rows = range(victim.count)
        images = victim.images(rows)
        made = make_perturbations(generators, job, dict.fromkeys("sdn", images), size, "cpu")[task]
        with torch.no_grad():
            clean, noisy, attacked = (
                float(victim.losses(x, rows).mean())
                for x in (images, perturbed(images, random_signs(images, job.epsilon)), perturbed(images, made))
            )
        assert attacked > 1.3 * max(clean, noisy), task
    assert list(history_of(tmp_path)[0]) == ["epoch", "learning_rate", "loss_s", "loss_d", "loss_n"]


# What a step is


@pytest.mark.parametrize("method", ["gap", "mta"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"log_mean": "inside", "norm": "l2", "epsilon": 300 / 255},
        {"untargeted_loss": "least_likely", "scaling": "channel"},
        {"goal": "targeted", "targets": ("green", "red"), "mode": "universal"},
    ],
)
def test_the_history_tells_the_losses_of_the_paper(method, changes, classes, tmp_path):
    """At learning rate 0: the losses of all steps again, from the equations and the classifiers as they are stored."""
    job = job_with(**{"method": method, "mode": "instance", "epochs": 1, "learning_rate": 0.0, **changes})
    run(tmp_path, job, classes)
    victims = open_victims("classes", "colour", *classes, "cpu")
    generators = build_generators(job).train()
    networks = {task: load_classifier(path) for task, path in classes[0].items()}
    expected = dict.fromkeys(TASKS, 0.0)
    for number in range(6):
        batches = {task: victim.batch(batch_rows(job, task, victim.count, number)) for task, victim in victims.items()}
        images = {task: batch.images for task, batch in batches.items()}
        inputs = {task: pattern(job.seed, task, (SIDE, SIDE)) for task in TASKS} if changes.get("mode") else images
        with torch.no_grad():
            for task, raw in generators(inputs).items():
                network = networks[task]
                logits = network((images[task] + scale(raw, job.norm, job.epsilon, job.scaling)).clamp(0, 1))["colour"]
                wanted, sign = batches[task].labels["colour"], -1
                if job.goal == "targeted":
                    wanted, sign = torch.full_like(wanted, COLOURS.index(job.targets[TASKS.index(task)])), 1
                elif job.untargeted_loss == "least_likely":
                    wanted, sign = network(images[task])["colour"].argmin(dim=1), 1
                losses = F.cross_entropy(logits, wanted, reduction="none")
                inside = job.log_mean == "inside"
                expected[task] += sign * float(losses.mean().log() if inside else losses.log().mean()) / 6
    (found,) = history_of(tmp_path)
    assert [found[f"loss_{task}"] for task in TASKS] == pytest.approx(list(expected.values()), rel=1e-3, abs=1e-3)


def test_every_task_walks_through_all_its_images():
    """36 and 24 images in batches of 6: six steps an epoch; the smaller domain is seen one and a half times."""
    job = job_with()
    seen = torch.cat([batch_rows(job, "east", 36, step) for step in range(6)])
    assert sorted(seen.tolist()) == list(range(36))
    west = [batch_rows(job, "west", 24, step) for step in range(12)]
    assert sorted(torch.cat(west).tolist()) == sorted(3 * list(range(24)))
    assert not torch.equal(torch.cat(west[:4]), torch.cat(west[4:8])), "each pass in an order of its own"
    assert sorted(batch_rows(job, "west", 4, 5).tolist()) == [0, 1, 2, 3], "fewer than a batch: all"
    assert not torch.equal(seen, torch.cat([batch_rows(job, "west", 36, step) for step in range(6)]))
    shared = dense_job()
    assert all(torch.equal(batch_rows(shared, "s", 16, step), batch_rows(shared, "n", 16, step)) for step in range(9))


def test_one_task_makes_gap_and_mta_the_same(classes, tmp_path):
    made = {
        method: read_tensors(run(tmp_path / method, job_with(method=method, tasks=("east",)), only("east", classes)))[0]
        for method in ("gap", "mta")
    }
    assert made["gap"].keys() == made["mta"].keys()
    assert all(torch.equal(made["gap"][name], made["mta"][name]) for name in made["gap"])


def test_gaps_generators_do_not_see_each_other(classes, tmp_path):
    """Trained side by side or alone, a task's perturbation is the same up to the rounding of Adam's epsilon."""
    both = run(tmp_path / "both", job_with(epochs=1), classes)
    alone = run(tmp_path / "alone", job_with(epochs=1, tasks=("east",)), only("east", classes))
    made = []
    for path in (both, alone):
        generators, job, size = load_generators(path)
        made.append(make_perturbations(generators, job, None, size, "cpu")["east"] * 255)
    torch.testing.assert_close(*made, atol=0.05, rtol=0)


def test_learned_weights_start_where_the_first_losses_are_and_leave_no_trace(classes, tmp_path):
    """At learning rate 0 the look at the first batch changes nothing: not running averages, not dropout's draws."""
    changes = {"mode": "instance", "method": "mta", "dropout": 0.5, "epochs": 1, "learning_rate": 0.0}
    stored = [
        read_tensors(run(tmp_path / kind, job_with(**changes, weights=kind), classes))[0]
        for kind in ("uniform", "learned")
    ]
    assert stored[0].keys() == stored[1].keys()
    assert all(torch.equal(stored[0][name], stored[1][name]) for name in stored[0])


# Perturbations and their files


@pytest.mark.parametrize("method", ["gap", "mta"])
def test_a_universal_perturbation_is_one_for_all_images(method):
    job = job_with(method=method)
    generators = build_generators(job).eval()
    images = {task: torch.rand(5, 3, SIDE, SIDE) for task in TASKS}
    alone = make_perturbations(generators, job, None, (SIDE, SIDE), "cpu")
    given = make_perturbations(generators, job, images, (SIDE, SIDE), "cpu")
    in_training = make_perturbations(generators.train(), job, None, (SIDE, SIDE), "cpu")
    for task in TASKS:
        assert alone[task].shape == (1, 3, SIDE, SIDE)
        assert torch.equal(alone[task], given[task])
        assert torch.equal(alone[task], in_training[task]), "what is used is what was trained"
    assert not torch.equal(alone["east"], alone["west"])
    shared = patterns(dense_job(), (SIDE, SIDE), "cpu").values()
    assert all(torch.equal(one, pattern(dense_job().seed, "", (SIDE, SIDE))) for one in shared)


def test_an_images_perturbation_is_its_own_whatever_its_batch():
    job = job_with(mode="instance", method="mta")
    generators = used(job)
    images = {task: torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) for task in TASKS}
    whole = make_perturbations(generators, job, images, (SIDE, SIDE), "cpu")
    part = make_perturbations(generators, job, {task: x[2:3] for task, x in images.items()}, (SIDE, SIDE), "cpu")
    for task in TASKS:
        torch.testing.assert_close(whole[task][2:3], part[task], rtol=1e-4, atol=1e-6)
        assert float((whole[task][0] - whole[task][1]).abs().max()) > 0.1 * job.epsilon
    with pytest.raises(ConfigError, match="give images"):
        make_perturbations(generators, job, None, (SIDE, SIDE), "cpu")


@pytest.mark.parametrize("mode", ["universal", "instance"])
def test_stored_generators_come_back_and_fit_other_victims(mode, classes, tmp_path):
    job = job_with(mode=mode, dropout=0.5)
    before = used(job)
    save_generators(tmp_path / "g.safetensors", before, job, (SIDE, SIDE), {"code": "c0de"})
    after, stored, size = load_generators(tmp_path / "g.safetensors")
    assert (stored, size) == (job, (SIDE, SIDE))
    assert not after.training
    other = {task: write_classifier(tmp_path / f"{task}.safetensors", classes[1][task], 7) for task in TASKS}
    for task, victim in open_victims("classes", "colour", other, classes[1], "cpu").items():
        images = dict.fromkeys(TASKS, victim.images(range(8)))
        made, again = (make_perturbations(x, job, images, size, "cpu")[task] for x in (before, after))
        assert torch.equal(made, again)
        attacked = perturbed(images[task], made)
        assert float((attacked - images[task]).abs().max()) <= job.epsilon * (1 + 1e-6)
        assert victim.predictions(attacked).shape == (8,)


def test_files_that_are_no_generators_are_named(classes, tmp_path):
    with pytest.raises(MissingDataError, match="train these generators first"):
        load_generators(tmp_path / "absent.safetensors")
    with pytest.raises(BrokenFileError, match="not generators of headstrong"):
        load_generators(classes[0]["east"])
    other = job_with(filters=8)  # not the job of the tensors
    save_generators(tmp_path / "other.safetensors", build_generators(job_with()), other, (SIDE, SIDE))
    with pytest.raises(BrokenFileError, match="not those of its job"):
        load_generators(tmp_path / "other.safetensors")


# The same bits


def test_equal_runs_give_equal_files(classes, tmp_path):
    for name in ("a", "b"):
        torch.rand(3)  # what happened before must not matter
        run(tmp_path / name, job_with(epochs=1), classes)
    assert outputs_of(tmp_path / "a") == outputs_of(tmp_path / "b")
    run(tmp_path / "c", job_with(epochs=1, seed=8), classes)
    assert outputs_of(tmp_path / "c") != outputs_of(tmp_path / "a")


def test_killed_and_resumed_gives_the_bits_of_an_undisturbed_run(classes, tmp_path):
    """With everything that has a state: running averages, dropout's draws, learned weights, passes across epochs."""
    job = job_with(epochs=3, weights="learned", mode="instance", method="mta", dropout=0.5, milestones=(1,))
    run(tmp_path / "whole", job, classes)
    kill_after(tmp_path / "killed", job, classes, epoch=1, step=1)
    assert not [path for path in (tmp_path / "killed").iterdir() if path.is_file()], "outputs appear at the end only"
    run(tmp_path / "killed", job, classes)
    assert outputs_of(tmp_path / "killed") == outputs_of(tmp_path / "whole")
    assert not (tmp_path / "killed" / "work").exists()


@pytest.mark.parametrize("changed", ["victim", "data"])
def test_a_checkpoint_of_another_victim_is_not_used(changed, classes, tmp_path, monkeypatch, caplog):
    job, files = job_with(tasks=("east",), epochs=1), only("east", classes)
    stopped(tmp_path / "run", job, files, monkeypatch, steps=3)
    weights, data = files
    if changed == "victim":
        files = {"east": write_classifier(tmp_path / "other.safetensors", data["east"], 7)}, data
    else:
        files = weights, {"east": write_squares(tmp_path / "other.h5", 36, 5, SIDE)}
    run(tmp_path / "run", job, files)
    run(tmp_path / "fresh", job, files)
    assert "starting from scratch" in caplog.text
    assert outputs_of(tmp_path / "run") == outputs_of(tmp_path / "fresh")


# Refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"goal": "targeted", "targets": ("pink", "red")},
            "'pink' is no class of east; its classes are red, green, blue",
        ),
        ({"goal": "targeted", "targets": ("red",)}, "1 targets for 2 tasks"),
        ({"method": "magic"}, "choose gap or mta"),
        ({"norm": "l1"}, "choose linf or l2"),
        ({"precision": "float8"}, "precision 'float8'"),
        ({"scaling": "channel", "norm": "l2"}, "linf only"),
        ({"epsilon": 0.0}, "epsilon 0.0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"tasks": ("east", "east")}, "each once"),
        ({"tasks": ("east", "north")}, "north"),
        ({"shared_input": True}, "images of their own"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_one_line(changes, said, classes, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, job_with(**changes), classes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_target_of_a_dense_task_is_refused(dense, tmp_path):
    with pytest.raises(ConfigError, match="'floor' is no class of s; its classes are none"):
        run(tmp_path, dense_job(goal="targeted", targets=("floor",) * 3), dense)


@pytest.mark.parametrize("side", [SIDE + 2, 28])
def test_images_of_sizes_that_do_not_fit_are_refused(side, classes, tmp_path):
    """26 is no multiple of 4; 28 is one, but the other domain has 24."""
    weights, data = classes
    data = {**data, "west": write_squares(tmp_path / "west.h5", 6, side=side)}
    with pytest.raises(ConfigError, match=f"images of west are {side}x{side}; expected one size for all"):
        run(tmp_path / "run", job_with(), (weights, data))


def test_a_run_that_diverges_leaves_nothing(classes, tmp_path):
    with pytest.raises(DivergedError, match=r"^generator \S+: "):
        run(tmp_path, job_with(learning_rate=1e30, mode="instance"), classes, minutes=0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# The program


def test_the_program_trains_as_the_function_does(classes, tmp_path, monkeypatch):
    job, (weights, data) = job_with(epochs=1), classes
    path = run(tmp_path / "called", job, classes)
    folder = tmp_path / "program"
    given = [
        part for task in TASKS for part in ("--victim", f"{task}={weights[task]}", "--data", f"{task}={data[task]}")
    ]
    monkeypatch.setattr(sys, "argv", [
        "train_generator.py", "--job", job_file(to_dict(job)), *given, "--device", "cpu",
        "--weights", str(folder / "weights.safetensors"), "--history", str(folder / "history.csv"),
        "--work", str(folder / "work"),
    ])  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "scripts" / "train_generator.py"), run_name="__main__")
    assert not caught.value.code
    assert outputs_of(folder) == outputs_of(path.parent)
    record = json.loads((folder / "run.json").read_text())
    assert set(record["victims"]) == set(record["data"]) == set(TASKS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_equal_bits_on_a_gpu(classes, tmp_path):
    job = job_with(epochs=2, mode="instance", method="mta")
    for name in ("a", "b"):
        run(tmp_path / name, job, classes, device="cuda")
    assert outputs_of(tmp_path / "a") == outputs_of(tmp_path / "b")
