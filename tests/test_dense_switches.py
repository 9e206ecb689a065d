"""Depth in metres and the cosine loss of normals: MTAN's targets and losses, from the data to the tables."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.nn import functional as F

import evaluation_runs
from evaluation_runs import attack_job, make_job
from headstrong.adversarial import adversarial_batch
from headstrong.analysis.baselines import build_table
from headstrong.configfiles import merge, parse
from headstrong.data.batches import Batches, metres
from headstrong.data.cache import SplitFile
from headstrong.data.statistics import target_mean
from headstrong.errors import ConfigError
from headstrong.losses import per_sample_losses
from headstrong.measures import per_sample_measures
from headstrong.metrics import per_sample_errors
from headstrong.models import load_model
from headstrong.protocol import PRESETS
from headstrong.provenance import ROOT
from headstrong.study import Plan
from headstrong.tasks import decode_depth
from headstrong.training_losses import training_losses
from training_runs import history_of, job_with, raw_samples, run, weights_of, write_data

torch.set_num_threads(1)
COUNT = 8
BOTH = {"depth": "metres", "normals": "cosine"}
EACH = [{"depth": "metres"}, {"normals": "cosine"}, BOTH]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "train.h5", COUNT)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Ten images of two sides, at 0.1 and 20 metres and tilted to the left and right."""
    return evaluation_runs.write_data(tmp_path_factory.mktemp("sides") / "test.h5", 10, 0)


def depths_of(path, letter="d"):
    """Depths in metres (N, H, W), float64, and where there is one, read without torch."""
    with SplitFile(path) as split:
        rows = np.arange(split.count)
        codes = split.read_codes(letter, rows)[:, 0].astype(np.float64)
        return np.expm1(codes / 65535 * np.log(65536)) / 512, split.read_valid(rows)


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["d", "D"])
def test_depths_come_back_in_metres_to_half_a_code(data, letter):
    found = Batches(data, letter, "cpu", depth="metres").get(range(COUNT)).targets[letter][:, 0].double().numpy()
    true = np.stack([sample[letter] for _, sample in raw_samples(COUNT)])
    # m = (65536^x - 1) / 512 and codes are 1 / 65535 apart in x
    half = np.log(65536) * (true + 1 / 512) / 65535 / 2
    assert (np.abs(found - true) <= half * 1.01 + 1e-5 * true).all()
    assert (found[true == 0] == 0).all()


def test_only_depths_are_decoded_and_masks_stay(data):
    in_metres, encoded = (Batches(data, "sdDnE", "cpu", depth=depth).get([3, 0]) for depth in ("metres", "encoded"))
    for letter in "sdDnE":
        assert torch.equal(in_metres.masks[letter], encoded.masks[letter])
        same = torch.equal(in_metres.targets[letter], encoded.targets[letter])
        assert same == (letter not in "dD")
    decoded = decode_depth(encoded.targets["d"].numpy())
    np.testing.assert_allclose(in_metres.targets["d"].numpy(), decoded, rtol=1e-5)


def test_reading_from_the_file_gives_the_same_bits(data):
    resident, streamed = (Batches(data, "dD", "cpu", memory_bytes=size, depth="metres") for size in (1 << 30, 0))
    assert resident.resident
    assert not streamed.resident
    for letter in "dD":
        assert torch.equal(resident.get([5, 1]).targets[letter], streamed.get([5, 1]).targets[letter])
    streamed.close()


def test_without_the_switches_targets_losses_and_measures_are_what_they_were(data):
    batch = Batches(data, "dn", "cpu").get(range(COUNT))
    with SplitFile(data) as split:
        codes = torch.from_numpy(split.read_codes("d", np.arange(COUNT)).astype(np.int32))
    assert torch.equal(batch.targets["d"], codes.float().div(65535).mul(1.0).add(0.0))
    outputs = {"d": batch.targets["d"] * 0.9 + 0.02, "n": 2 * torch.randn(COUNT, 3, 32, 32)}
    found = per_sample_losses(outputs, batch, "dn", pixels="valid", class_weights=None)
    for column, letter in enumerate("dn"):
        off, mask = (outputs[letter] - batch.targets[letter]).abs().mean(dim=1), batch.masks[letter][:, 0]
        expected = torch.where(mask, off, 0).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
        assert torch.equal(found[:, column], expected)
    true, guess = (torch.expm1(x * math.log(65536)) / 512 for x in (batch.targets["d"][:, 0], outputs["d"][:, 0]))
    mask = batch.masks["d"][:, 0]
    expected = torch.where(mask, (guess - true).abs(), 0).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
    assert torch.equal(per_sample_measures(outputs, batch, "d", pixels="valid")["d"]["absolute"], expected)


