"""The look of every figure, and saving them so that equal tables give equal bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from headstrong.errors import ConfigError
from headstrong.provenance import atomic_path

STYLE = Path(__file__).with_name("headstrong.mplstyle")
DEFAULTS: Mapping[str, Any] = {"formats": ("png", "svg"), "dpi": 150, "width": 7.0}
FORMATS = ("png", "svg", "pdf")

SINGLE_COLOUR, MULTI_COLOUR, NOISE_COLOUR, LINE_COLOUR = "#56B4E9", "#F3B95F", "#BFBFBF", "#B22222"


@dataclass(frozen=True)
class Look:
    """How one task is drawn: the marker tells tasks apart without colour."""

    colour: str
    marker: str


TASK_LOOKS: Mapping[str, Look] = {
    "s": Look("#D55E00", "o"),
    "d": Look("#56B4E9", "s"),
    "D": Look("#0072B2", "D"),
    "n": Look("#009E73", "^"),
    "k": Look("#E69F00", "P"),
    "K": Look("#F0E442", "X"),
    "e": Look("#CC79A7", "<"),
    "E": Look("#000000", "v"),
    "p": Look("#8C8C8C", ">"),
    "r": Look("#7A4B00", "h"),
    "A": Look("#FFFFFF", "*"),
}


def complete(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings (formats, dpi, width in inches) with the defaults for what is not given.

    Raises ConfigError for a key or a format there is none of.
    """
    given = dict(settings or {})
    for key in given:
        if key not in DEFAULTS:
            raise ConfigError(f"figures.{key}: unknown key; allowed: {', '.join(DEFAULTS)}")
    for name in given.get("formats", ()):
        if name not in FORMATS:
            raise ConfigError(f"figures.formats: {name!r} is not known; allowed: {', '.join(FORMATS)}")
    return {**DEFAULTS, **given}


@contextlib.contextmanager
def context(settings: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """The style and nothing of the user's own matplotlib settings; gives `complete` settings, and raises as it does."""
    whole = complete(settings)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc_file(STYLE)
        mpl.rcParams["figure.dpi"] = whole["dpi"]
        yield whole


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that needs no window and no global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(
    figure: Figure, stem: Path, formats: Sequence[str] = ("png", "svg"), settings: Mapping[str, Any] | None = None
) -> list[Path]:
    """Save as `<stem>.<format>`, each whole or not at all, without dates: the same figure gives the same bytes.

    formats: of FORMATS, KeyError for another. settings: dpi counts. Raises ConfigError as `complete`.
    """
    metadata = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    written = []
    with context(settings) as whole:
        for name in formats:
            path = stem.with_name(f"{stem.name}.{name}")
            with atomic_path(path) as part:
                figure.savefig(part, format=name, dpi=whole["dpi"], metadata=metadata[name])
            written.append(path)
    return written


def look_of(letter: str) -> Look:
    """How a task is drawn: as its letter, in grey, where it has no look, as figures are drawn at the end of a study."""
    return TASK_LOOKS.get(letter, Look("#A6A6A6", f"${letter}$"))


def marker(letter: str) -> dict[str, Any]:
    """Keyword arguments that draw a point of this task: filled, with a dark edge so that pale colours show."""
    look = look_of(letter)
    return {"marker": look.marker, "color": look.colour, "markeredgecolor": "#333333", "markeredgewidth": 0.6}
