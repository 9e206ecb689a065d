"""The benchmarks: rows, the page made of them, small runs of what needs no peer, checks that results are equal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import attacking, bench, closing, graphs, peers, planning, stepping
from benchmarks.rows import FIELDS, Row, absent, make_row, read_rows, table, write_rows
from benchmarks.scene import Scene
from headstrong.errors import BrokenFileError
from headstrong.folding import frozen
from headstrong.provenance import ROOT

REFERENCE = ROOT / "results" / "reference" / "bench.json"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"), side=32, images=8, batch=2, epochs=2, width=0.125, tasks="sdn")


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_is_medians_of_the_rounds_and_a_ratio_of_each() -> None:
    row = make_row("a", "s", [1.0, 2.0, 4.0], [3.0, 4.0, 4.0], peer_name="b", target="ratio >= 1.5")
    assert (row.ours, row.peer, row.ratio, row.met) == (2.0, 4.0, 2.0, True)  # ratios 3, 2, 1
    assert row.spread == (1.5, 2.5)
    assert make_row("a", "1/s", [6.0], [2.0], more_is_better=True).ratio == 3.0


@pytest.mark.parametrize(
    ("target", "met"),
    [("ours < 5", False), ("ours <= 5", True), ("ours >= 5.5", False), ("ratio >= 2", False), ("stated", None)],
)
def test_targets(target: str, met: bool | None) -> None:
    assert make_row("a", "s", [5.0], target=target).met is met


def test_a_target_nobody_understands_is_refused() -> None:
    with pytest.raises(ValueError, match="twice as fast"):
        make_row("a", "s", [1.0], target="twice as fast")


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [make_row("a", "s", [1.0, 2.0], [3.0, 4.0], peer_name="b"), absent("c", "s", "not here")]
    write_rows(tmp_path / "bench.json", rows)
    assert read_rows(tmp_path / "bench.json") == rows
    assert all(tuple(row) == FIELDS for row in json.loads((tmp_path / "bench.json").read_text()))


@pytest.mark.parametrize("change", [{"met": False}, {"ours": "fast"}, {"spread": [2, 1]}, {"more": 1}, {"name": ""}])
def test_rows_that_are_none_are_refused(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "bench.json"
    write_rows(path, [make_row("a", "s", [1.0, 2.0], [3.0, 4.0], target="ratio >= 1.5")])
    path.write_text(json.dumps([json.loads(path.read_text())[0] | change]))
    with pytest.raises(BrokenFileError, match=r"bench\.json"):
        read_rows(path)


def test_the_page_shows_the_committed_run() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert bench.with_table(page, REFERENCE) == page
    assert table(read_rows(REFERENCE)) in page


def test_the_committed_run_holds_the_ratios_that_are_asked_for() -> None:
    targets = {row.target for row in read_rows(REFERENCE)}
    assert {"ratio >= 1.25", "ratio >= 2", "ratio >= 3", "ratio >= 1.5", "ratio >= 20"} <= targets


# --- equal results ---------------------------------------------------------------------------------------------------


def test_images_that_differ_are_told() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert attacking.check_same("same", images, images.clone()) == 0
    other = images.clone()
    other[0, 0, 0] += 0.01
    with pytest.raises(attacking.UnequalError, match="channels"):
        attacking.check_same("other", images, other)


@pytest.mark.parametrize("other", [1.03, 0.9, float("nan")])
def test_vulnerabilities_that_differ_are_told(other: float) -> None:
    assert attacking.check_close("same", 1.0, 1.01, 0.02) == pytest.approx(0.01)
    with pytest.raises(attacking.UnequalError, match="should be equal"):
        attacking.check_close("other", 1.0, other, 0.02)


def test_the_classifier_that_peers_attack_grows_with_the_loss() -> None:
    slopes = torch.tensor([1.0, -2.0])
    network = peers.LossAsClassifier(torch.nn.Identity(), lambda x: x[:, :, 0, 0] * slopes + 3)
    images = torch.rand(4, 2, 1, 1, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(network(images), torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert torch.equal(images.grad.sign().flatten(1), slopes.sign().expand(4, 2))


def test_a_peer_that_is_not_there_is_a_row_without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchattacks", None)
    reason = peers.missing("torchattacks")
    assert reason is not None
    assert "torchattacks" in reason
    assert absent("pgd", "s", reason).peer is None


# --- small runs ------------------------------------------------------------------------------------------------------


def test_pgd_without_peers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MAKERS", {})
    monkeypatch.setattr(attacking, "ROUNDED", 10.0)  # an untrained network: bfloat16 is far off
    rows = list(attacking.pgd_rows(scene, rounds=1, steps=2))
    assert len(rows) == 2
    assert all(row.ours is not None for row in rows)


def test_the_balanced_attack_goes_where_a_pass_for_each_task_goes(scene: Scene) -> None:
    (row,) = attacking.balanced_rows(scene, rounds=1)
    assert row.target == "ratio >= 3"
    assert row.ratio is not None


def test_training_and_reading(scene: Scene) -> None:
    rows = list(stepping.training_rows(scene, rounds=1))
    assert [row.unit for row in rows] == ["s a step", "s a step", "images/s", "images/s"]
    assert rows[1].peer is None


def test_a_training_step_that_can_be_recorded_starts_again_where_it_started(scene: Scene) -> None:
    step = graphs.RecordableStep(scene, 2)
    step()
    first = graphs.losses_of_steps(step, None, None, 2)
    assert first.shape == (2, 3)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(graphs.losses_of_steps(step, None, None, 2), first)


def test_steps_of_pgd_in_place_are_those_of_the_attack(scene: Scene) -> None:
    images = scene.test.images
    losses = attacking.losses_on(frozen(scene.model, images[:1]), scene.test, "sdn", "float32")
    work = graphs.RecordableAttack(losses, images, 3)
    ours = attacking.our_attack(scene, "sdn", "float32", 3)(images)
    assert torch.equal(work.run(work.step), ours)
    assert torch.equal(work.run(work.step), ours)  # from the clean images again
    assert torch.equal(attacking.plain_attack(scene, "sdn", 3)(images), plain_perturbed(scene, 3))


def plain_perturbed(scene: Scene, steps: int) -> torch.Tensor:
    losses = attacking.plain(scene, "sdn")[1]
    job = attacking.attack("sdn", steps=steps)
    return attacking.perturb(losses, scene.test.images, job, "sdn", scene.test.index, 0)


def test_more_images_than_there_are_come_again(scene: Scene) -> None:
    many = scene.many(scene.batch * 4 + 1)
    assert torch.equal(many.images[-1], many.images[0])
    step = stepping.our_loop(scene, 12)  # of 8 images
    step()
    step()


def test_pictures_hold_what_the_cache_holds(scene: Scene, tmp_path: Path) -> None:
    pictures = stepping.pictures_of(scene)
    stepping.check_reading(scene, pictures)
    pictures.bounds = {letter: (0.0, 2.0) for letter in pictures.bounds}
    with pytest.raises(RuntimeError, match="different numbers"):
        stepping.check_reading(scene, pictures)


def test_closed_form() -> None:
    (row,) = closing.closed_form_rows(rounds=1, side=8, tasks=2)
    assert row.ratio is not None
    assert row.ratio > 1


def test_interpreter_starts_are_read_from_a_dry_run() -> None:
    text = (
        2 * "job  count\nevaluate_model        4\ntrain_model           3\ntrain_model_with_checkpoints  1\ntotal  9\n"
    )
    assert planning.jobs_and_models(text) == (8, 4)


def test_every_row_is_of_one_type() -> None:
    assert FIELDS == ("name", "unit", "ours", "peer", "peer_name", "ratio", "spread", "target", "met")
    assert Row.__annotations__.keys() == set(FIELDS)
