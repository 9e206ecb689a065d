"""A headless Chromium driven over its debugging pipe: nothing but the standard library and a browser on the machine."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60.0  # seconds for any answer


class Browser:
    """One tab. Every console error, exception and request that leaves the file is in `complaints`."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._number, self._rest, self._session = 0, b"", ""
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser says nothing")
            part = os.read(self._reader, 1 << 20)
            if not part:
                raise ConnectionError("the browser has ended")
            self._rest += part
        first, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(first)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(str([one.get("value") for one in parameters["args"]]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            address = parameters["request"]["url"]
            if not address.startswith(("file:", "data:", "about:")):
                self.complaints.append(f"asked for {address}")

    def open(self, address: str, width: int = 1200, height: int = 900, **features: str) -> None:
        """Load a page and wait for its load event. features: of the media, such as prefers_color_scheme="dark"."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        wanted = [{"name": key.replace("_", "-"), "value": value} for key, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=wanted)
        self.call("Page.navigate", url="about:blank")  # so that a change of the hash alone loads the page as well
        self.wait_for("location.href === 'about:blank'")
        self.call("Page.navigate", url=address)
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, program: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        how = {"expression": program, "awaitPromise": True, "returnByValue": True}
        answer = self.call("Runtime.evaluate", **how)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"].get("exception", {}).get("description", answer)))
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until a JavaScript condition holds, a frame of the browser at a time."""
        until = time.monotonic() + PATIENCE
        while not self.run(f"new Promise((done) => setTimeout(() => done(Boolean({condition})), 16))"):
            if time.monotonic() > until:
                raise TimeoutError(condition)

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, as a person presses it."""
        for kind in ("keyDown", "keyUp"):
            fields = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", **fields, **({"text": text} if text and kind == "keyDown" else {}))

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot as PNG, of what the window shows or of the whole page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def print(self, path: Path) -> None:
        """The page as PDF."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=True, paperWidth=8.27)["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`, ended at the end."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    high = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]

    def as_third_and_fourth() -> None:
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    command = [str(PROGRAM), *FLAGS, f"--user-data-dir={folder / 'profile'}"]
    process = subprocess.Popen(
        command, pass_fds=(3, 4), preexec_fn=as_third_and_fourth, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for one in (theirs_in, theirs_out, *high):
        os.close(one)
    try:
        yield Browser(ours_in, ours_out)
    finally:
        process.terminate()
        process.wait()
        os.close(ours_in)
        os.close(ours_out)
