"""What `benchmarks.reference` keeps of a finished study, and what it leaves behind."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest
import yaml

from benchmarks.reference import LEFT_OUT_FROM, OF_A_KIND, PACKED_FROM, keep
from headstrong.errors import MissingDataError
from headstrong.provenance import ROOT, RunRecord
from headstrong.seeds import derive_seed

REFERENCE = ROOT / "results" / "reference"


def write(path: Path, content: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def record(study: Path, path: Path, *outputs: Path, **job: str) -> None:
    with RunRecord(path, outputs=outputs, job=job):
        pass


def study_in(folder: Path, source: str = "rooms") -> Path:
    study = folder / "results" / "mine"
    write(study / "config.yaml", yaml.safe_dump({"report": {"models": ["z"]}}))
    for name in ("plan.csv", "report.html", "write_plan.json", "figures/index.json", "figures/curve.svg"):
        write(study / name, "{}")
    write(study / "figures" / "curve.png")
    write(study / "figures" / "pictures-scenes.png")
    record(study, study / "data" / "test.json", write(study / "data" / "test.h5"), source=source)
    write(study / "data" / "test.manifest.json", "{}")
    for model in "abcdz":
        made = [write(study / "models" / model / name) for name in ("weights.safetensors", "history.csv")]
        record(study, study / "models" / model / "run.json", *made, id=model)
    write(study / "tables" / "small.csv", "a,b\n1,2\n")
    return study


def kept_of(study: Path, folder: Path) -> set[str]:
    keep(study, folder)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_small_things_are_kept_and_the_rest_stays_behind(tmp_path):
    kept = kept_of(study_in(tmp_path), tmp_path / "kept")
    models = {f"models/{model}/{name}" for model in "abz" for name in ("run.json", "history.csv")}  # z is shown
    assert len(models) == 2 * OF_A_KIND
    assert kept == models | {
        "config.yaml", "plan.csv", "write_plan.json", "figures/index.json", "figures/curve.png",
        "figures/pictures-scenes.png", "data/test.json", "data/test.manifest.json", "tables/small.csv",
    }  # fmt: skip


def test_pictures_of_photographs_stay_behind(tmp_path):
    kept = kept_of(study_in(tmp_path, "nyuv2"), tmp_path / "kept")
    assert "figures/curve.png" in kept
    assert "figures/pictures-scenes.png" not in kept


def test_large_tables_are_packed_and_those_still_too_large_named(tmp_path):
    study = study_in(tmp_path)
    text = "number\n" + "1234567\n" * (PACKED_FROM // 8)
    write(study / "tables" / "large.csv", text)
    noise = b"".join(derive_seed(0, str(row)).to_bytes(8, "little") for row in range(LEFT_OUT_FROM // 8 + 1))
    write(study / "tables" / "noise.csv", noise)
    assert keep(study, tmp_path / "kept") == ["noise.csv"]
    assert {path.name for path in (tmp_path / "kept" / "tables").iterdir()} == {"small.csv", "large.csv.xz"}
    assert lzma.decompress((tmp_path / "kept" / "tables" / "large.csv.xz").read_bytes()).decode() == text


def test_what_lay_there_goes_but_what_a_reference_has_of_its_own(tmp_path):
    study, folder = study_in(tmp_path), tmp_path / "kept"
    write(folder / "tables" / "old.csv")
    write(folder / "records" / "old.json")
    own = {"overlay.yaml", "tables/generator_cost_published.csv"}
    for name in own:
        write(folder / name, "1")
    kept = kept_of(study, folder)
    assert own <= kept
    assert not {name for name in kept if "old" in name}
    assert not (folder / "records").exists()
    assert kept_of(study, folder) == kept


def test_an_unfinished_study_is_refused_and_nothing_is_lost(tmp_path):
    study = study_in(tmp_path)
    (study / "report.html").unlink()
    write(tmp_path / "kept" / "tables" / "old.csv")
    with pytest.raises(MissingDataError, match=r"report\.html"):
        keep(study, tmp_path / "kept")
    assert (tmp_path / "kept" / "tables" / "old.csv").is_file()


def test_references_show_no_photographs_and_no_file_is_large():
    paths = [path for path in REFERENCE.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in paths) < LEFT_OUT_FROM
    for path in REFERENCE.glob("*/figures/pictures-*"):
        records = [json.loads(one.read_text()) for one in path.parent.parent.glob("data/*.json")]
        sources = {one["settings"]["source"] for one in records if "settings" in one}
        assert sources <= {"rooms"}, path
