"""What should be there of the data sets of pictures with classes, as their readers understand them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from headstrong.data import awa2, celeba, cifar10, deepfashion, domains, gtsrb
from headstrong.data.duplicates import listed_twice, same_picture
from headstrong.data.image_checks import twins
from headstrong.data.image_folders import (
    OFFICIAL,
    Publication,
    class_root,
    first_folder,
    folders,
    image_files,
    tolerable,
)
from headstrong.data.verify_files import file_fault, look_at_picture
from headstrong.data.verify_findings import Count, Finding, Inventory
from headstrong.errors import MissingDataError, UserError

_TITLES = {"train": "training pictures", "validation": "validation pictures", "test": "test pictures"}
_FOLDERS = "folders of images, train/<class>/* and test/<class>/*"


def _inventory(root: Path, layout: str) -> Inventory:
    return Inventory(root, layout, partial(look_at_picture, root))


def _add(inventory: Inventory, folder: Path, names: Iterable[str]) -> None:
    """Pictures to look at, named relative to `folder`."""
    prefix = inventory.relative(folder)
    added = [f"{prefix}/{name}" if prefix else name for name in names]
    inventory.items += added
    inventory.used.update(added)


# --- folders of classes --------------------------------------------------------------------------------------------


def _classes(inventory: Inventory, folder: Path, expected: Sequence[str] = (), least: int = 1) -> int:
    """Add the pictures of the class folders in `folder`; returns how many. expected: the classes there should be, none:
    any. least: pictures that a class needs."""
    there = folders(folder)
    for name in sorted({*expected} - {*there}):
        inventory.found("missing", folder / name, f"no such class folder, one of {len(expected)}")
    if not expected and not there:
        inventory.found("missing", folder, "no class folders")
    found = 0
    for name in there:
        files = image_files(folder / name)
        if expected and name not in expected:
            inventory.found("broken", folder / name, f"an unknown class; there are {len(expected)} others")
            inventory.used.update(inventory.relative(folder / name / file) for file in files)  # told of already
            continue
        if len(files) < least:
            inventory.found("missing", folder / name, "no images" if not files else "one image only, none for tests")
        _add(inventory, folder, (f"{name}/{file}" for file in files))
        found += len(files)
    return found


def _domains(inventory: Inventory, names: Sequence[str], expected: Sequence[str], least: int) -> dict[str, int]:
    """Add the pictures of domains, folders of class folders, which are to have the same classes; expected: none: all
    that one of them has. Returns how many pictures each has."""
    places = {name: class_root(inventory.root, name) for name in names}
    classes = expected or sorted({label for place in places.values() for label in folders(place)})
    inventory.image_folders = [inventory.relative(place) for place in places.values()]
    return {name: _classes(inventory, place, classes, least) for name, place in places.items()}


def _repeated(inventory: Inventory, names: Sequence[str]) -> None:
    """Note pictures with the bytes of one before them."""
    _note(inventory, domains.repeated_picture, twins([inventory.root / name for name in names]))


def _tested(inventory: Inventory, train: Sequence[str], tests: Sequence[str]) -> None:
    """Note training pictures with the bytes of a test picture; as few as published data sets have are not a fault."""
    found = twins(*([inventory.root / name for name in names] for names in (train, tests)))
    _note(inventory, same_picture, found, fault=not tolerable(len(found), len(train)))


def _note(inventory: Inventory, said: Callable[[object], str], found: Mapping[Path, Path], fault: bool = True) -> None:
    for path, twin in found.items():
        reason = said(inventory.relative(twin))
        inventory.findings.append(Finding("broken", inventory.relative(path), reason, fault))


def _counts(found: dict[str, int], published: Publication) -> list[Count]:
    official = {"train": published.train, "test": published.test}
    return [Count(_TITLES[name], found.get(name, 0), official[name]) for name in OFFICIAL]


def _official_folders(root: Path, classes: Sequence[str], published: Callable[[int], Publication]) -> Inventory:
    inventory = _inventory(root, _FOLDERS)
    for name in OFFICIAL:
        if not (root / name).is_dir():
            inventory.found("missing", root / name, "no such folder")
    found = _domains(inventory, [name for name in OFFICIAL if (root / name).is_dir()], classes, 1)
    publication = published(found.get("train", 0))
    inventory.layout += f", {publication.variant}" if publication.variant else ""
    inventory.counts = _counts(found, publication)
    train, test = ([name for name in inventory.items if name.startswith(f"{split}/")] for split in OFFICIAL)
    _tested(inventory, train, test)
    return inventory


def look_at_cifar10(root: Path) -> Inventory:
    """CIFAR-10, in batches or in folders; MissingDataError where neither is there."""
    if not (root / cifar10.BATCHES).is_dir():
        if first_folder(root / "train", root / "test") is None:
            raise MissingDataError(f"{root}: neither {cifar10.BATCHES}/ nor train/ and test/ is there (docs/data.md)")
        return _official_folders(root, cifar10.CLASSES, lambda found: cifar10.PUBLISHED)
    inventory = _inventory(root, f"the official {cifar10.BATCHES}/")
    for path, digest in cifar10.batches(root).items():
        name = inventory.relative(path)
        inventory.used.add(name)
        fault = file_fault(root, name)
        if fault is not None:
            inventory.findings.append(fault)
        elif _md5(path) != digest:
            inventory.found("broken", path, f"its MD5 is not the official one, {digest}; unpack the archive again")
    if not inventory.findings:
        found = {}
        for split in OFFICIAL:
            try:
                found[split] = len(cifar10.read_batches(root, split)[0])
            except UserError as error:
                inventory.said(error)
        inventory.counts = _counts(found, cifar10.PUBLISHED)
    return inventory


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def look_at_awa2(root: Path) -> Inventory:
    """Animals with Attributes 2; MissingDataError where its folder of images is not there."""
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: no such folder; unpack AwA2-data.zip and place its JPEGImages there")
    inventory = _inventory(root, "JPEGImages/<class>/*")
    inventory.image_folders = ["JPEGImages"]
    inventory.counts = [Count("pictures", _classes(inventory, folder, awa2.CLASSES, 2), awa2.PICTURES)]
    return inventory


def look_at_office31(root: Path) -> Inventory:
    """Office-31, its three domains or some of them; MissingDataError where none is there."""
    there = [name for name in domains.OFFICE31 if (root / name).is_dir()]
    if not there:
        raise MissingDataError(f"{root}: none of {', '.join(domains.OFFICE31)} is there (docs/data.md)")
    inventory = _inventory(root, "domains, <domain>/images/<class>/* or <domain>/<class>/*")
    found = _domains(inventory, there, domains.OFFICE31_CLASSES, 2)
    inventory.counts = [
        Count(f"pictures of {name}", found.get(name, 0), many) for name, many in domains.OFFICE31.items()
    ]
    return inventory


def look_at_folder(root: Path) -> Inventory:
    """A folder of domains of the user's own; MissingDataError where there is none in it."""
    there = folders(root) if root.is_dir() else []
    if not there:
        raise MissingDataError(f"{root}: no domains; make a folder of <domain>/<class>/<images> there (docs/data.md)")
    inventory = _inventory(root, "domains, <domain>/<class>/* or <domain>/images/<class>/*")
    inventory.counts = [Count(f"pictures of {name}", n) for name, n in _domains(inventory, there, (), 2).items()]
    for name in there:
        _repeated(inventory, [item for item in inventory.items if item.startswith(f"{name}/")])
    return inventory


