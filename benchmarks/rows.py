"""A row of the benchmarks: what was measured, ours beside a peer's, and whether the target is met."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from headstrong.errors import BrokenFileError
from headstrong.provenance import write_atomically

TARGET = re.compile(r"(ours|ratio) (>=|<=|<) (\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Row:
    """One measurement.

    ours, peer: medians over the rounds, in `unit`; peer is None where there is nothing to measure against, and then
    peer_name says why, or "-". ratio: how many times better ours is, median of the ratios of the rounds; of growth, the
    larger over the smaller. spread: lower and upper quartile of these ratios. target: "ratio >= 1.25", "ours < 10", or
    "stated" where the number only has to be told. met: whether it is; None where it is only stated.
    """

    name: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    ratio: float | None
    spread: tuple[float, float] | None
    target: str
    met: bool | None


def make_row(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float] = (),
    *,
    peer_name: str = "-",
    target: str = "stated",
    more_is_better: bool = False,
) -> Row:
    """The row of measurements of the same rounds, in order. Raises ValueError for a target that cannot be read."""
    ratios = [b / a if not more_is_better else a / b for a, b in zip(ours, peer, strict=True)] if peer else []
    middle = statistics.median(ours)
    ratio = statistics.median(ratios) if ratios else None
    return Row(
        name,
        unit,
        _short(middle),
        _short(statistics.median(peer)) if peer else None,
        peer_name,
        _short(ratio),
        quartiles(ratios) if len(ratios) > 1 else None,
        target,
        is_met(target, middle, ratio),
    )


def absent(name: str, unit: str, reason: str) -> Row:
    """The row of a peer that cannot be measured, with the reason in place of its name."""
    return Row(name, unit, None, None, reason, None, None, "stated", None)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile of two or more numbers."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return _short(low), _short(high)  # type: ignore[return-value]


def is_met(target: str, ours: float, ratio: float | None) -> bool | None:
    """Whether a target is met; None for "stated". Raises ValueError for another text than a row may have."""
    if target == "stated":
        return None
    found = TARGET.fullmatch(target)
    if found is None:
        raise ValueError(f"target {target!r}: expected 'stated', or ours or ratio, >=, <= or <, and a number")
    value, limit = ours if found[1] == "ours" else ratio, float(found[3])
    if value is None or math.isnan(value):
        return False
    return {">=": value >= limit, "<=": value <= limit, "<": value < limit}[found[2]]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as JSON, a list of objects with the fields of `Row`; the file appears only when whole."""
    lines = ",\n".join(" " + json.dumps(asdict(row), ensure_ascii=False) for row in rows)
    write_atomically(path, f"[\n{lines}\n]\n")


def read_rows(path: Path) -> list[Row]:
    """The rows of a file. Raises BrokenFileError where it is not what `write_rows` writes."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**{**row, "spread": row["spread"] and tuple(row["spread"])}) for row in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BrokenFileError(f"{path}: no benchmark rows ({' '.join(str(error).split())}); run `make bench`") from None
    for row in rows:
        check_row(row, path)
    return rows


def check_row(row: Row, path: Path) -> None:
    """Raise BrokenFileError for a row whose fields are not of their types or whose `met` does not follow from them."""
    numbers = [row.ours, row.peer, row.ratio, *(row.spread or ())]
    texts = [row.name, row.unit, row.peer_name, row.target]
    right = all(isinstance(text, str) and text for text in texts)
    right &= all(number is None or isinstance(number, int | float) for number in numbers)
    right &= row.spread is None or (len(row.spread) == 2 and row.spread[0] <= row.spread[1])
    if not right or row.met != (None if row.ours is None else is_met(row.target, row.ours, row.ratio)):
        raise BrokenFileError(f"{path}: row {row.name!r} is not a row of the benchmarks; run `make bench`")


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    titles = ["what", "unit", "ours", "peer", "measured against", "ratio", "quartiles", "target", "met"]
    lines = ["| " + " | ".join(titles) + " |", "|---|---|---:|---:|---|---:|---|---|---|"]
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "**no**"
        spread = "" if row.spread is None else f"{row.spread[0]:g} to {row.spread[1]:g}"
        numbers = ["" if value is None else f"{value:g}" for value in (row.ours, row.peer, row.ratio)]
        cells = [row.name, row.unit, *numbers[:2], row.peer_name, numbers[2], spread, row.target, met]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


FIELDS = tuple(field.name for field in fields(Row))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
