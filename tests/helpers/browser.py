"""A page in a real Chromium, driven over the DevTools protocol: sizes, colour schemes, pointer, keys, print."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0")
_NOWHERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # the browser's own requests, too


class Browser:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.requests: list[str] = []  # addresses of everything that the page asked for
        self._done: set[str] = set()
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def open(self, path: Path) -> None:
        """Open a file, and wait until it is loaded."""
        self._done.discard("Page.loadEventFired")
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._done:
            self._receive()

    def show(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Give the page a size in pixels and a colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def point(self, x: float, y: float) -> None:
        """Move the pointer to a place of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Press a key, such as ArrowRight."""
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)

    def picture(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))

    def printed(self) -> bytes:
        """Return the page as a PDF, as it is printed."""
        found = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(found["data"])

    def _receive(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv(timeout=60))
        if method := message.get("method"):
            self._done.add(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a Chromium without a way to the network, and end it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), *_FLAGS, _NOWHERE, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                with connect(_page_of(process.stderr), max_size=None) as socket:
                    yield Browser(socket)
            finally:
                process.kill()


def pages_of(pdf: bytes) -> int:
    """Return the number of pages of a PDF that Chromium wrote."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


def _page_of(log: IO[str]) -> str:
    """Return the address of the first page, which Chromium's log leads to."""
    for line in log:
        if found := re.search(r"ws://(127\.0\.0\.1:\d+)/", line):
            with connect(found[0] + line.partition(found[0])[2].strip(), max_size=None) as socket:
                socket.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
                while "result" not in (answer := json.loads(socket.recv(timeout=30))):
                    pass
            pages = [each for each in answer["result"]["targetInfos"] if each["type"] == "page"]
            return f"ws://{found[1]}/devtools/page/{pages[0]['targetId']}"
    raise AssertionError("chromium ended before it listened")
