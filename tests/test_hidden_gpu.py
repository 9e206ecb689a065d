"""Forgetting and attacks on hidden tasks on a GPU: the same bits twice, and near what a CPU gives."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
import torch

import hidden_runs as runs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["classes", "dense"])
def test_a_gpu_repeats_its_bits_and_agrees_with_a_cpu(tmp_path, kind):
    made, found = runs.families()[kind], {}
    attacks = [*runs.blind_attacks(made), runs.attack("oracle", "", attacked=(made.hidden,)), runs.attack("noise", "")]
    for name, device in (("once", "cuda"), ("again", "cuda"), ("cpu", "cpu")):
        folder = tmp_path / name
        folder.mkdir()
        copies = {access: runs.forget(folder, made, access, device) for access in runs.ACCESSES}
        job = runs.hidden_job(made, attacks)
        found[name] = runs.evaluate(dataclasses.replace(made, forgettings=copies), job, folder / "out.h5", device)
    assert found["once"].read_bytes() == found["again"].read_bytes()
    with h5py.File(found["once"]) as gpu, h5py.File(found["cpu"]) as cpu:
        for task in made.tasks:
            place = f"clean/{task}/loss"
            np.testing.assert_allclose(gpu[place][:], cpu[place][:], rtol=1e-3, atol=1e-4)
            place = f"attacks/noise.none.0/{task}/loss"
            np.testing.assert_allclose(gpu[place][:], cpu[place][:], rtol=1e-3, atol=1e-4)
        for attack in attacks:  # steps along signs part where a slope is near 0; the means stay together
            means = [file[f"attacks/{attack.method.name}/{made.hidden}/loss"][:].mean() for file in (gpu, cpu)]
            assert means[0] == pytest.approx(means[1], rel=0.1)
