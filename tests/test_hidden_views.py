"""What a view of some tasks measures: losses, errors, units and changes by task; and what an attacker climbs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import hidden_runs as runs
from headstrong import hidden_measures
from headstrong.attacks.balancers import FLOOR
from headstrong.attacks.hidden import Pull, kept_classes, kept_values
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.hidden_views import View, open_view

KINDS = ("classes", "dense")
ROWS = torch.tensor([0, 2, 3, 5])


@pytest.fixture(scope="module")
def families() -> dict[str, runs.Family]:
    return runs.families()


def paths(made: runs.Family) -> tuple[Path, Path]:
    return made.victim, made.test


def whole(made: runs.Family) -> View:
    return open_view(made.kind, made.tasks, *paths(made), "cpu")


def seen(view: View, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return view.outputs(view.features(images))


def moved(images: torch.Tensor) -> torch.Tensor:
    """Images somewhere else in the box."""
    return (0.9 * images + 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_measured_alike_whatever_its_companions(families, kind):
    made = families[kind]
    judge = whole(made)
    batch = judge.batch(ROWS)
    outputs, before = seen(judge, moved(batch.images)), seen(judge, batch.images)
    for column, (task, names) in enumerate(made.tasks.items()):
        alone = open_view(kind, {task: names}, *paths(made), "cpu")
        own, other = ({name: found[name] for name in names} for found in (outputs, before))
        lone = alone.batch(ROWS)
        for one, all_tasks in (
            (alone.losses(own, lone), judge.losses(outputs, batch)),
            (hidden_measures.errors(alone, own, lone), hidden_measures.errors(judge, outputs, batch)),
            (hidden_measures.units(alone, other, lone), hidden_measures.units(judge, before, batch)),
            (hidden_measures.changes(alone, own, other), hidden_measures.changes(judge, outputs, before)),
        ):
            assert all_tasks.shape == (len(ROWS), len(made.tasks))
            torch.testing.assert_close(one[:, 0], all_tasks[:, column], rtol=0, atol=0, equal_nan=True)


def test_groups_of_labels_are_measured_by_their_mean(families):
    judge = whole(families["classes"])
    batch = judge.batch(ROWS)
    outputs, before = seen(judge, moved(batch.images)), seen(judge, batch.images)
    pair = ("colour", "size")
    losses = sum(F.cross_entropy(outputs[label], batch.labels[label], reduction="none") for label in pair) / 2
    torch.testing.assert_close(judge.losses(outputs, batch)[:, 0], losses)
    changes = sum(kept_classes(outputs[label], before[label]) for label in pair) / 2
    torch.testing.assert_close(hidden_measures.changes(judge, outputs, before)[:, 0], changes)
    assert torch.equal(hidden_measures.units(judge, before, batch), torch.ones(len(ROWS), 3))


def test_dense_tasks_are_weighed_by_their_clean_losses(families):
    judge = whole(families["dense"])
    batch = judge.batch(ROWS)
    outputs, before = seen(judge, moved(batch.images)), seen(judge, batch.images)
    assert torch.equal(hidden_measures.units(judge, before, batch), judge.losses(before, batch).clamp(min=FLOOR))
    expected = [(kept_classes if letter == "s" else kept_values)(outputs[letter], before[letter]) for letter in "dsn"]
    torch.testing.assert_close(hidden_measures.changes(judge, outputs, before), torch.stack(expected, dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_folding_changes_nothing_but_rounding(families, kind):
    view = whole(families[kind])
    folded = hidden_measures.folded(view)
    images = view.batch(ROWS).images
    assert any("running_mean" in name for name in view.network.state_dict())
    for name, found in seen(folded, images).items():
        torch.testing.assert_close(found, seen(view, images)[name], rtol=1e-3, atol=1e-3)
    assert not any(parameter.requires_grad for parameter in folded.network.parameters())
    assert sum(1 for name in folded.network.state_dict() if "running_mean" in name) < 3


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_all_images_once_in_order(families, kind):
    view = whole(families[kind])
    assert torch.cat(list(view.rows(4))).tolist() == list(range(view.count))
    assert {len(rows) for rows in list(view.rows(4))[:-1]} == {4}
    limited = open_view(kind, families[kind].visible, *paths(families[kind]), "cpu", limit=3)
    assert limited.count == 3
    assert torch.equal(limited.batch([1, 2]).images, view.batch(limited.file_rows[1:]).images)


# --- what an attacker climbs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("access", runs.ACCESSES)
@pytest.mark.parametrize("kind", KINDS)
def test_pulls_are_towards_the_features_of_the_copy(families, kind, access):
    made = families[kind]
    attacker = runs.attacker(made, access)
    view, copied = attacker.view, runs.copied(made, access)
    images = view.batch(ROWS).images
    with attacker.forgetful, torch.no_grad():
        original, now = view.features(images), view.features(moved(images))
        direction = copied.features(images) - original
        train = open_view(kind, made.visible, made.victim, made.train, "cpu")
        shown = train.batch(range(train.count)).images
        mean = (copied.features(shown) - train.features(shown)).mean(dim=0)
        for objective in ("cf", "cf_delta", "disruption"):
            for how, way in (({}, direction), ({"direction": "mean"}, mean.expand_as(original))):
                found = attacker.losses(runs.attack(objective, access, **how), ROWS)(moved(images))
                assert found.shape == (len(ROWS), 1)
                expected = Pull(objective).values(now, original, way)
                torch.testing.assert_close(found[:, 0], expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("objective", ["cf", "cf_delta", "disruption"])
@pytest.mark.parametrize("kind", KINDS)
def test_stealth_takes_off_the_mean_change_of_the_visible_tasks(families, kind, objective):
    attacker = runs.attacker(families[kind], "heads")
    view = attacker.view
    images = view.batch(ROWS).images
    with attacker.forgetful, torch.no_grad():
        changes = hidden_measures.changes(view, seen(view, moved(images)), seen(view, images)).mean(dim=1)
        bare, kept = (
            attacker.losses(runs.attack(objective, stealth=stealth), ROWS)(moved(images)) for stealth in (0.0, 2.5)
        )
    assert float(changes.min()) > 1e-3
    torch.testing.assert_close(kept, bare - 2.5 * changes[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_attacks_on_tasks_climb_their_losses(families, kind):
    judge = whole(families[kind])
    batch = judge.batch(ROWS)
    attacker, points = runs.Attacker(judge), moved(batch.images)
    names = list(judge.tasks)
    with torch.no_grad():
        outputs, before = seen(judge, points), seen(judge, batch.images)
        losses, units = judge.losses(outputs, batch), hidden_measures.units(judge, before, batch)
        changes = hidden_measures.changes(judge, outputs, before)
        for attacked in ((names[2],), (names[2], names[0])):
            columns = [names.index(task) for task in attacked]
            found = attacker.losses(runs.attack("total", "", attacked=attacked), ROWS)(points)
            torch.testing.assert_close(found, losses[:, columns])
        stealthy = attacker.losses(runs.attack("oracle", "", 2.5, (names[1],)), ROWS)(points)
    expected = losses[:, 1] / units[:, 1] - 2.5 * changes[:, [0, 2]].mean(dim=1)
    torch.testing.assert_close(stealthy[:, 0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_attacked_alike_whatever_its_batch(families, kind):
    for access in runs.ACCESSES:
        attacker = runs.attacker(families[kind], access)
        with attacker.forgetful:
            for attack in (one for one in runs.blind_attacks(families[kind]) if one.access == access):
                together = attacker.perturb(attack, ROWS, 3)
                alone = attacker.perturb(attack, ROWS[2:3], 3)[0]
                # Rounding turns the sign of a gradient that is almost 0, nowhere else.
                assert float((together[2] != alone).float().mean()) < 0.05, attack.method.name


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_the_same_whoever_makes_it(families, kind):
    rows = torch.tensor([1, 4])
    attackers = [runs.attacker(families[kind], access) for access in runs.ACCESSES]
    images = [one.perturb(runs.attack("noise", ""), rows, 3) for one in attackers]
    images.append(runs.Attacker(runs.judge(families[kind])).perturb(runs.attack("noise", ""), rows, 3))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])
    for attacker in attackers:
        attacker.forgetful.close()


# --- refusals --------------------------------------------------------------------------------------------------------


def test_views_that_cannot_be_are_refused(families, tmp_path):
    classes, dense = families["classes"], families["dense"]
    for outputs in ({}, {"a": ()}, {"a": ("side", "side")}, {"a": ("side",), "b": ("side",)}):
        with pytest.raises(ConfigError, match=r"each needs an output|has no output"):
            open_view("classes", outputs, *paths(classes), "cpu")
    with pytest.raises(ConfigError, match="a task of a dense model is one letter"):
        open_view("dense", {"both": ("s", "d")}, *paths(dense), "cpu")
    with pytest.raises(MissingDataError, match="no images"):
        open_view("classes", {"side": ("side",)}, *paths(classes), "cpu", limit=0)
    other = runs.write_classes(tmp_path / "other.h5", 3, 1, garbled="side")
    with pytest.raises(BrokenFileError, match="other classes of 'side' than the classifier knows"):
        open_view("classes", {"side": ("side",)}, classes.victim, other, "cpu")
    assert open_view("classes", {"size": ("size",)}, classes.victim, other, "cpu").count == 3
