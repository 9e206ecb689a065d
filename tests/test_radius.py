"""Radii: one scale, one parser, one printer."""

from __future__ import annotations

import re

import pytest
import yaml

from headstrong import radius
from headstrong.configfiles import as_yaml, load, parse, study_files
from headstrong.provenance import ROOT


@pytest.mark.parametrize("shades", [1, 2, 4, 5, 8, 10, 16, 32, 128, 255])
def test_what_is_written_is_what_python_computes_and_is_printed_again(shades):
    found = radius.parse(f"{shades}/255")
    assert float(found) == shades / 255
    assert float(radius.parse(str(found))) == float(found)
    assert radius.in_name(found) == str(shades)
    assert radius.text(round(shades / 255, 8)) == radius.text(found)  # as a table may have it


@pytest.mark.parametrize(
    ("given", "printed"),
    [("8/255", "8/255"), (8 / 255, "8/255"), (" 8 / 255 ", "8/255"), (0.5, "0.5"), ("0.5", "0.5"), (1, "1"),
     ("500/255", "500/255"), ("0.5/255", "0.5/255"), (0.03, "0.03"), (0, "0"), ("1e-3", "0.001"), (2.0, "2")],
)  # fmt: skip
def test_radii_are_printed_as_they_are_written(given, printed):
    assert str(radius.parse(given)) == radius.text(radius.parse(given)) == printed
    assert f"{radius.parse(given)}" == printed


def test_a_radius_in_l2_is_a_number():
    assert radius.text(500 / 255, "l2") == "1.96078"
    assert radius.text(8 / 255, "l2") == "0.0313725"


@pytest.mark.parametrize("given", ["8/0", "eight", "", "-8/255", -1, True, None, float("nan"), ".inf", 10**400, [8]])
def test_what_is_no_radius_is_said(given):
    with pytest.raises(ValueError, match=r'is not a radius; expected "8/255" or a number in \[0, 1\]'):
        radius.parse(given)


def test_a_whole_configuration_has_radii_as_people_write_them_and_reads_back():
    config = load(study_files(["mta"]))
    text = as_yaml(config)
    assert "- 10/255\n" in text
    assert not re.search(r"0\.0\d{6}", text)
    assert parse(yaml.safe_load(text)) == config


def test_no_file_of_a_study_has_a_radius_in_decimals():
    for path in (ROOT / "config.yaml", *(ROOT / "studies").glob("*.yaml")):
        assert not re.search(r"\d\.\d{6}", path.read_text()), path
