"""One split of a data set, or of one domain of pictures, from its source to the HDF5 file."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headstrong.data import manifest
from headstrong.data.acquire import locate
from headstrong.data.manifest import Inputs
from headstrong.errors import ConfigError
from headstrong.provenance import settings_json

if TYPE_CHECKING:
    from headstrong.data.listings import Listing
    from headstrong.data.pictures import Picture, Skipped

log = logging.getLogger(__name__)

# Looked up by name, so that the code digest of one source does not hang on the others.
SOURCES = {
    "rooms": "headstrong.data.rooms",
    "nyuv2": "headstrong.data.nyuv2",
    "taskonomy": "headstrong.data.taskonomy",
}
PICTURE_SOURCES = {
    "objects": "headstrong.data.objects",
    "office31": "headstrong.data.domains",
    "folder": "headstrong.data.domains",
    "cifar10": "headstrong.data.cifar10",
    "gtsrb": "headstrong.data.gtsrb",
    "awa2": "headstrong.data.awa2",
    "celeba": "headstrong.data.celeba",
    "deepfashion": "headstrong.data.deepfashion",
}
EMBEDDED = ("rooms", "objects")  # made here, of no files
SEVERAL_DOMAINS = ("objects", "office31", "folder")  # the others have one, called as the source
BAD_IMAGES = ("fail", "skip")
_PICTURES, _LISTINGS = "headstrong.data.pictures", "headstrong.data.listings"


class _Pictures(NamedTuple):
    samples: Callable[[int], Iterator[Picture | Skipped]]  # from a row on
    pictures: int
    classes: dict[str, list[str]]
    inputs: Inputs | None
    variant: str = ""  # which of several publications of the data set


class _Source(NamedTuple):
    samples: Callable[[int], Iterator[tuple[str, dict[str, Any]]]]  # from a row on
    frames: int
    classes: list[str]
    inputs: Inputs | None


def code_modules(source: str) -> tuple[str, ...]:
    """The modules whose code decides the bytes of a cache of this source."""
    return ("headstrong.data.build", SOURCES[source])


def build_split(settings: dict[str, Any], output: Path, *, code: str, processes: int = 1) -> None:
    """Write the cache file of one split.

    `settings`: source, split ("train" or "test"), size [H, W], count (None: all), and the source's own keys
    (`study.Plan.data_settings` makes them), such as the seed from which a subset is drawn. The bytes do not depend on
    `processes`.
    """
    from headstrong.data.cache import write_split  # late: the Snakefile imports this module for its code_modules

    source = _open(settings, processes)
    absent = write_split(
        output,
        source.samples,
        count=source.frames,
        size=tuple(settings["size"]),
        dataset=settings["source"],
        split=settings["split"],
        classes=source.classes,
        settings=settings,
        code=code,
        inputs=source.inputs.digest if source.inputs else None,
    )
    counts = {"rows": source.frames, "absent": absent}
    manifest.write(output, {"settings": settings, "code": code, "counts": counts}, source.inputs, source.frames)


def _open(settings: dict[str, Any], processes: int) -> _Source:
    module = importlib.import_module(SOURCES[settings["source"]])
    split, size, count = settings["split"], tuple(settings["size"]), settings["count"]
    if settings["source"] == "rooms":
        own = settings["seed"], split, count, size, settings["antialias"], processes
        return _Source(lambda first: module.samples(*own, first), count, module.CLASSES, None)
    root = locate(settings["source"])
    names = module.class_names(settings["classes"])
    seed = settings.get("seed", 0)  # of a subset; the whole needs none
    if settings["source"] == "taskonomy":
        views = module.frames(root, split, settings, count, seed)
        _check_possible(count, len(views), settings, root)
        inputs = Inputs(root, lambda rows: module.inputs(root, views[rows.start : rows.stop]))
        return _Source(lambda first: module.read(root, views[first:], size, processes), len(views), names, inputs)
    frames = module.frames(root, split, count, seed)
    _check_possible(count, len(frames), settings, root)
    inputs = Inputs(root, lambda rows: (), tuple(_below(root)))
    how = size, settings["classes"], processes
    return _Source(lambda first: module.read(root, frames[first:], *how), len(frames), names, inputs)


def _check_possible(count: int | None, available: int, settings: dict[str, Any], root: Path) -> None:
    """ConfigError where more frames are asked for than there are."""
    if count is not None and count > available:
        split, source = settings["split"], settings["source"]
        raise ConfigError(f"data.{split}: {count} images asked for; {source} in {root} has {available}")


def _below(root: Path, without: tuple[str, ...] = ()) -> Iterator[Path]:
    """Every file below a folder, sorted, but hidden ones and those whose names end so."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and not name.lower().endswith(without):
                yield Path(folder, name)


def picture_modules(source: str) -> tuple[str, ...]:
    """The modules whose code decides the bytes of a file of pictures of this source; ConfigError for an unknown one."""
    if source not in PICTURE_SOURCES:
        raise ConfigError(f"source '{source}' is unknown; choose from {', '.join(PICTURE_SOURCES)}")
    return ("headstrong.data.build", _PICTURES, PICTURE_SOURCES[source])