def look_at_gtsrb(root: Path) -> Inventory:
    """The traffic signs (GTSRB), officially or in folders; MissingDataError where neither is there."""
    if not (root / "GTSRB").is_dir():
        if first_folder(root / "train", root / "test") is None:
            raise MissingDataError(f"{root}: neither GTSRB/ nor train/ and test/ is there (docs/data.md)")
        return _official_folders(root, (), gtsrb.published)
    training, testing, test_list = gtsrb.official_places(root)
    inventory = _inventory(root, "")
    inventory.image_folders = [inventory.relative(place) for place in (training, testing)]
    inventory.used.add(inventory.relative(test_list))
    found = {"train": 0, "test": 0}
    for place in (training, testing):
        if not place.is_dir():
            inventory.found("missing", place, "no such folder")
    if training.is_dir():
        found["train"] = _signs(inventory, training)
    train = list(inventory.items)
    try:
        tests = [file for files in gtsrb.read_list(test_list).values() for file in files]
    except UserError as error:
        inventory.said(error)
        tests = image_files(testing) if testing.is_dir() else []
    _add(inventory, testing, tests)
    publication = gtsrb.published(found["train"], training)
    inventory.layout = f"the official {inventory.relative(training)}, {publication.variant}, with {test_list.name}"
    inventory.counts = _counts(found | {"test": len(tests)}, publication)
    _tested(inventory, train, inventory.items[len(train) :])
    return inventory


