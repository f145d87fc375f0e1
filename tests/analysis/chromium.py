"""A real browser for the report: Chromium without a window, driven over two pipes.

Its protocol is JSON, each message ended by a zero byte; no library is needed.
"""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
#: Seconds without an answer after which the browser hangs.
LIMIT = 120


def installed() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page of a browser; `messages` holds what it wrote to the console."""

    def __init__(self, program: str) -> None:
        self.messages: list[str] = []
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        self._rest = b""
        self._home = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # the browser's ends are 3 and 4: far from those first, so that neither covers the other
        far = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
        opened = f'exec "$0" "$@" 3<&{far[0]} 4>&{far[1]}'
        words = ["bash", "-c", opened, program, *FLAGS, f"--user-data-dir={self._home.name}"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(words, pass_fds=far, stdout=quiet, stderr=quiet)
        for end in (theirs_in, theirs_out, *far):
            os.close(end)
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for part in ("Page", "Runtime", "Log"):
            self.call(f"{part}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], LIMIT)
            assert ready, "the browser does not answer"
            part = os.read(self._in, 2**20)
            assert part, "the browser ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        if message.get("method") in ("Runtime.consoleAPICalled", "Log.entryAdded"):
            self.messages.append(json.dumps(message["params"])[:400])
        if message.get("method") == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(message["params"])[:400])
        return message

    def open(
        self, page: Path, width: int = 1200, height: int = 800, dark: bool = False, end: str = ""
    ) -> float:
        """Open a page in a window of this size; return the seconds until it was loaded.

        Args:
            page: a file.
            width: of the window, in pixels.
            height: of the window.
            dark: whether the reader prefers a dark page.
            end: of the address, e.g. ``#show=all``.
        """
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.messages.clear()
        start = time.monotonic()
        self.load(page, end)
        self.js("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        return time.monotonic() - start

    def load(self, page: Path, end: str = "") -> None:
        """Load a page whole into the window as it is."""
        self._events.clear()
        # a number in the address, or one that differs in its end alone would not be loaded again
        self.call("Page.navigate", url=f"{page.resolve().as_uri()}?{next(self._numbers)}{end}")
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())

    def js(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Press a key of the keyboard."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as a PNG."""
        shot = self.call(
            "Page.captureScreenshot",
            captureBeyondViewport=whole,
            **(
                {
                    "clip": {
                        "x": 0,
                        "y": 0,
                        "scale": 1,
                        **self.js(
                            "({width: innerWidth, height: document.documentElement.scrollHeight})"
                        ),
                    }
                }
                if whole
                else {}
            ),
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, path: Path) -> None:
        """Write the page as it is printed, as PDF."""
        paper = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(paper["data"]))

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._home.cleanup()
