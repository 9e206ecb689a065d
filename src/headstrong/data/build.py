"""One split of a data set, or of one domain of pictures, from its source to the HDF5 file."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headstrong.data.acquire import locate
from headstrong.errors import ConfigError

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
}
_PICTURES = "headstrong.data.pictures"


class _Pictures(NamedTuple):
    samples: Iterator[tuple[str, Any, dict[str, int]]]
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


def build_pictures(settings: dict[str, Any], output: Path, *, code: str, processes: int = 1) -> None:
    """Write the file of pictures of one domain and split.

    `settings`: source, domain, split ("train" or "test"), size [H, W], count (None: all, not for objects), seed; for
    office31 and folder also domains (all of the study: their classes must be the same) and test_share, for folder the
    name of it. The bytes do not depend on `processes`. Raises what the source raises, and ConfigError for settings
    that do not go together.
    """
    source = _open_pictures(settings, processes)
    # By name, like the sources: an edit of this format does not touch the code digest of `build_split`.
    importlib.import_module(_PICTURES).write_pictures(
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
    )


def _open_pictures(settings: dict[str, Any], processes: int) -> _Pictures:
    module = importlib.import_module(picture_modules(settings["source"])[-1])
    domain, split, size = settings["domain"], settings["split"], tuple(settings["size"])
    seed, count = settings["seed"], settings["count"]
    if settings["source"] == "objects":
        if count is None:
            raise ConfigError("objects makes any number of pictures: count must be a number, not null")
        samples = module.samples(seed, domain, split, count, size, processes)
        return _Pictures(samples, count, module.ATTRIBUTES)
    root = locate(settings["source"], settings.get("folder"))
    domains, test_share = settings["domains"], settings["test_share"]
    samples = module.samples(root, domain, split, size, count, seed, test_share, domains, processes)
    found = count if count is not None else module.count(root, domain, split, seed, test_share)
    return _Pictures(samples, found, {module.LABEL: module.class_names(root, domains)})