@pytest.mark.parametrize("pixels", ["valid", "all"])
def test_the_mean_is_that_of_the_metres(data, pixels):
    metres_of, known = depths_of(data)
    with SplitFile(data) as split:
        found = target_mean(split, "d", pixels, "metres")
    expected = metres_of[known].mean() if pixels == "valid" else metres_of.mean()
    assert found == pytest.approx([expected], rel=1e-5)


def test_half_a_metre_in_the_encoding():
    assert float(metres(torch.tensor(math.log1p(256) / math.log(65536)))) == pytest.approx(0.5, rel=1e-5)


# --- losses and measures ----------------------------------------------------------------------------------------------


def test_losses_by_hand(data):
    batch = Batches(data, "dn", "cpu", depth="metres").get([0])
    outputs = {
        "d": torch.full((1, 1, 32, 32), 2.0),
        "n": torch.tensor([0.0, 3.0, -4.0]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32),
    }
    losses = per_sample_losses(outputs, batch, "dn", pixels="valid", class_weights=None, normals="cosine")
    depth, known = depths_of(data)
    assert float(losses[0, 0]) == pytest.approx(np.abs(depth[0] - 2)[known[0]].mean(), rel=1e-5)
    assert float(losses[0, 1]) == pytest.approx(1 - 4 / 5, abs=2e-5)  # the truth is (0, 0, -1), in 16 bits
    errors, _ = per_sample_errors(outputs, batch, "dn", pixels="valid", miou="labelled")
    assert float(errors[0, 0]) == pytest.approx(((depth[0] - 2) ** 2)[known[0]].mean(), rel=1e-5)
    assert float(errors[0, 1]) == pytest.approx((3**2 + 3**2) / 3, rel=1e-3)  # the length counts in the error


def test_measures_of_metres_are_those_of_the_encoding(data):
    in_metres, encoded = (Batches(data, "d", "cpu", depth=depth).get([1, 2]) for depth in ("metres", "encoded"))
    guess = encoded.targets["d"] * 0.9 + 0.02
    first = per_sample_measures({"d": metres(guess)}, in_metres, "d", pixels="valid", depth="metres")["d"]
    second = per_sample_measures({"d": guess}, encoded, "d", pixels="valid")["d"]
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=1e-4, atol=1e-5)


def test_negative_and_far_depths_count_as_they_are(data):
    batch, (depth, known) = Batches(data, "d", "cpu", depth="metres").get(range(COUNT)), depths_of(data)
    for value in (-1.0, 500.0):
        outputs = {"d": torch.full_like(batch.targets["d"], value)}
        found = per_sample_measures(outputs, batch, "d", pixels="valid", depth="metres")["d"]
        off = [np.abs(value - depth[i][known[i]]) for i in range(COUNT)]
        assert found["absolute"].tolist() == pytest.approx([one.mean() for one in off], rel=1e-5)
        relative = [(one / depth[i][known[i]]).mean() for i, one in enumerate(off)]
        assert found["relative"].tolist() == pytest.approx(relative, rel=1e-5)
        assert all(found[name].eq(0).all() for name in found if name.startswith("within"))


# --- training ---------------------------------------------------------------------------------------------------------


def test_a_network_starts_as_the_mean_in_metres_and_learns(data, tmp_path):
    job = job_with(
        tasks="dn", weights=(0.5, 0.5), epochs=12, learning_rate=0.01, output_start="mean", loss_pixels="valid", **BOTH
    )
    run(tmp_path, job, data)
    history = history_of(tmp_path)
    depth, known = depths_of(data)
    assert float(weights_of(tmp_path / "weights.safetensors")["offset_d"]) == pytest.approx(depth[known].mean(), 1e-5)
    assert history[-1]["loss_d"] < 0.9 * history[0]["loss_d"]
    assert history[-1]["loss_n"] < history[0]["loss_n"] + 1e-6


def test_the_history_holds_the_losses_of_the_constant_that_a_network_starts_as(data, tmp_path):
    job = job_with(
        tasks="dn", weights=(0.5, 0.5), epochs=1, learning_rate=0.0, output_start="mean", loss_pixels="valid", **BOTH
    )
    run(tmp_path, job, data)
    depth, known = depths_of(data)
    off = [np.abs(depth[i] - depth[known].mean())[known[i]].mean() for i in range(COUNT)]
    assert history_of(tmp_path)[0]["loss_d"] == pytest.approx(np.mean(off), rel=1e-4)
    assert history_of(tmp_path)[0]["loss_n"] == pytest.approx(0, abs=1e-6)  # all normals are alike