def _signs(inventory: Inventory, training: Path) -> int:
    """Add the training pictures, and those that the lists of the complete set name; returns how many there are."""
    found = _classes(inventory, training, gtsrb.digits())
    for name in inventory.items:
        if not gtsrb.tells_track(Path(name).name):
            inventory.found("broken", inventory.root / name, "the name tells no track, expected <track>_<frame>.ppm")
    for name in gtsrb.digits():
        try:
            listed = gtsrb.listed_training(training, name) if (training / name).is_dir() else None
        except UserError as error:
            inventory.said(error)
            listed = None
        inventory.used.add(inventory.relative(training / name / f"GT-{name}.csv"))
        if listed is None:
            continue
        there = {
            Path(item).name for item in inventory.items if item.startswith(f"{inventory.relative(training / name)}/")
        }
        _add(inventory, training / name, sorted({*listed} - there))
        for file in sorted(there - {*listed}):
            inventory.found("extra", training / name / file, f"GT-{name}.csv has no line of it")
    return found


# --- lists ---------------------------------------------------------------------------------------------------------


def look_at_celeba(root: Path) -> Inventory:
    """CelebA: the pictures that its lists name; all there are where one is broken. MissingDataError without images."""
    folder = celeba.image_folder(root)
    lists = ", ".join(path.name for path in celeba.lists(root))
    inventory = _inventory(root, f"{folder.relative_to(root).as_posix()}/*, {lists}")
    inventory.image_folders = [inventory.relative(folder)]
    inventory.used.update(inventory.relative(path) for path in celeba.lists(root))
    try:
        split_of = celeba.partition(root)
    except UserError as error:
        inventory.said(error)
        _add(inventory, folder, image_files(folder))
        return inventory
    _add(inventory, folder, split_of)
    splits = list(split_of.values())
    inventory.counts = [Count(_TITLES[name], splits.count(name), many) for name, many in celeba.PICTURES.items()]
    return inventory


def look_at_deepfashion(root: Path) -> Inventory:
    """DeepFashion: the pictures that its annotation names. The fine one has a share of them only: the others are no
    fault. MissingDataError without images or annotation."""
    folder, annotation = deepfashion.image_folder(root), deepfashion.annotated(root)
    place = annotation.folder.relative_to(root).as_posix()
    inventory = _inventory(
        root, f"{(folder / 'img').relative_to(root).as_posix()}/, the {annotation.kind} annotation {place}/"
    )
    inventory.used.update(inventory.relative(path) for path in annotation.files())
    if annotation.kind == "coarse":
        inventory.image_folders = [inventory.relative(folder / "img")]
    listed: dict[str, list[str]] = {}
    official = deepfashion.PICTURES[annotation.kind]
    for split, many in official.items():
        try:
            names = annotation.read(split)[0]
        except UserError as error:
            inventory.said(error)
            continue
        listed[split] = names
        inventory.counts.append(Count(_TITLES[split], len(names), many))
    for name, one, other in listed_twice(listed):
        inventory.found("broken", folder / name, f"listed twice, for {one} and {other}")
    items = dict.fromkeys(name for names in listed.values() for name in names)
    if len(inventory.counts) < len(official):
        # Which pictures the broken list has is not known: all are looked at.
        for item in folders(folder / "img"):
            items.update({f"img/{item}/{file}": None for file in image_files(folder / "img" / item)})
    _add(inventory, folder, items)
    return inventory
