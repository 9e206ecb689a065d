"""The registry of real data sets: whole, true to torchvision where that has the set, and strict."""

from __future__ import annotations

import copy
import inspect
import re

import pytest
import yaml

from headstrong.data.acquire import DATASETS, locate
from headstrong.data.build import PICTURE_SOURCES, SOURCES
from headstrong.data.registry import REGISTRY, load
from headstrong.errors import ConfigError, MissingDataError

EMBEDDED = {"rooms", "objects", "folder"}
ITEM = {"name": "a.zip", "url": "https://x.example/a.zip", "unpack": True, "provides": ["a"]}
TOY = {"title": "Toy", "home": "https://x.example", "licence": "free", "get": "the toy", "steps": None, "files": [ITEM]}


@pytest.fixture(scope="module")
def registry():
    return load()


def test_every_real_data_set_is_in_it(registry):
    assert set(registry.datasets) == set(DATASETS) == {*SOURCES, *PICTURE_SOURCES} - EMBEDDED


def test_what_torchvision_has_is_as_torchvision_has_it(registry):
    from torchvision.datasets import CIFAR10, GTSRB, CelebA

    (cifar10,) = registry["cifar10"].files
    assert (cifar10.url, cifar10.name, cifar10.md5) == (CIFAR10.url, CIFAR10.filename, CIFAR10.tgz_md5)
    assert cifar10.provides == (CIFAR10.base_folder,)
    source = inspect.getsource(GTSRB.download)
    base = re.search(r'base_url = "(\S+)"', source)[1]
    files = dict(re.findall(r'base_url\}(\S+)",.*?md5="(\w+)"', source, flags=re.DOTALL))
    assert {item.url: item.md5 for item in registry["gtsrb"].files} == {base + key: md5 for key, md5 in files.items()}
    published = {name: md5 for _, md5, name in CelebA.file_list}
    assert all(published[item.name] == item.md5 for item in registry["celeba"].files)


def test_a_checksum_names_who_published_it_and_nothing_is_fetched_where_a_person_must_agree(registry):
    for dataset in registry.datasets.values():
        for item in dataset.files:
            assert bool(item.checksum_from) == bool(item.md5 or item.sha256), (dataset.name, item.name)
        assert dataset.automatic == (dataset.steps is None), dataset.name
    asking = {name for name, dataset in registry.datasets.items() if not dataset.automatic}
    assert asking == {"taskonomy", "office31", "celeba", "deepfashion"}


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_data_set_is_one_line_with_its_page_and_terms(name, registry, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTRONG_REAL_DATA", str(tmp_path))
    with pytest.raises(MissingDataError) as caught:
        locate(name)
    line, dataset = str(caught.value), registry[name]
    assert len(line.splitlines()) == 1
    for part in (dataset.home, dataset.licence, dataset.get, str(tmp_path / name)):
        assert part in line
    assert (f"headstrong fetch {name}" in line) == dataset.automatic


def changed(path, value):
    """The toy registry with one key set, or removed where the value is `...`."""
    content = {"datasets": {"toy": copy.deepcopy(TOY)}}
    place = content
    for key in path[:-1]:
        place = place[key] if isinstance(place, list) else place.setdefault(key, {})
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


FILE = ("datasets", "toy", "files", 0)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("datasets",), {}, "datasets: expected data sets"),
        (("strange",), 1, "the file: strange is unknown"),
        (("datasets", "No Name"), TOY, "datasets.No Name: expected a name"),
        (("datasets", "toy", "licence"), ..., "datasets.toy: licence is missing"),
        (("datasets", "toy", "licence"), "two\nlines", "toy.licence is .*expected one line"),
        (("datasets", "toy", "home"), "x.example", "toy.home is 'x.example', expected an address"),
        (("datasets", "toy", "files"), [], "toy.files: expected a list"),
        ((*FILE, "url"), "ftp://x.example/a", r"files\[0\].url is 'ftp://x.example/a', expected an address https"),
        ((*FILE, "url"), None, "toy.steps: expected, because a file has no url"),
        ((*FILE, "url"), ["a"], r"files\[0\].url is \['a'\]"),
        ((*FILE, "md5"), "abc", r"files\[0\].md5 is 'abc', expected 32 hexadecimal"),
        ((*FILE, "sha256"), 12, r"files\[0\].sha256 is 12, expected 64"),
        ((*FILE, "bytes"), "1 GB", r"files\[0\].bytes is '1 GB', expected a whole number"),
        ((*FILE, "bytes"), 0, r"files\[0\].bytes is 0"),
        ((*FILE, "unpack"), "yes please", "unpack is 'yes please', expected true or false"),
        ((*FILE, "provides"), [], "provides: expected what the archive holds"),
        ((*FILE, "provides"), ["../a"], "provides: '../a', expected a path inside"),
        ((*FILE, "instead"), ["/a"], "instead: '/a', expected a path inside"),
        ((*FILE, "instead"), "a", "instead is 'a', expected a list"),
        ((*FILE, "name"), "a/b.zip", "name is 'a/b.zip', expected the name of a file"),
        ((*FILE, "name"), "..", r"name is '\.\.', expected"),
        ((*FILE, "name"), None, "name is null"),
        ((*FILE, "checksum"), "1", "checksum is unknown, expected about_bytes"),
        (("patience", "attempts"), 1.5, "patience.attempts is 1.5, expected a whole number"),
        (("patience", "first_wait"), -1, "patience.first_wait is -1, expected a number, not negative"),
        (("limits", "ratio"), "big", "limits.ratio is 'big'"),
    ],
)
def test_a_mistake_is_one_line_naming_the_key(tmp_path, path, value, words):
    file = tmp_path / "datasets.yaml"
    file.write_text(yaml.safe_dump(changed(path, value)))
    with pytest.raises(ConfigError, match=words) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "\0", b"\xff\xfe\xfa"])
def test_no_yaml_at_all(tmp_path, content):
    file = tmp_path / "datasets.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_the_toy_itself_is_fine(tmp_path):
    file = tmp_path / "datasets.yaml"
    file.write_text(yaml.safe_dump({"datasets": {"toy": TOY}}))
    assert load(file)["toy"].automatic
    with pytest.raises(ConfigError, match="data set 'other' is unknown; choose from toy"):
        load(file)["other"]


def test_the_file_is_part_of_the_package():
    import tomllib

    from headstrong.provenance import ROOT

    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["headstrong"]
    assert f"data/*{REGISTRY.suffix}" in packaged
