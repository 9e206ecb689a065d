"""One file from one address: resumed, tried again with growing pauses, checked, and there only when whole."""

from __future__ import annotations

import logging
import random
import re
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from headstrong.data.registry import Patience
from headstrong.data.transfer import ByteProgress, Expected, Partial, amount, check_room
from headstrong.errors import BrokenFileError, DownloadError, MissingDataError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests
    from tenacity import RetryCallState

log = logging.getLogger(__name__)

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone at the next try
_BLOCK = 1 << 18
_ROUNDS = 50  # tries in all, to one of Patience.attempts: a server may cut a long file many times


class _PassingError(Exception):
    """Something that may be gone at the next try. wait: seconds the server asks for. stalled: bytes came, too few."""

    def __init__(self, reason: str, wait: float | None = None, stalled: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.stalled = wait, stalled


class _WrongError(Exception):
    """What arrived is not the file."""


def download(url: str, target: Path, expected: Expected, by_hand: str, patience: Patience | None = None) -> str:
    """Fetch `url` to `target`; returns its SHA-256. `by_hand`: what a person can do instead, for messages.

    The file is written to a hidden .part beside its place and renamed when it is as expected; the .part stays when
    the network fails, and is gone on from. Raises DownloadError (try later), MissingDataError (the server refuses: a
    person must get it), BrokenFileError (twice not what was expected).
    """
    patience = patience or Patience()
    partial = Partial(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for last in (False, True):
        try:
            _Transfer(url, target.name, partial, expected, by_hand, patience).run()
            digest, wrong = expected.check(partial.path)
        except _WrongError as error:
            digest, wrong = "", str(error)
        except (UserError, OSError):
            if not partial.size:
                partial.remove()
            raise
        if wrong is None:
            partial.rename(target)
            return digest
        partial.remove()
        if not last:
            log.info("%s: %s; removed, once more from the start", target.name, wrong)
    raise BrokenFileError(f"{target.name}: {url} gave {wrong}, twice; nothing was kept; {by_hand}")


class _Transfer:
    """The attempts to get one file whole; each goes on where the last one ended."""

    def __init__(
        self, url: str, name: str, partial: Partial, expected: Expected, by_hand: str, patience: Patience
    ) -> None:
        self.url, self.name, self.partial, self.expected = url, name, partial, expected
        self.by_hand, self.patience = by_hand, patience
        self.most, self.failures = partial.size, 0

    def run(self) -> None:
        """Bring the part to its full length, or raise."""
        import requests
        from tenacity import Retrying, retry_if_exception_type

        retrying = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=self._enough,
            wait=self._wait,
            before_sleep=self._say,
            reraise=True,
        )
        with requests.Session() as session:
            session.headers["Accept-Encoding"] = "identity"  # the bytes of the file, not of a compressed copy
            try:
                retrying(self._attempt, session)
            except _PassingError as error:
                kept = self.partial.size
                state = f"{amount(kept)} are kept and gone on from" if kept else "nothing was kept"
                raise DownloadError(
                    f"{self.name}: {self.url}: {error}; gave up after {self.failures} tries in vain; {state}: "
                    "run it again later"
                ) from None

    def _enough(self, state: RetryCallState) -> bool:
        return self.failures >= self.patience.attempts or state.attempt_number >= self.patience.attempts * _ROUNDS

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _PassingError) and error.wait is not None:
            return error.wait
        grown = self.patience.first_wait * 2 ** max(self.failures - 1, 0)
        return min(grown + random.uniform(0, grown), self.patience.longest_wait)

    def _say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0
        log.info("%s: %s; again in %.1f s", self.name, error, seconds)

    def _attempt(self, session: requests.Session) -> None:
        try:
            with _network(self.url):
                self._once(session)
        except _PassingError as error:
            gained = self.partial.size > self.most and not error.stalled
            self.most = max(self.most, self.partial.size)
            self.failures = 1 if gained else self.failures + 1
            raise

    def _once(self, session: requests.Session) -> None:
        notes, have = self.partial.notes(), self.partial.size
        validator = notes.get("etag") or notes.get("modified")
        if notes.get("url") != self.url or not (validator or self.expected.checksum):
            have = 0  # what is there may be of another file, and nothing would tell
        if have and have == (notes.get("total") or self.expected.bytes):
            return
        headers = {"Range": f"bytes={have}-", **({"If-Range": validator} if validator else {})} if have else {}
        response = self._open(session, headers)
        with response:
            if response.status_code == 206 and have and self._goes_on(response, have, notes):
                total = notes.get("total")
            elif response.status_code == 200:
                have, total = 0, self._start(response)
            elif response.status_code in (206, 416):
                self.partial.remove()
                raise _PassingError(f"cannot go on at byte {have}, from the start then")
            else:
                raise self._refusal(response)
            check_room(self.partial.path.parent, (total or 0) - have, self.name)
            self._copy(response, have, total)

    def _open(self, session: requests.Session, headers: dict[str, str]) -> requests.Response:
        url = self.url
        for _ in range(self.patience.redirects + 1):
            response = session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=self.patience.timeout
            )
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            there = urljoin(url, response.headers.get("Location", ""))
            new, old = urlsplit(there), urlsplit(url)
            if new.scheme not in ("http", "https") or not new.hostname:
                raise self._person(f"leads on to {there!r}, which is no web address")
            if (old.scheme, new.scheme) == ("https", "http"):
                raise self._person(f"leads on from https to {there}, where anyone could change the file")
            url = there
        raise self._person(f"leads on more than {self.patience.redirects} times, last to {url}")

    def _start(self, response: requests.Response) -> int | None:
        """Note what the server says of the whole; returns its length, None where it does not say."""
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml") and not self.name.endswith((".html", ".htm")):
            raise self._person("answers with a web page, not with the file")
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding != "identity" and not self.name.endswith((".gz", ".tgz")):
            raise self._person(f"sends a copy packed by {coding}, although the file itself was asked for")
        total = _number(response.headers.get("Content-Length"))
        if total is not None and self.expected.bytes not in (None, total):
            raise _WrongError(f"{total} bytes, expected {self.expected.bytes}")
        etag = response.headers.get("ETag", "")
        self.partial.start(
            {
                "url": self.url,
                "etag": etag if etag.startswith('"') else None,  # weak ones say nothing of single bytes
                "modified": response.headers.get("Last-Modified"),
                "total": total,
            }
        )
        return total

    def _goes_on(self, response: requests.Response, have: int, notes: dict[str, Any]) -> bool:
        """Whether a part of the same file follows, beginning where ours ends."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != have:
            return False
        if found[2] != "*" and notes.get("total") not in (None, int(found[2])):
            return False
        etag = response.headers.get("ETag")
        return not (etag and notes.get("etag") and etag != notes["etag"])

    def _copy(self, response: requests.Response, have: int, total: int | None) -> None:
        most = self.expected.bytes if total is None else total
        since, came = time.monotonic(), 0
        with ByteProgress(self.name, have, total) as progress, self.partial.path.open("ab") as file:
            while block := response.raw.read1(_BLOCK, decode_content=False):
                file.write(block)
                file.flush()  # what a kill leaves is gone on from
                progress.advance(len(block))
                have, came = have + len(block), came + len(block)
                if most is not None and have > most:
                    raise _WrongError(f"more than {most} bytes")
                seconds = time.monotonic() - since
                if seconds >= self.patience.slow_for:
                    if came < seconds * self.patience.slowest:
                        raise _PassingError(f"only {came} bytes in {seconds:.1f} s", stalled=True)
                    since, came = time.monotonic(), 0
        if most is not None and have < most:
            raise _PassingError(f"cut after {have} of {most} bytes")

    def _refusal(self, response: requests.Response) -> Exception:
        status = f"answers {response.status_code} {response.reason or ''}".strip()
        if response.status_code in (404, 410):
            self.partial.remove()  # there is nothing to go on with
        if response.status_code not in _PASSING:
            return self._person(status)
        wait = _seconds(response.headers.get("Retry-After"))
        if wait is not None and wait > self.patience.longest_retry_after:
            return DownloadError(
                f"{self.name}: {self.url} {status} and asks to wait {wait:.0f} s, longer than "
                f"{self.patience.longest_retry_after:.0f} s; run it again later"
            )
        return _PassingError(status, wait)

    def _person(self, reason: str) -> MissingDataError:
        """The server will not give the file to a program."""
        return MissingDataError(f"{self.name}: {self.url} {reason}; {self.by_hand}")


@contextmanager
def _network(url: str) -> Iterator[None]:
    """What requests and urllib3 raise, sorted into what may pass and what will not."""
    import requests
    import urllib3

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise DownloadError(f"{url}: its certificate cannot be trusted ({_short(error)})") from None
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise _PassingError(_short(error)) from None
    except requests.RequestException as error:
        raise DownloadError(f"{url}: {_short(error)}") from None
    except ConnectionError as error:
        raise _PassingError(_short(error)) from None


def _short(error: BaseException) -> str:
    """The innermost reason of an error of the network, in one line."""
    while isinstance(inner := getattr(error, "reason", None) or (error.args[-1] if error.args else None), Exception):
        error = inner
    words = " ".join(str(error).split())
    return re.sub(r"^<?[\w.]*\(.*?\)>?: ", "", words) or type(error).__name__


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d+", text.strip()) else None


def _seconds(text: str | None) -> float | None:
    """Retry-After: seconds, or a date; None where it says neither."""
    if text is None:
        return None
    if (number := _number(text)) is not None:
        return float(number)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
