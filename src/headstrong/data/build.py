"""One split of a data set, from its source to the HDF5 cache."""

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
