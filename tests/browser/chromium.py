"""A headless Chromium over its DevTools pipe: NUL-separated JSON on two descriptors, no driver needed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """The browser's command, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Page:
    """One tab, and what it was seen to do."""

    _reader: int
    _writer: int
    _session: str | None = None
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    """Console output, log entries of the browser, and exceptions."""
    _buffer: bytes = b""
    _events: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a DevTools command."""
        number = next(self._numbers)
        body: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            body["sessionId"] = self._session
        os.write(self._writer, json.dumps(body).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])

    def open(
        self, page: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1
    ) -> None:
        """Loads a file or a URL from scratch; `requests` and `messages` are then those of this load."""
        self.requests.clear()
        self.messages.clear()
        self.resize(width, height, scale=scale)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        self.settle()

    def settle(self) -> None:
        """Returns when what was changed has been drawn."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        """Gives the page a size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Writes what is seen as PNG, or the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _wait_for(self, event: str) -> None:
        while not any(message["method"] == event for message in self._events):
            self._receive()

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"chromium said nothing for {TIMEOUT_S} s"
            piece = os.read(self._reader, 1 << 20)
            assert piece, "chromium closed its pipe"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        self._events.append(message)
        params = message["params"]
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.messages.append(json.dumps(params))


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A tab of a fresh headless browser with an empty profile.

    Raises:
        FileNotFoundError: Chromium is not installed.
    """
    command = find_chromium()
    if command is None:
        raise FileNotFoundError("chromium is not installed; apt-get install chromium")
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    # The browser reads commands from descriptor 3 and answers on 4: first out of the way, then into place.
    high_in, high_out = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (theirs_in, theirs_out))

    def place_pipes() -> None:
        os.dup2(high_in, 3)
        os.dup2(high_out, 4)

    # chromium may still write into its profile while it is being removed
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=place_pipes,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (theirs_in, theirs_out, high_in, high_out):
            os.close(fd)
        page = Page(ours_in, ours_out)
        try:
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page._session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            with contextlib.suppress(AssertionError, OSError):
                page._session = None
                page.call("Browser.close")
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
            os.close(ours_in)
            os.close(ours_out)
