"""A web server on loopback that misbehaves as told: every request to a path takes the next reply of its script."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """One answer. With status 200, content is a file, of which a Range is served where `ranges`."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = None
    ranges: bool = True
    heeds_if_range: bool = True
    claim: int | None = None  # Content-Length said in place of the true one
    silent: bool = False  # no Content-Length at all
    chunked: bool = False  # in chunks that say their length; a cut is then an orderly end, but too early
    cut: int | None = None  # bytes after which the connection is reset
    hang: int | None = None  # bytes after which nothing comes until the server ends
    piece: int = 1 << 20  # bytes sent at a time


@dataclass
class Seen:
    """One request."""

    path: str
    range: str | None
    if_range: str | None


class Server(ThreadingHTTPServer):
    """`script[path]` are the replies, of which the last is given again and again; `seen` are the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: dict[str, list[Reply]] = {}
        self.seen: list[Seen] = []
        self.ending = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


@contextmanager
def running() -> Iterator[Server]:
    """A server in a thread of its own."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.seen.append(Seen(self.path, self.headers["Range"], self.headers["If-Range"]))
        replies = self.server.script.get(self.path) or [Reply(status=404)]
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        start = self._start(reply)
        body = reply.content[start:] if start is not None else b""
        self.send_response(416 if start is None else 206 if start else reply.status)
        if start is None:
            self.send_header("Content-Range", f"bytes */{len(reply.content)}")
        elif start:
            last = len(reply.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(reply.content)}")
        if reply.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not reply.silent:
            self.send_header("Content-Length", str(len(body) if reply.claim is None else reply.claim - (start or 0)))
        if reply.etag:
            self.send_header("ETag", reply.etag)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self._send(body, reply)

    def log_message(self, *_: object) -> None:
        """Requests are in `seen`."""

    def _start(self, reply: Reply) -> int | None:
        """The byte to begin with; None where the range asked for begins beyond the end."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if not asked or not reply.ranges or reply.status != 200:
            return 0
        named = self.headers["If-Range"]
        if named and reply.heeds_if_range and named not in (reply.etag, reply.headers.get("Last-Modified")):
            return 0
        return int(asked[1]) if int(asked[1]) < len(reply.content) else None

    def _send(self, body: bytes, reply: Reply) -> None:
        end = min(one for one in (len(body), reply.cut, reply.hang) if one is not None)
        for place in range(0, end, reply.piece):
            piece = body[place : min(place + reply.piece, end)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.chunked else piece)
        if reply.chunked:
            self.wfile.write(b"0\r\n\r\n" if reply.cut is None else b"")
        elif reply.hang is not None:
            self.server.ending.wait()
        elif reply.cut is not None:
            # A reset, not an orderly end: as a cable that is pulled.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