@pytest.mark.parametrize("switches", EACH)
def test_an_attack_in_training_climbs_the_loss_that_is_trained(sides, switches, tmp_path):
    attack = attack_job("fgsm.total.dn.linf.1.1", "fgsm", "total", "dn", steps=1, start="clean", epsilon=1e-3)
    job = job_with(tasks="dn", adversarial=attack, epochs=1, loss_pixels="valid", output_start="random", **switches)
    run(tmp_path, job, sides)
    assert list(history_of(tmp_path)[0])[-2:] == ["adversarial_loss_d", "adversarial_loss_n"]
    assert all(math.isfinite(value) for value in history_of(tmp_path)[0].values())
    model = load_model(tmp_path / "weights.safetensors").eval()
    batch = Batches(sides, "dn", "cpu", depth=job.depth).get(range(4))
    with torch.no_grad():
        before = training_losses(job, model, batch, None).sum()
    attacked = adversarial_batch(job, attack, model, batch, None, epoch=0)
    with torch.no_grad():
        assert training_losses(job, model, attacked, None).sum() > before
    images = batch.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(by_torch(model(images), batch, switches).sum(), images)
    expected = (batch.images + attack.epsilon * gradient.sign()).clamp(0, 1)
    away = gradient.abs() > 1e-5 * gradient.abs().max()  # rounding may turn the sign of what is nearly 0
    torch.testing.assert_close(attacked.images[away], expected[away], rtol=0, atol=1e-6)


def by_torch(outputs, batch, switches):
    """The losses (B, 2) of d and n from torch's own, over valid pixels; d in whatever the batch has."""
    mask = batch.masks["d"][:, 0]
    depth = F.l1_loss(outputs["d"], batch.targets["d"], reduction="none")[:, 0]
    if switches.get("normals") == "cosine":
        normals = 1 - F.cosine_similarity(outputs["n"], batch.targets["n"], dim=1)
    else:
        normals = F.l1_loss(outputs["n"], batch.targets["n"], reduction="none").mean(dim=1)
    return torch.stack([(maps * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)) for maps in (depth, normals)], dim=1)


# --- evaluation -------------------------------------------------------------------------------------------------------

ATTACKS = tuple(
    attack_job(f"pgd.single.{letter}.linf.8.6", "pgd", "single", letter, start="clean", steps=3) for letter in "dn"
)


@pytest.fixture(scope="module", params=EACH, ids=["metres", "cosine", "both"])
def evaluated(request, sides, tmp_path_factory):
    """The switches, the network trained with them for a moment, and its evaluation."""
    folder, switches = tmp_path_factory.mktemp("evaluated"), request.param
    job = job_with(
        encoder="xception", tasks="dn", epochs=4, learning_rate=3e-3, output_start="mean", loss_pixels="valid",
        **switches,
    )  # fmt: skip
    weights = run(folder, job, sides)
    wanted = make_job(id=job.id, tasks="dn", attacks=ATTACKS, gradients=True, **switches)
    return switches, load_model(weights).eval(), evaluation_runs.run(wanted, weights, sides, folder / "e.h5")


