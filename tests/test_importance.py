"""The evaluation of a family of important classes, against computations of its own from the classifiers."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
import torch

import importance_runs as runs
from headstrong import importance
from headstrong.data.pictures import PictureFile
from headstrong.errors import BrokenFileError, ConfigError, MissingDataError
from headstrong.jobs import importance_job_from_dict, to_dict
from headstrong.models.classifier import load_classifier


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    return folder, *runs.family(folder, trials=2)


def evaluate(family, output, pictures=None, **changes):
    folder, job, data, choice = family
    chosen = {split: data[split] for split in ("validation", "test")} if pictures is None else pictures
    given = {"job": job, "weights": folder, "pictures": chosen, "choice": choice, **changes}
    importance.evaluate(**given, output=output, device="cpu", threads=1, code="test")
    return output


def test_predictions_and_angles_are_those_of_the_classifiers(family, tmp_path):
    folder, job, data, _ = family
    with h5py.File(evaluate(family, tmp_path / "e.h5")) as file:
        assert list(file["trials"]) == sorted(job.trials)
        for split in ("validation", "test"):
            with PictureFile(data[split]) as pictures:
                images = torch.from_numpy(pictures.read_images(range(pictures.count))).float() / 255
                truth = pictures.read_labels("colour", range(pictures.count))
            assert file[f"truth/{split}"][:].tolist() == truth.tolist()
            for trial in job.trials:
                model = load_classifier(folder / trial / "weights.safetensors")
                with torch.no_grad():
                    logits, features = model(images)["colour"], model.features(images).double().numpy()
                vectors = model.heads[0].weight.detach().double().numpy()[truth]
                cosine = (
                    (features * vectors).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(vectors, axis=1)
                )
                group = file[f"trials/{trial}/{split}"]
                assert group["predicted"][:].tolist() == logits.argmax(dim=1).tolist()
                np.testing.assert_allclose(group["angle"][:], np.arccos(cosine), atol=2e-4)


def test_attributes_say_what_a_trial_is(family, tmp_path):
    _, job, _, choice = family
    with h5py.File(evaluate(family, tmp_path / "e.h5")) as file:
        assert (file.attrs["family"], file.attrs["dataset"], file.attrs["label"]) == ("squares", "squares", "colour")
        assert json.loads(file.attrs["classes"]) == ["red", "green", "blue"]
        assert json.loads(file.attrs["important"]) == json.loads(choice.read_text())["important"]
        assert importance_job_from_dict(json.loads(file.attrs["job"])) == job
        camri, ce = file["trials/squares-camri-1"].attrs, file["trials/squares-ce-0"].attrs
        assert (camri["loss"], camri["important"], camri["trial"]) == ("camri", "worst1", 1)
        assert (camri["margin"], camri["scale"]) == (4, 8)
        assert math.isnan(camri["weight"])
        assert (ce["loss"], ce["important"], ce["trial"]) == ("ce", "", 0)
        assert math.isnan(ce["margin"])
        assert "features" not in file["trials/squares-ce-0/test"]


def test_equal_work_gives_equal_bytes(family, tmp_path):
    assert evaluate(family, tmp_path / "a.h5").read_bytes() == evaluate(family, tmp_path / "b.h5").read_bytes()


def test_features_of_two_numbers_are_kept_for_the_picture(tmp_path):
    made = tmp_path, *runs.family(tmp_path, ("ce", "camri"), 1, feature=2)
    with h5py.File(evaluate(made, tmp_path / "e.h5")) as file:
        group, truth = file["trials/squares-camri-0"], file["truth/test"][:]
        features, vectors = group["test/features"][:], group["weights"][:]
        assert "features" not in group["validation"]
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit @ directions.T
        assert cosines.argmax(axis=1).tolist() == group["test/predicted"][:].tolist()
        own = cosines[np.arange(len(truth)), truth]
        np.testing.assert_allclose(group["test/angle"][:], np.arccos(own.clip(-1, 1)), atol=1e-3)


def test_angles_near_nothing_and_near_pi_are_exact():
    """Where the arc cosine has lost all digits of an angle of 1e-9."""
    tiny = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 1e-9], [-1.0, 1e-9], [0.0, 3.0]], dtype=torch.float64)
    np.testing.assert_allclose(importance.angles(tiny, other), [1e-9, math.pi - 1e-9, math.pi / 2], rtol=1e-7)


def test_what_does_not_fit_is_refused_and_nothing_is_written(family, tmp_path):
    _, _, data, choice = family
    with pytest.raises(ConfigError, match="no test pictures"):
        evaluate(family, tmp_path / "e.h5", pictures={"validation": data["validation"]})
    with pytest.raises(MissingDataError, match="train this classifier first"):
        evaluate(family, tmp_path / "e.h5", weights=tmp_path)
    other = json.loads(choice.read_text())
    (tmp_path / "c.json").write_text(json.dumps({**other, "classes": ["red", "green", "pink"]}))
    with pytest.raises(BrokenFileError, match="other classes than"):
        evaluate(family, tmp_path / "e.h5", choice=tmp_path / "c.json")
    changed = next(name for name in other["classes"] if name not in other["important"]["worst1"])
    (tmp_path / "c.json").write_text(json.dumps({**other, "important": {"worst1": [changed], "named": ["blue"]}}))
    with pytest.raises(BrokenFileError, match="delete it and train this classifier again"):
        evaluate(family, tmp_path / "e.h5", choice=tmp_path / "c.json")
    assert not (tmp_path / "e.h5").exists()


def test_the_job_comes_back_from_json(family):
    assert importance_job_from_dict(json.loads(json.dumps(to_dict(family[1])))) == family[1]