def build_pictures(settings: dict[str, Any], output: Path, *, code: str, processes: int = 1) -> list[Skipped]:
    """Write the file of pictures of one domain and split; returns the pictures that were skipped.

    The manifest beside it says which publication of the data set was read, `variant`, where there are several.

    `settings`: source, domain, split ("train", "validation" or "test"), size [H, W], count (None: all, not for
    objects), seed; for all but objects also domains (all of the study: their classes must be the same), for office31,
    folder and awa2 test_share, for folder the name of it. validation_share, where there are no official validation
    pictures: share of the training pictures that are held out for validation; absent or None: none. on_bad_image:
    "fail" (also where absent) or "skip", which leaves out what cannot be read. The bytes do not depend on `processes`.
    Raises what the source raises, and ConfigError for settings that do not go together.
    """
    bad = settings.get("on_bad_image", "fail")
    if bad not in BAD_IMAGES:
        raise ConfigError(f"on_bad_image '{bad}' is unknown; choose {' or '.join(BAD_IMAGES)}")
    source = _open_pictures(settings, processes, skip=bad == "skip")
    # By name, like the sources: an edit of this format does not touch the code digest of `build_split`.
    skipped: list[Skipped] = importlib.import_module(_PICTURES).write_pictures(
        output,
        source.samples,
        count=source.pictures,
        size=tuple(settings["size"]),
        dataset=_name(settings),
        domain=settings["domain"],
        split=settings["split"],
        classes=source.classes,
        settings=settings,
        code=code,
        shrinks=bad == "skip",
        inputs=source.inputs.digest if source.inputs else None,
    )
    facts = {"settings": settings, "code": code, "counts": {"rows": source.pictures - len(skipped)}, "skipped": skipped}
    facts |= {"variant": source.variant} if source.variant else {}
    manifest.write(output, facts, source.inputs, source.pictures)
    return skipped


def check_there(settings: dict[str, Any], labels: Sequence[str] = ()) -> None:
    """MissingDataError or BrokenFileError unless the folders, domains and lists that a cache is made of are there.

    settings: of `build_split` or `build_pictures`. labels: those that the study uses; none: any. Only names are looked
    at, so that this can be asked before the first job of a study; what is in the files, the job itself finds out.
    """
    source = settings["source"]
    if source in EMBEDDED:
        return
    root = locate(source, settings.get("folder"))
    module = importlib.import_module({**SOURCES, **PICTURE_SOURCES}[source])
    if hasattr(module, "check_there"):
        module.check_there(root, tuple(settings.get("domains") or ()), tuple(labels))


def _name(settings: dict[str, Any]) -> str:
    """What the data set is called in results: a folder by its name, which is never that of a published data set."""
    folder = settings.get("folder")
    if folder in PICTURE_SOURCES:
        return f"{folder} (own folder)"
    return folder or str(settings["source"])


def _open_pictures(settings: dict[str, Any], processes: int, skip: bool) -> _Pictures:
    source, domain, split = settings["source"], settings["domain"], settings["split"]
    module = importlib.import_module(picture_modules(source)[-1])
    size, count = tuple(settings["size"]), settings["count"]
    if source == "objects":
        if count is None:
            raise ConfigError("objects makes any number of pictures: count must be a number, not null")
        own = settings["seed"], domain, split, count, size, processes
        return _Pictures(lambda first: module.samples(*own, first), count, module.ATTRIBUTES, None)
    domains = tuple(settings.get("domains") or [domain])
    if source not in SEVERAL_DOMAINS and {domain, *domains} != {source}:
        raise ConfigError(f"{source} has one domain, called as it is: domain must be '{source}', not '{domain}'")
    root = locate(source, settings.get("folder"))
    if source == "office31":
        # Where all of it is asked for, part of it would be another data set under the same name.
        log.info(module.check_office31(root, domains, whole=count is None))
    shares = {name: settings.get(name) for name in ("test_share", "validation_share")}
    part = importlib.import_module(_LISTINGS).Part(
        domain, split, settings["seed"], domains, **shares, official=source != "folder"
    )
    listing = module.listing(root, part)
    log.info(listing.note)
    pictures = count if count is not None else len(listing)

    def samples(first: int) -> Iterator[Picture | Skipped]:
        found: Iterator[Picture | Skipped] = listing.samples(size, count, processes, skip, first)
        return found

    return _Pictures(samples, pictures, listing.classes, _inputs(root, listing), listing.variant)


def _inputs(root: Path, listing: Listing) -> Inputs:
    """The files of a listing: its pictures, and whatever else may say what they are."""
    if listing.pixels is not None:
        return Inputs(root, lambda rows: (), tuple(_below(root)))

    def known(rows: range) -> str:
        labels = {label: numbers[rows.start : rows.stop].tolist() for label, numbers in listing.labels.items()}
        return settings_json([listing.names[rows.start : rows.stop], labels])

    def pictures(rows: range) -> Iterator[Path]:
        # One that is listed and not there is skipped, or stops the build when its turn comes.
        paths = (listing.folder / name for name in listing.names[rows.start : rows.stop])
        return (path for path in paths if path.is_file())

    # By name, like the sources: dense data do not hang on it.
    images = importlib.import_module("headstrong.data.image_checks").SUFFIXES
    return Inputs(root, pictures, tuple(_below(root, images)), known)
