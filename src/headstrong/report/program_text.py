"""Programs, styles and data that the page carries inside itself, as text that cannot break out of its element."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstrong.errors import BrokenFileError

HERE = Path(__file__).parent
# In the order they need one another. Plot draws with D3; vendor/README.md has their licences and digests.
LIBRARIES = ("vendor/d3-7.9.2.min.js", "vendor/plot-0.6.17.umd.min.js")
PROGRAMS = ("explorer.js", "table.js", "plots.js", "model.js")
STYLES = ("page.css", "explorer.css")


def programs() -> Markup:
    """The page's own programs, one after the other."""
    return Markup("\n".join(_text(name) for name in PROGRAMS))


def libraries() -> list[Markup]:
    """The drawing libraries, each as published."""
    return [Markup(_text(name)) for name in LIBRARIES]


def styles() -> Markup:
    """The page's style sheets, one after the other."""
    return Markup("\n".join(_text(name) for name in STYLES))


def as_json(data: Any) -> Markup:
    """Data as JSON for a script element: nothing in it can end the element, since no < is left."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _text(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    if "</script" in text or "</style" in text:
        raise BrokenFileError(f"{HERE / name}: would end the element that holds it")
    return text
