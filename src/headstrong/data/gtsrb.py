"""German Traffic Sign Recognition Benchmark (Stallkamp et al., Neural Networks 2012): 43 classes of traffic signs.

Two sets of training pictures were published: the complete one, 39,209 pictures, and the training part of the
competition of 2011, 26,640 of them, which torchvision fetches. The test pictures are the same.

Three layouts are recognised: the complete set, `<root>/GTSRB/Final_Training/Images/<5 digits>/*.ppm` with a list
`GT-<5 digits>.csv` in each folder; the competition's part, `<root>/GTSRB/Training/<5 digits>/*.ppm`; both with
`<root>/GTSRB/Final_Test/Images/*.ppm` and `<root>/GT-final_test.csv`; and folders of images, `<root>/train/<class>/*`
and `<root>/test/<class>/*`.

The training pictures are frames of *tracks*: a car drives up to a sign, and neighbours of its 30 or so frames are
nearly the same picture. Were they split one by one, most validation pictures would have a twin among the training
pictures, and a classifier that learns those by heart would seem to generalise. Whole tracks are therefore held out; the
name of a file tells them, <track>_<frame>.ppm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from headstrong.data.image_folders import (
    Publication,
    check_classes,
    check_folders,
    folders,
    held_out,
    image_files,
    images,
    official_listing,
    tested,
)
from headstrong.data.listings import Listing, Part, of_classes, permuted
from headstrong.data.text_lists import check_files, once, read_lines, split_columns, whole, wrong
from headstrong.errors import BrokenFileError, MissingDataError

CLASSES = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80",
    "end of speed limit 80", "speed limit 100", "speed limit 120", "no overtaking", "no overtaking by lorries",
    "priority at next crossing", "priority road", "give way", "stop", "no vehicles", "no lorries", "no entry",
    "danger", "bend to the left", "bend to the right", "double bend", "uneven road", "slippery road",
    "road narrows on the right", "road works", "traffic lights", "pedestrians", "children", "bicycles", "ice or snow",
    "wild animals", "end of all limits", "turn right ahead", "turn left ahead", "ahead only", "ahead or right",
    "ahead or left", "keep right", "keep left", "roundabout", "end of no overtaking", "end of no overtaking by lorries",
)  # fmt: skip
HEADER = ("Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId")
COMPLETE = Publication("GTSRB", train=39209, test=12630, variant="the complete training set")
COMPETITION = Publication("GTSRB", train=26640, test=12630, variant="the training part of the 2011 competition")
_TRACK = re.compile(r"(\d+)_\d+\.\w+")


def listing(root: Path, part: Part) -> Listing:
    """The pictures of one split, the classes taking turns; the test pictures are the official ones.

    `validation_share` of each class's tracks, never none or all, is for validation, by a permutation that seed and
    class decide. Classes: `CLASSES`; of folders of images, the folders' names, sorted.
    Raises MissingDataError and BrokenFileError, naming file and line, and ConfigError for a share that cannot be.
    """
    check_there(root)
    if not (root / "GTSRB").is_dir():
        return official_listing(root, part, published, partial(_track, folder=root / "train"))
    training, testing, tests = official_places(root)
    train, test = _training(training), _tests(tests, testing)
    publication = published(sum(map(len, train.values())), training)
    note = publication.note(root, train, test)
    is_test = part.split == "test"
    columns = {}
    for name, (digits, files) in zip(CLASSES, (test if is_test else train).items(), strict=True):
        order = permuted(files, part.seed, "split", part.domain, "test" if is_test else "train", digits)
        if not is_test:
            chosen = held_out(order, part, training / digits, partial(_track, folder=training / digits))
            order = [f"{digits}/{file}" for file in chosen]
        columns[name] = order
    every_test = [testing / file for files in test.values() for file in files]
    every_training = [training / digits / file for digits, files in train.items() for file in files]
    repeated = {} if is_test else tested(every_training, every_test)
    return of_classes(
        root,
        testing if is_test else training,
        part.split,
        columns,
        list(CLASSES),
        note,
        unusable={path.relative_to(training).as_posix(): reason for path, reason in repeated.items()},
        variant=publication.variant,
    )


def check_there(root: Path, domains: Sequence[str] = (), labels: Sequence[str] = ()) -> None:
    """MissingDataError or BrokenFileError unless the folders of the classes, the tests and their list are there."""
    if not (root / "GTSRB").is_dir():
        check_folders(root, (), "neither GTSRB/ nor train/ and test/ is there; place one of the two")
        return
    training, testing, tests = official_places(root)
    if not training.is_dir():
        raise MissingDataError(
            f"{training}: no such folder; unpack GTSRB-Training_fixed.zip there, or GTSRB_Final_Training_Images.zip"
        )
    check_classes(training, folders(training), digits())
    if not testing.is_dir():
        raise MissingDataError(f"{testing}: no such folder; unpack GTSRB_Final_Test_Images.zip there")
    check_files(tests)


def official_places(root: Path) -> tuple[Path, Path, Path]:
    """Of the official layouts, the folders of the training and of the test pictures, and the list of the latter.

    BrokenFileError where both sets of training pictures are there: which one is meant cannot be known.
    """
    base = root / "GTSRB"
    complete, competition = base / "Final_Training" / "Images", base / "Training"
    if complete.is_dir() and competition.is_dir():
        raise BrokenFileError(
            f"{base}: both Training/ (the competition's part) and Final_Training/ (the complete training set) are "
            "there, expected one of them; move the other away"
        )
    training = complete if complete.is_dir() else competition
    return training, base / "Final_Test" / "Images", root / "GT-final_test.csv"


def published(found: int, training: Path = Path("train")) -> Publication:
    """Which set of training pictures it is, by its folder, else by their number: a folder may have been renamed."""
    complete = training.parent.name == "Final_Training" or found > COMPETITION.train
    return COMPLETE if complete else COMPETITION


def tells_track(file: str) -> bool:
    """Whether the name of a file tells its track, <track>_<frame>.ppm."""
    return _TRACK.fullmatch(file) is not None


def _track(file: str, folder: Path) -> str:
    found = _TRACK.fullmatch(file)
    if found is None:
        raise BrokenFileError(
            f"{folder / file}: the name tells no track, expected <track>_<frame>.ppm; "
            "without tracks no pictures can be held out for validation"
        )
    return found[1]


def digits() -> list[str]:
    """The official names of the class folders."""
    return [f"{number:05d}" for number in range(len(CLASSES))]


def _training(folder: Path) -> dict[str, list[str]]:
    """Class folder -> its files, and those that its list names, sorted; BrokenFileError for one that has no line."""
    found = images(folder)
    for name, files in found.items():
        listed = listed_training(folder, name)
        if listed is not None:
            _check_listed(folder / name, files, listed, f"GT-{name}.csv")
            found[name] = listed
    return found


def listed_training(folder: Path, name: str) -> list[str] | None:
    """The files that the list in a class folder of the complete set names, sorted; None where there is no list.

    Raises BrokenFileError, naming the line, where the list is not as it should be.
    """
    path = folder / name / f"GT-{name}.csv"
    if folder.parent.name != "Final_Training" or not path.is_file():
        return None
    found = read_list(path)
    strange = next((number for number in found if found[number] and number != name), None)
    if strange is not None:
        raise BrokenFileError(f"{path}: {found[strange][0]} is of class {int(strange)}, expected {int(name)}")
    return sorted(found[name])


def _tests(path: Path, folder: Path) -> dict[str, list[str]]:
    """The files of `read_list`; BrokenFileError where the folder has another."""
    found = read_list(path)
    _check_listed(folder, image_files(folder), [file for files in found.values() for file in files], path.name)
    return found


def _check_listed(folder: Path, files: list[str], listed: list[str], name: str) -> None:
    known = set(listed)
    stranger = next((file for file in files if file not in known), None)
    if stranger is not None:
        raise BrokenFileError(f"{folder / stranger}: {name} has no line of it, expected one; get the list again")


def read_list(path: Path) -> dict[str, list[str]]:
    """Class folder -> the files that a list has of it, in its order.

    Raises MissingDataError where there is no list, BrokenFileError, naming the line, where it is not as it should be.
    """
    lines = read_lines(path)
    if not lines or tuple(lines[0][1].split(";")) != HEADER:
        raise wrong(path, 1, "another header", ";".join(HEADER))
    found: dict[str, list[str]] = {name: [] for name in digits()}
    named = []
    for line in lines[1:]:
        fields = [field.strip() for field in split_columns(path, line, len(HEADER), ";")]
        number = whole(path, line[0], fields[-1], range(len(CLASSES)), "class")
        if "/" in fields[0] or not fields[0].endswith(".ppm"):
            raise wrong(path, line[0], f"'{fields[0]}'", "the name of a .ppm file")
        named.append((line[0], fields[0]))
        found[f"{number:05d}"].append(fields[0])
    once(path, named)
    return found
