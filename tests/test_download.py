"""Downloads from a server that cuts, lies, refuses and changes its mind: a clear line, and never half a file."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import fetching
from headstrong.data.download import download
from headstrong.data.registry import Patience
from headstrong.data.transfer import Expected
from headstrong.errors import DownloadError
from headstrong.provenance import ROOT
from http_server import Reply

FILE = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
MD5 = hashlib.md5(FILE).hexdigest()
TAG, SECOND = '"one"', '"two"'
WHOLE = {"data.bin": FILE}


@pytest.fixture
def get(server, tmp_path, capsys):
    """Fetch data.bin, which the server serves by this script."""

    def run(*replies, patience=None, **item):
        if replies:
            server.script["/data.bin"] = list(replies)
        file = {"name": "data.bin", "url": server.url("/data.bin"), **item}
        patience = {**fetching.QUICK, **(patience or {})}
        registry = fetching.write_registry(tmp_path / "toy.yaml", file, patience=patience)
        return fetching.fetch(capsys, tmp_path / "data", registry)

    return run


def ranges(server):
    return [seen.range for seen in server.seen]


@pytest.mark.parametrize("item", [{}, {"md5": MD5}, {"sha256": hashlib.sha256(FILE).hexdigest(), "bytes": 300_000}])
def test_a_file_arrives_whole_and_is_fetched_once(get, server, tmp_path, item):
    told = get(Reply(FILE), **item)
    assert (told.code, told.files) == (0, WHOLE)
    record = json.loads((tmp_path / "data" / "toy" / ".fetched.json").read_text())["files"]["data.bin"]
    assert record["sha256"] == hashlib.sha256(FILE).hexdigest()
    assert record["url"] == server.url("/data.bin")
    assert get(**item).code == 0
    assert len(server.seen) == 1


def test_goes_on_after_every_cut(get, server):
    cuts = [Reply(FILE, etag=TAG, cut=50_000) for _ in range(5)]
    told = get(*cuts, Reply(FILE, etag=TAG), patience={"attempts": 2})
    assert (told.code, told.files) == (0, WHOLE)
    assert ranges(server)[0] is None
    # A reset may swallow bytes that were under way: what counts is that each try begins where the last one ended.
    starts = [int(re.fullmatch(r"bytes=(\d+)-", one)[1]) for one in ranges(server)[1:] if one]
    assert starts == sorted(starts)
    assert all(seen.if_range == TAG for seen in server.seen if seen.range)


def test_goes_on_by_the_date_where_there_is_no_tag(get, server):
    date = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    half = Reply(FILE[:150_000], claim=300_000, headers=date)
    told = get(half, Reply(FILE, headers=date))
    assert (told.code, told.files) == (0, WHOLE)
    assert (server.seen[1].range, server.seen[1].if_range) == ("bytes=150000-", date["Last-Modified"])


@pytest.mark.parametrize("piece", [999, 1 << 20])
def test_chunks_say_where_they_end(get, server, piece):
    chunked = {"chunked": True, "piece": piece, "etag": TAG}
    told = get(Reply(FILE, **chunked, cut=150_000), Reply(FILE, **chunked))
    assert (told.code, told.files) == (0, WHOLE)
    assert ranges(server) == [None, "bytes=150000-"]


@pytest.mark.parametrize("total", [300_000, None])
def test_a_part_that_is_whole_is_only_checked(get, server, tmp_path, total):
    # As it is left by a kill between the last byte and the renaming.
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    (folder / ".data.bin.part").write_bytes(FILE)
    notes = {"url": server.url("/data.bin"), "etag": TAG, "total": total}
    (folder / ".data.bin.part.json").write_text(json.dumps(notes))
    told = get(Reply(FILE, etag=TAG), md5=MD5)
    assert (told.code, told.files) == (0, WHOLE)
    # Where the length was not known, the server is asked for more, has none (416), and all of it comes again.
    assert ranges(server) == ([] if total else ["bytes=300000-", None])


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"url": 1}'])
def test_a_part_without_notes_is_not_gone_on_from(get, server, tmp_path, notes):
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    (folder / ".data.bin.part").write_bytes(OTHER[:1000])
    (folder / ".data.bin.part.json").write_text(notes)
    told = get(Reply(FILE, etag=TAG))
    assert (told.code, told.files, ranges(server)) == (0, WHOLE, [None])


@pytest.mark.parametrize(
    ("item", "second"),
    [
        ({}, None),  # neither tag nor date nor checksum: nothing would tell a changed file
        ({"md5": MD5}, "bytes=150000-"),
    ],
)
def test_without_tag_and_date_only_a_checksum_lets_it_go_on(get, server, item, second):
    told = get(Reply(FILE[:150_000], claim=300_000), Reply(FILE), **item)
    assert (told.code, told.files, server.seen[1].range) == (0, WHOLE, second)


def test_a_weak_tag_says_nothing_of_bytes(get, server):
    weak = 'W/"one"'
    told = get(Reply(FILE[:150_000], claim=300_000, etag=weak), Reply(FILE, etag=weak))
    assert (told.code, told.files, server.seen[1].range) == (0, WHOLE, None)


def test_starts_again_where_the_server_knows_no_ranges(get, server):
    told = get(Reply(FILE[:200_000], claim=300_000, etag=TAG), Reply(FILE, etag=TAG, ranges=False))
    assert (told.code, told.files, server.seen[1].range) == (0, WHOLE, "bytes=200000-")


@pytest.mark.parametrize("heeds", [True, False])
def test_starts_again_where_the_file_changed_between_two_ranges(get, server, heeds):
    changed = Reply(FILE, etag=SECOND, heeds_if_range=heeds)
    told = get(Reply(OTHER[:200_000], claim=300_000, etag=TAG), changed)
    assert (told.code, told.files) == (0, WHOLE)


def test_starts_again_where_the_file_became_shorter(get):
    shorter = FILE[:100_000]
    told = get(Reply(OTHER[:200_000], claim=300_000, etag=TAG), Reply(shorter, etag=TAG, heeds_if_range=False))
    assert (told.code, told.files) == (0, {"data.bin": shorter})


def test_gives_up_where_the_length_is_a_lie(get, server):
    told = get(Reply(FILE[:1000], claim=2000, ranges=False, etag=TAG))
    assert told.code == 6
    assert re.search(r"data.bin: http\S+: .*(cut after 1000 of 2000|1000 bytes read).*run it again later", told.line)
    assert "data.bin" not in told.files
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("reply", "item", "words"),
    [
        (Reply(OTHER), {"md5": MD5}, f"MD5 {hashlib.md5(OTHER).hexdigest()}, expected {MD5}"),
        (Reply(OTHER[:-1]), {"bytes": 300_000}, "299999 bytes, expected 300000"),
        (Reply(FILE, claim=200_000), {"md5": MD5}, "expected " + MD5),
        (Reply(FILE + b"more", silent=True), {"bytes": 300_000}, "more than 300000 bytes"),
    ],
)
def test_wrong_bytes_are_tried_once_more_and_never_kept(get, server, reply, item, words):
    told = get(reply, **item)
    assert (told.code, told.files) == (4, {})
    assert words in told.line
    assert "twice" in told.line
    assert ranges(server) == [None, None]


def test_wrong_bytes_once_do_no_harm(get):
    told = get(Reply(OTHER), Reply(FILE), md5=MD5)
    assert (told.code, told.files) == (0, WHOLE)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451, 501])
def test_a_refusal_ends_at_once_and_says_what_a_person_can_do(get, server, status):
    told = get(Reply(status=status))
    assert (told.code, told.files, len(server.seen)) == (3, {}, 1)
    assert f"answers {status}" in told.line
    assert "https://toy.example/page by hand" in told.line


def test_a_packed_copy_is_not_the_file(get):
    told = get(Reply(FILE, headers={"Content-Encoding": "gzip"}))
    assert (told.code, told.files) == (3, {})
    assert "packed by gzip" in told.line


def test_a_web_page_is_not_the_file(get):
    told = get(Reply(b"<html>please log in</html>", headers={"Content-Type": "text/html; charset=utf-8"}))
    assert (told.code, told.files) == (3, {})
    assert "a web page, not with the file" in told.line


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_waited_for(get, server, status):
    told = get(Reply(status=status), Reply(status=status), Reply(FILE))
    assert (told.code, told.files, len(server.seen)) == (0, WHOLE, 3)


@pytest.mark.parametrize("status", [429, 503])
def test_what_does_not_pass_ends_in_a_line(get, server, status):
    told = get(Reply(status=status))
    assert (told.code, told.files, len(server.seen)) == (6, {}, 3)
    assert f"answers {status}" in told.line


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_kept_to_in_place_of_our_own_pauses(get, server, date):
    now = format_datetime(datetime.now(UTC) - timedelta(seconds=1), usegmt=True) if date else "0"
    reply = Reply(status=429, headers={"Retry-After": now})
    told = get(reply, Reply(FILE), patience={"first_wait": 1e6, "longest_wait": 1e6})
    assert (told.code, told.files) == (0, WHOLE)


def test_retry_after_too_long_is_not_waited_for(get, server):
    told = get(Reply(status=503, headers={"Retry-After": "3600"}))
    assert (told.code, told.files, len(server.seen)) == (6, {}, 1)
    assert "asks to wait 3600 s, longer than 5 s" in told.line


def test_redirects_are_followed(get, server):
    server.script["/there"] = [Reply(FILE)]
    told = get(Reply(status=302, headers={"Location": "/there"}))
    assert (told.code, told.files) == (0, WHOLE)


@pytest.mark.parametrize(
    ("location", "words"),
    [("/data.bin", "more than 5 times"), ("ftp://x.example/a", "no web address"), ("file:///etc/passwd", "no web")],
)
def test_redirects_that_lead_nowhere(get, location, words):
    told = get(Reply(status=301, headers={"Location": location}))
    assert (told.code, told.files) == (3, {})
    assert words in told.line


def test_a_server_that_is_not_there(get, tmp_path):
    told = get(url="http://127.0.0.1:9/data.bin")
    assert (told.code, told.files) == (6, {})
    assert "refused" in told.line


def test_a_trickle_is_fine_unless_it_is_too_slow(get):
    told = get(Reply(FILE[:2000], piece=7))
    assert (told.code, told.files) == (0, {"data.bin": FILE[:2000]})


def test_too_slow_a_trickle_ends_in_a_line(get):
    told = get(Reply(FILE, etag=TAG, hang=100), patience={"slow_for": 0.0, "slowest": 1e15})
    assert told.code == 6
    assert re.search(r"only \d+ bytes in .*gave up after 3 tries in vain", told.line)
    assert "data.bin" not in told.files


def test_a_silent_server_ends_in_a_line(get):
    told = get(Reply(FILE, etag=TAG, hang=100, ranges=False), patience={"timeout": 0.05})
    assert told.code == 6
    assert "data.bin" not in told.files


@pytest.mark.parametrize(
    ("reply", "item"),
    [
        (Reply(FILE), {"about_bytes": 10**18}),
        (Reply(FILE, claim=10**18), {}),  # the registry does not know, the server says
    ],
)
def test_a_disk_that_is_too_small_is_found_before_the_start(get, server, reply, item):
    told = get(reply, **item)
    assert (told.code, told.files) == (6, {})
    assert re.search(r"needs 1000000\.0 TB, \S+ \w+ are free", told.line)
    assert len(server.seen) == (0 if item else 1)


def test_the_first_copy_is_what_later_ones_are_compared_with(get, tmp_path):
    assert get(Reply(FILE)).code == 0
    path = tmp_path / "data" / "toy" / "data.bin"
    path.unlink()
    told = get(Reply(OTHER))
    assert (told.code, told.files) == (4, {})
    assert "that of the first copy" in told.line
    path.write_bytes(OTHER)
    told = get(Reply(FILE))
    assert (told.code, told.files) == (4, {"data.bin": OTHER}), "what a person placed is never removed"
    assert "remove it and get it again" in told.line


def test_gone_on_from_another_address_is_not_gone_on_from(get, server, tmp_path):
    get(Reply(OTHER[:1000], claim=2000, etag=TAG, ranges=False))
    server.script["/elsewhere"] = [Reply(FILE, etag=TAG)]
    told = get(url=server.url("/elsewhere"))
    assert (told.code, told.files, server.seen[-1].range) == (0, WHOLE, None)


def test_a_killed_fetch_is_gone_on_from_and_meanwhile_a_second_one_says_who_is_at_it(server, tmp_path, capsys):
    server.script["/data.bin"] = [Reply(FILE, etag=TAG, hang=120_000), Reply(FILE, etag=TAG)]
    item = {"name": "data.bin", "url": server.url("/data.bin")}
    registry, root = fetching.write_registry(tmp_path / "toy.yaml", item), tmp_path / "data"
    line = [sys.executable, "-m", "headstrong", "fetch", "toy", "--root", str(root), "--registry", str(registry)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    part, pause = root / "toy" / ".data.bin.part", threading.Event()
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE) as first:
        while not (part.is_file() and part.stat().st_size == 120_000) and first.poll() is None:
            pause.wait(0.005)
        assert fetching.cli.main(line[3:]) == 6
        assert f"process {first.pid} on " in capsys.readouterr().err
        first.send_signal(signal.SIGKILL)
    told = fetching.fetch(capsys, root, registry)
    assert (told.code, told.files) == (0, WHOLE)
    assert server.seen[-1].range == "bytes=120000-"


def test_https_that_leads_to_http_is_refused(server, tmp_path):
    import requests

    from headstrong.data import download as module

    # No certificate for loopback that a machine would trust: the first answer is made by an adapter of requests.
    class Leads(requests.adapters.BaseAdapter):
        def send(self, request, **_):
            response = requests.Response()
            response.status_code, response.url, response.request = 302, request.url, request
            response.headers["Location"] = server.url("/data.bin")
            return response

        def close(self):
            pass

    server.script["/data.bin"] = [Reply(FILE)]
    transfer = module._Transfer(
        "https://toy.example/data.bin", "data.bin", module.Partial(tmp_path / "data.bin"), Expected(), "x", Patience()
    )
    session = requests.Session()
    session.mount("https://", Leads())
    with pytest.raises(module.MissingDataError, match="from https to http://127"):
        transfer._open(session, {})
    assert server.seen == []


def test_a_certificate_that_nobody_knows_is_one_line(tmp_path, server):
    # The server speaks no TLS at all: the handshake fails as with a foreign machine in between.
    patience = Patience(attempts=2, first_wait=0.001, longest_wait=0.001)
    with pytest.raises(DownloadError) as caught:
        download(server.url("/x").replace("http:", "https:"), tmp_path / "x", Expected(), "by hand", patience)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
