"""Radii of perturbations: one scale, one parser, one printer.

Images live in [0, 1]. A radius is written as people write it, "8/255", or as a number: at most 1 in the maximum norm,
any Euclidean length of the whole perturbation (channels, rows and columns) in L2. Sizes of steps are written alike.
Tables hold the number; everything that people read holds `text` of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

KEYS = ("epsilon", "step_size")  # what the configuration calls radii and what is written alike
SHADES = 255  # steps of a picture of 8 bits: 8/255 is eight of them
PATTERN = r"^\s*[0-9.]+([eE][+-]?[0-9]+)?\s*(/\s*[0-9.]+\s*)?$"
_ROUNDING = 1e-4  # of a shade: tables may have rounded


class Radius(float):
    """A radius as the configuration has it: a float in pixel units that is printed as `text` prints it.

    "8/255" is the float that 8/255 is in Python; adding it to a model of pydantic's is enough to have it parsed.
    """

    def __str__(self) -> str:
        short = text(self)
        return short if float(parse(short)) == float(self) else float.__repr__(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # figures and tables print radii without it

        return core_schema.no_info_plain_validator_function(parse)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": PATTERN}]}


def parse(given: object) -> Radius:
    """The radius that a number, or text such as "8/255" or "0.5", means, in pixel units.

    Raises ValueError, which says what was found and what is expected, unless it is a finite number >= 0.
    """
    number = _number(given)
    if number is None or not 0 <= number < math.inf:
        raise ValueError(f'{_shown(given)} is not a radius; expected "8/255" or a number in [0, 1]')
    return Radius(number)


def text(radius: float, norm: str = "linf") -> str:
    """The radius as people write it: 8/255, 0.5/255, or a short decimal such as 0.5; in L2 a number of six digits.

    radius: >= 0, in pixel units. A whole number of 255ths is found again when a table has rounded it.
    """
    shades = SHADES * float(radius)
    decimal = f"{float(radius):.6g}"
    if norm == "l2" or len(decimal) <= len("0.25"):
        return decimal
    of_255 = f"{round(shades, 2):g}"
    return f"{of_255}/{SHADES}" if abs(shades - float(of_255)) < _ROUNDING else decimal


def in_name(radius: float) -> str:
    """The radius in ids and names of files, which hold no slash: how many 255ths it is, so "8" for 8/255."""
    return f"{SHADES * float(radius):g}"


def too_large(key: str, radii: float | Sequence[float], norms: Sequence[str], size: Sequence[int] = ()) -> str:
    """What is wrong with radii that were meant in 255ths, and the line to write instead; "" where nothing is.

    key, radii: what the configuration calls them, and one of them or a list. A radius in the maximum norm is at most 1.
    In L2, with the size (H, W) of the images, one that lets any image become grey is refused.
    """
    listed = [radii] if isinstance(radii, int | float) else list(radii)
    grey = math.sqrt(3 * size[0] * size[1]) / 2 if len(size) > 0 else math.inf
    if "linf" in norms and max(listed) > 1:
        why = 'a radius or step in linf is "8/255" or a number in [0, 1]'
    elif "l2" in norms and max(listed) > grey:
        why = f"in L2 {grey:.3g} turns any image of {size[0]}x{size[1]} grey, pixels are in [0, 1]"
    else:
        return ""
    found = ", ".join(text(one) for one in listed)
    meant = ", ".join(f'"{one:g}/{SHADES}"' if one >= 1 else f'"{text(one)}"' for one in listed)
    return f"{key} {found}: {why}; write {key}: {meant if isinstance(radii, int | float) else f'[{meant}]'}"


def _number(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        if not isinstance(given, str):
            return float(given)
        numerator, _, denominator = given.partition("/")
        return float(numerator) / float(denominator or 1) if re.match(PATTERN, given) else None
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def _shown(given: object) -> str:
    found = repr(given)
    return found if len(found) <= 60 else f"{found[:57]}..."
