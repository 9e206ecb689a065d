"""plan.csv is read as it was written, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstrong.analysis import plan
from headstrong.errors import BrokenFileError

PLANNED = (
    "id,section,encoder,main,auxiliary,weights,epochs,seed,layout,adversarial,switches\n"
    "single-resnet18-s,single,resnet18,s,,1,9,7,,,\n"
    "pairs-resnet18-sd,pairs,resnet18,s,d,1;1,9,8,0,,\n"
)


def test_a_plan_without_models_is_a_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(PLANNED.splitlines()[0] + "\n")
    assert plan.read_plan(tmp_path / "plan.csv").empty


def test_a_plan_is_read_as_text_but_for_its_epochs(tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(PLANNED)
    frame = plan.read_plan(tmp_path / "plan.csv")
    assert frame["epochs"].tolist() == [9, 9]
    assert frame.iloc[1].drop("epochs").tolist() == [
        "pairs-resnet18-sd",
        "pairs",
        "resnet18",
        *"sd",
        "1;1",
        "8",
        "0",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No columns to parse"),
        (b"\n\n", "No columns to parse"),
        (PLANNED.replace(",9,", ",nine,").encode(), "epochs"),
        (PLANNED.replace(",9,", ",9.5,").encode(), "epochs"),
        (PLANNED[:-12].encode(), "epochs of 'pairs-resnet18-sd' is ''"),
        (PLANNED[:-7].encode(), "seed of 'pairs-resnet18-sd' is ''"),
        (PLANNED.replace(",7,,,", ",7,,,,,").encode(), "more fields"),
        (PLANNED.replace("\n", ",\n").replace("switches,", "switches").encode(), "more fields"),
        (PLANNED.encode() + b'"half', "EOF"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "columns|codec"),
        (b"\xff\xfe" + PLANNED.encode("utf-16-le"), "codec"),
        (PLANNED.replace(",s,d,", ",s,?,").encode(), "auxiliary of"),
        (PLANNED.replace(",s,,", ",,,").encode(), "main of"),
    ],
)
def test_a_plan_that_is_empty_or_damaged_is_named_with_what_to_do(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "plan.csv"
    path.write_bytes(content)
    with pytest.raises(BrokenFileError, match=reason) as caught:
        plan.read_plan(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "write the plan again" in str(caught.value)
    assert "\n" not in str(caught.value)
