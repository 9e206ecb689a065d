"""Small folders laid out as the official distributions of picture data sets, with images of noise."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from headstrong.data import awa2, celeba, deepfashion, gtsrb
from picture_folders import noise

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRACKS, FRAMES = 3, 4  # of a class of GTSRB


def write_image(path: Path, height: int = 10, width: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(path.as_posix()[-40:], height, width)).save(path)


def replace_line(path: Path, number: int, text: str | None) -> None:
    """Change line `number`, from 1; None: take it out."""
    lines = path.read_text().splitlines()
    lines[number - 1 : number] = [] if text is None else [text]
    path.write_text("\n".join(lines) + "\n")


def write_image_folders(root: Path, classes: tuple[str, ...] = CIFAR10, train: int = 5, test: int = 2) -> Path:
    for folder, many in (("train", train), ("test", test)):
        for name in classes:
            for i in range(many):
                write_image(root / folder / name / f"{i:05d}.png")
    return root


def write_cifar10_batches(root: Path, each: int = 20) -> dict[str, str]:
    """cifar-10-batches-py with `each` pictures in each of six batches; returns the MD5 of each file."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    found = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        content = {"data": draw.integers(0, 256, (each, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(each)]}
        whole = pickle.dumps({"label_names": list(CIFAR10)} if name == "batches.meta" else content)
        (folder / name).write_bytes(whole)
        found[name] = hashlib.md5(whole).hexdigest()
    return found


def write_gtsrb(root: Path, *, complete: bool = False) -> Path:
    """Three tracks of four frames of each class, and 43 x 2 tests whose classes go down.

    complete: as the complete training set, with a list in each class folder; else as the competition's part.
    """
    header = ";".join(gtsrb.HEADER)
    training = root / "GTSRB" / ("Final_Training/Images" if complete else "Training")
    for number in range(43):
        names = [f"{track:05d}_{frame:05d}.ppm" for track in range(TRACKS) for frame in range(FRAMES)]
        for name in names:
            write_image(training / f"{number:05d}" / name)
        rows = [f"{name};12;10;1;1;11;9;{number}" for name in names]
        (training / f"{number:05d}" / f"GT-{number:05d}.csv").write_text("\r\n".join([header, *rows]) + "\r\n")
    rows = [header]
    for i in range(86):
        write_image(root / "GTSRB" / "Final_Test" / "Images" / f"{i:05d}.ppm")
        rows.append(f"{i:05d}.ppm;12;10;1;1;11;9;{(85 - i) // 2}")
    (root / "GT-final_test.csv").write_text("\r\n".join(rows) + "\r\n")
    return root


def write_awa2(root: Path, each: int = 5) -> Path:
    for name in awa2.CLASSES:
        for i in range(each):
            write_image(root / "JPEGImages" / name / f"{name}_{10001 + i}.jpg")
    return root


def celeba_value(row: int, column: int) -> int:
    """Whether picture `row`, from 0, has the attribute of a column, 1 or -1."""
    return 1 if (row * 7 + column * 3) % 5 < 2 else -1


def write_celeba(root: Path, pictures: int = 12, nested: bool = False, table: bool = False) -> Path:
    """Half of the pictures to train with, a quarter each to validate and to test with, as columns of fixed width.

    table: the lists as .csv, and the images in a folder within one of the same name.
    """
    images, lists, partition = (root / name if nested else root for name in ("Img", "Anno", "Eval"))
    rows, parts = [str(pictures), " ".join(celeba.LABELS) + " "], []
    for i in range(pictures):
        name = f"{i + 1:06d}.jpg"
        write_image(images / "img_align_celeba" / ("img_align_celeba" if table else "") / name)
        rows.append(f"{name} " + " ".join(f"{celeba_value(i, column):2d}" for column in range(40)))
        parts.append(f"{name} {0 if i < pictures // 2 else 1 if i < 3 * pictures // 4 else 2}")
    for folder, name, content in (
        (lists, "list_attr_celeba.txt", rows),
        (partition, "list_eval_partition.txt", parts),
    ):
        folder.mkdir(exist_ok=True)
        if table:
            head = ["image_id", *celeba.LABELS] if content is rows else ["image_id", "partition"]
            content = [",".join(head), *(",".join(row.split()) for row in (rows[2:] if content is rows else parts))]
        (folder / name).with_suffix(".csv" if table else ".txt").write_text("\n".join(content) + "\n")
    return root


