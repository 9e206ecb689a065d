"""One split of a data set, or of one domain of pictures, from its source to the HDF5 file."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headstrong.data.acquire import locate
from headstrong.errors import ConfigError

if TYPE_CHECKING:
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
SEVERAL_DOMAINS = ("objects", "office31", "folder")  # the others have one, called as the source
BAD_IMAGES = ("fail", "skip")
_PICTURES, _LISTINGS = "headstrong.data.pictures", "headstrong.data.listings"


class _Pictures(NamedTuple):
    samples: Iterator[Picture | Skipped]
    pictures: int
    classes: dict[str, list[str]]


class _Source(NamedTuple):
    samples: Iterator[tuple[str, dict[str, Any]]]
    frames: int
    classes: list[str]


def code_modules(source: str) -> tuple[str, ...]:
    """The modules whose code decides the bytes of a cache of this source."""
    return ("headstrong.data.build", SOURCES[source])


def build_split(settings: dict[str, Any], output: Path, *, code: str, processes: int = 1) -> None:
    """Write the cache file of one split.

    `settings`: source, split ("train" or "test"), size [H, W], count (None: all), and the source's own keys
    (`study.Plan.data_settings` makes them). The bytes do not depend on `processes`.
    """
    from headstrong.data.cache import write_split  # late: the Snakefile imports this module for its code_modules

    source = _open(settings, processes)
    write_split(
        output,
        source.samples,
        count=source.frames,
        size=tuple(settings["size"]),
        dataset=settings["source"],
        split=settings["split"],
        classes=source.classes,
        settings=settings,
        code=code,
    )


def _open(settings: dict[str, Any], processes: int) -> _Source:
    module = importlib.import_module(SOURCES[settings["source"]])
    split, size, count = settings["split"], tuple(settings["size"]), settings["count"]
    if settings["source"] == "rooms":
        samples = module.samples(settings["seed"], split, count, size, settings["antialias"], processes)
        return _Source(samples, count, module.CLASSES)
    root = locate(settings["source"])
    available = module.count(root, split)
    if count is not None and count > available:
        raise ConfigError(f"data.{split}: {count} images asked for; {settings['source']} in {root} has {available}")
    samples = module.samples(root, split, size, settings["classes"], count, processes)
    return _Source(samples, count or available, module.class_names(settings["classes"]))


def picture_modules(source: str) -> tuple[str, ...]:
    """The modules whose code decides the bytes of a file of pictures of this source; ConfigError for an unknown one."""
    if source not in PICTURE_SOURCES:
        raise ConfigError(f"source '{source}' is unknown; choose from {', '.join(PICTURE_SOURCES)}")
    return ("headstrong.data.build", _PICTURES, PICTURE_SOURCES[source])


def build_pictures(settings: dict[str, Any], output: Path, *, code: str, processes: int = 1) -> list[Skipped]:
    """Write the file of pictures of one domain and split; returns the pictures that were skipped.

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
        dataset=settings.get("folder") or settings["source"],
        domain=settings["domain"],
        split=settings["split"],
        classes=source.classes,
        settings=settings,
        code=code,
        shrinks=bad == "skip",
    )
    return skipped


def _open_pictures(settings: dict[str, Any], processes: int, skip: bool) -> _Pictures:
    source, domain, split = settings["source"], settings["domain"], settings["split"]
    module = importlib.import_module(picture_modules(source)[-1])
    size, count = tuple(settings["size"]), settings["count"]
    if source == "objects":
        if count is None:
            raise ConfigError("objects makes any number of pictures: count must be a number, not null")
        samples = module.samples(settings["seed"], domain, split, count, size, processes)
        return _Pictures(samples, count, module.ATTRIBUTES)
    domains = tuple(settings.get("domains") or [domain])
    if source not in SEVERAL_DOMAINS and {domain, *domains} != {source}:
        raise ConfigError(f"{source} has one domain, called as it is: domain must be '{source}', not '{domain}'")
    root = locate(source, settings.get("folder"))
    if source == "office31" and count is None:
        # All of it is asked for: part of it would be another data set under the same name.
        log.info(module.check_office31(root, domains))
    shares = {name: settings.get(name) for name in ("test_share", "validation_share")}
    part = importlib.import_module(_LISTINGS).Part(domain, split, settings["seed"], domains, **shares)
    listing = module.listing(root, part)
    log.info(listing.note)
    pictures = count if count is not None else len(listing)
    return _Pictures(listing.samples(size, count, processes, skip), pictures, listing.classes)
