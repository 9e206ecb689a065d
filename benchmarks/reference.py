"""Keep what is small of a finished study as a reference: tables, figures, configuration, a few run records.

    python -m benchmarks.reference results/nyuv2

makes results/reference/nyuv2 anew. Weights, data, numbers per image and the page stay behind, and so do records of all
but three things of a kind (those that the report shows first). A table of more than a megabyte is packed with xz; one
that is still too large is left out and named. Figures that show photographs are left out: they are others' pictures.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from headstrong import program
from headstrong.errors import MissingDataError
from headstrong.lineage import read_record
from headstrong.provenance import ROOT, write_atomically
from headstrong.scale import EMBEDDED

REFERENCE = ROOT / "results" / "reference"
OF_A_KIND = 3
PACKED_FROM, LEFT_OUT_FROM = 2**20, 5 * 10**6  # bytes
BESIDE_RECORDS = ("history.csv",)  # small, and what a curve of the page is drawn from
# What a reference folder has of its own, and keeps.
OWN = ("overlay.yaml", "stages.csv", "tables/generator_cost_published.csv")


def keep(study: Path, folder: Path) -> list[str]:
    """Fill `folder` with the small files of a finished study; returns the names of what was left out for its size.

    What else lay there goes, but OWN. Raises MissingDataError for a study without a report.
    """
    if not (study / "report.html").is_file():
        raise MissingDataError(f"{study}: no report.html; finish the study first")
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    for name in OWN:
        if (folder / name).is_file():
            _copy(folder / name, partial / name)
    for path in (*_top(study), *_figures(study), *_records(study)):
        _copy(path, partial / path.relative_to(study))
    too_large = [path.name for path in sorted(study.glob("tables/*")) if not _keep_table(path, partial / "tables")]
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return too_large


def _top(study: Path) -> list[Path]:
    plan = sorted(study.glob("plan.csv"))  # not of a study without models of a plan
    return [study / "config.yaml", *plan, *sorted(study.glob("*.json"))]


def _figures(study: Path) -> Iterator[Path]:
    photographs = _has_photographs(study)
    for path in sorted(study.glob("figures/*.png")):
        if not (photographs and path.name.startswith("pictures-")):
            yield path
    yield study / "figures" / "index.json"


def _has_photographs(study: Path) -> bool:
    """Whether any data of the study are not rendered, as their records say."""
    records = [*study.glob("data/*.json"), *study.glob("pictures/*/*.json"), *study.glob("pictures/*/*/*.json")]
    jobs = (record.job for path in records if (record := read_record(path)) is not None)
    return any(job["source"] not in EMBEDDED for job in jobs if job and "source" in job)


def _records(study: Path) -> Iterator[Path]:
    """Records in folders of stages, of OF_A_KIND things each, and what is small beside them."""
    shown = yaml.safe_load((study / "config.yaml").read_text())["report"]["models"]
    for stage in sorted(path for path in study.iterdir() if path.is_dir() and path.name not in ("tables", "figures")):
        records = [path for path in sorted(stage.rglob("*.json")) if read_record(path) is not None]
        records.sort(key=lambda path: _thing(path) not in shown)
        for path in records[:OF_A_KIND]:
            yield path
            yield from (path.with_name(name) for name in BESIDE_RECORDS if path.with_name(name).is_file())
            manifest = path.with_suffix(".manifest.json")
            if manifest.is_file():
                yield manifest


def _thing(record: Path) -> str:
    return record.parent.name if record.stem == "run" else record.stem


def _keep_table(path: Path, folder: Path) -> bool:
    """Copy a table or a record of tables, packed where it is large; False where it is too large even so."""
    if path.stat().st_size < PACKED_FROM:
        _copy(path, folder / path.name)
        return True
    packed = lzma.compress(path.read_bytes(), preset=9 | lzma.PRESET_EXTREME)
    if len(packed) >= LEFT_OUT_FROM:
        return False
    write_atomically(folder / f"{path.name}.xz", packed)
    return True


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def main(arguments: argparse.Namespace) -> None:
    folder = REFERENCE / (arguments.name or arguments.study.resolve().name)
    left_out = keep(arguments.study, folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(json.dumps({"folder": folder.name, "bytes": size, "left_out": left_out}))


if __name__ == "__main__":
    parser = program.argument_parser(__doc__)
    parser.add_argument("study", type=Path, help="the folder of a finished study, results/<study>")
    parser.add_argument("--name", help="the folder in results/reference, where it is to have another name")
    sys.exit(program.run(main, parser))