def by_numpy(outputs, path, switches):
    """Losses, errors and measures of d and n, sample by sample, from outputs of a network, without the package's."""
    depth, known = depths_of(path)
    with SplitFile(path) as split:
        true = split.read_target("n", np.arange(split.count)).astype(np.float64)
    rows = []
    for i, mask in enumerate(known):
        d, n = (outputs[letter][i][:, mask].double().numpy() for letter in "dn")
        g, v = depth[i][mask], true[i][:, mask]
        code = np.log1p(512 * g) / np.log(65536)
        said = d[0] if "depth" in switches else np.expm1(np.clip(d[0], 0, 1) * np.log(65536)) / 512
        target = g if "depth" in switches else code
        cosines = (n * v).sum(0) / np.linalg.norm(n, axis=0) / np.linalg.norm(v, axis=0)
        angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
        worst = np.maximum(said / g, g / np.where(said > 0, said, 1e-9))
        rows.append(
            {
                "d/loss": np.abs(d[0] - target).mean(),
                "d/error": ((d[0] - target) ** 2).mean(),
                "d/measures/absolute": np.abs(said - g).mean(),
                "d/measures/relative": (np.abs(said - g) / g).mean(),
                "d/measures/within_1.25^3": (worst <= 1.25**3).mean(),
                "n/loss": (1 - cosines).mean() if "normals" in switches else np.abs(n - v).mean(),
                "n/error": ((n - v) ** 2).mean(),
                "n/measures/angle_mean": angles.mean(),
                "n/measures/angle_median": np.sort(angles)[(len(angles) - 1) // 2],
                "n/measures/within_30": (angles <= 30).mean(),
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_an_evaluation_agrees_with_numpy(evaluated, sides):
    switches, model, output = evaluated
    with torch.no_grad():
        expected = by_numpy(model(Batches(sides, "dn", "cpu").get(range(10)).images), sides, switches)
    with h5py.File(output) as file:
        assert {key: json.loads(file.attrs["job"])[key] for key in switches} == switches
        for place, values in expected.items():
            # a pixel on the edge of a share may fall to either side
            close = {"atol": 3 / 32**2} if "within" in place else {"rtol": 2e-3, "atol": 2e-4}
            np.testing.assert_allclose(file[f"clean/{place}"][:], values, err_msg=place, **close)
        for attack in ATTACKS:
            letter = attack.attacked
            rises = file[f"attacks/{attack.name}/{letter}/loss"][:] - file[f"clean/{letter}/loss"][:]
            assert rises.mean() > 0


def test_gradients_are_those_of_torchs_losses(evaluated, sides):
    switches, model, output = evaluated
    batch = Batches(sides, "dn", "cpu", depth=switches.get("depth", "encoded")).get(range(10))
    images = batch.images.clone().requires_grad_()
    losses = by_torch(model(images), batch, switches).sum(dim=0)
    rows = [torch.autograd.grad(loss, images, retain_graph=True)[0].flatten(1).double() for loss in losses]
    expected = torch.einsum("tnp,unp->ntu", torch.stack(rows), torch.stack(rows)).numpy()
    with h5py.File(output) as file:
        found = file["gradients/gram"][:]
    assert (expected[:, [0, 1], [0, 1]] > 0).all()
    lengths = np.sqrt(expected[:, [0, 1], [0, 1]])
    scale = lengths[:, :, None] * lengths[:, None]
    np.testing.assert_allclose(found / scale, expected / scale, atol=5e-3)


# --- constant predictors, plan, mistakes ------------------------------------------------------------------------------


def test_the_constant_predictor_in_metres(data, tmp_path):
    depth, known = depths_of(data)
    errors = [((depth[i] - depth[known].mean())[known[i]] ** 2).mean() for i in range(COUNT)]
    table = build_table(data, data, "dn", depth="metres").set_index("task")
    assert table.loc["d", "error"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert table.loc["n"].equals(build_table(data, data, "dn").set_index("task").loc["n"])
    command = [sys.executable, "scripts/measure_baselines.py", "--train", data, "--test", data, "--tasks", "d"]
    subprocess.run([*command, "--depth", "metres", "--output", tmp_path / "b.csv"], check=True, cwd=ROOT)
    assert pd.read_csv(tmp_path / "b.csv")["error"][0] == pytest.approx(np.mean(errors), rel=1e-5)


def test_a_section_can_set_them_and_no_preset_does():
    assert {(preset["depth"], preset["normals"]) for preset in PRESETS.values()} == {("encoded", "l1")}
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    section = {"encoders": ["resnet18"], "tasks": "sdn", "sizes": [3], "protocol": BOTH}
    plan = Plan(parse(merge(default, {"plan": {"metric": section}})))
    assert plan["metric-resnet18-sdn"].switches == "depth=metres;normals=cosine"
    assert plan["metric-resnet18-sdn"].run == "metric-resnet18-sdn"  # other weights than those of its base
    for name, switches in (("metric-resnet18-sdn", ("metres", "cosine")), ("three-resnet18-sdn", ("encoded", "l1"))):
        for job in (plan.training_job(name), plan.evaluation_job(name)):
            assert (job.depth, job.normals) == switches


@pytest.mark.parametrize(("key", "value"), [("depth", "feet"), ("normals", "angle")])
def test_unknown_switches_are_named_in_one_line(key, value, data, tmp_path):
    words = f"{key} '{value}' is unknown; choose"
    with pytest.raises(ConfigError, match=words):
        run(tmp_path / "t", job_with(**{key: value}), data)
    weights = run(tmp_path / "good", job_with(tasks="dn", epochs=1), data)
    job = replace(make_job(tasks="dn", attacks=()), **{key: value})
    with pytest.raises(ConfigError, match=words) as caught:
        evaluation_runs.run(job, weights, data, tmp_path / "e.h5")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e.h5").exists()