# --- DeepFashion ---------------------------------------------------------------------------------------------------

FASHION = {"train": 8, "val": 4, "test": 3}
_TYPES = [number for number, names in enumerate(deepfashion.GROUPS.values(), 1) for _ in names]


def fashion_image(split: str, row: int) -> str:
    return f"img/Dress_{split}/img_{row + 1:08d}.jpg"


def fashion_category(split: str, row: int) -> int:
    """The category of a picture, from 1."""
    return (row * 11 + len(split)) % 50 + 1


def fashion_values(row: int) -> list[int]:
    """The 26 attributes of picture `row`, from 0: of each group none, one or two, in turn."""
    found: list[int] = []
    for position, names in enumerate(deepfashion.GROUPS.values()):
        many = (row + position) % 3
        first = row % (len(names) - 1)
        found += [int(first <= column < first + many) for column in range(len(names))]
    return found


def _write(path: Path, rows: list[str], header: str | None) -> None:
    """header: None: only rows. "": their number, then the rows. Else also the names of columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    above = [] if header is None else [str(len(rows)), header] if header else [str(len(rows))]
    path.write_text("\n".join([*above, *rows]) + "\n")


def _write_categories(folder: Path) -> None:
    rows = [f"Category_{i} {1 + i % 3}" for i in range(1, 51)]
    _write(folder / "list_category_cloth.txt", rows, "category_name  category_type")


def write_fashion_images(root: Path, nested: bool = False) -> Path:
    for split, many in FASHION.items():
        for row in range(many):
            write_image(root / ("Img" if nested else "") / fashion_image(split, row))
    return root


def write_deepfashion(root: Path, *, headers: str = "none", place: str = "split", nested: bool = False) -> Path:
    """The fine annotation. headers: none, count, names or both, above the lists of each split. place: split, "" for
    none, or own for a folder per split."""
    write_fashion_images(root, nested)
    fine = root / "Anno_fine"
    rows = [f"{name} {kind}" for name, kind in zip(deepfashion.ATTRIBUTES, _TYPES, strict=True)]
    _write(fine / "list_attr_cloth.txt", rows, "attribute_name  attribute_type")
    _write_categories(fine)
    for split, many in FASHION.items():
        folder = fine / (split if place == "own" else place)
        lists = {
            "": ([fashion_image(split, row) for row in range(many)], "image_name"),
            "_attr": ([" ".join(map(str, fashion_values(row))) for row in range(many)], "attribute_labels"),
            "_cate": ([str(fashion_category(split, row)) for row in range(many)], "category_label"),
        }
        for kind, (content, names) in lists.items():
            above = [str(many)] * (headers in ("count", "both")) + [names] * (headers in ("names", "both"))
            _write(folder / f"{split}{kind}.txt", [*above, *content], None)
        (folder / f"{split}_bbox.txt").write_text("not read\n")
    return root


def write_coarse_deepfashion(root: Path, folder: str = "Anno_coarse") -> Path:
    write_fashion_images(root)
    _write_categories(root / folder)
    pictures = [(split, row) for split, many in FASHION.items() for row in range(many)]
    rows = [f"{fashion_image(*one)}    {fashion_category(*one)}" for one in pictures]
    _write(root / folder / "list_category_img.txt", rows, "image_name  category_label")
    rows = [f"{fashion_image(*one)}    {one[0]}" for one in pictures]
    _write(root / "Eval" / "list_eval_partition.txt", rows, "image_name  evaluation_status")
    return root
