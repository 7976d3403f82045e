"""A Chromium that tests drive by its DevTools protocol, over a pipe: it clicks and types, and tells what went wrong."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
LAUNCH = (
    "import os, sys; [os.dup2(int(end), to) for end, to in zip(sys.argv[1:3], (3, 4))]; "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
"""Chromium reads what it is told from descriptor 3 and answers on 4."""
HIGH = 20
"""Descriptors from here on are free for the pipes, so that neither is one of the two that Chromium reads and writes."""


class Chromium:
    """One page of a headless Chromium. Console errors, uncaught exceptions and requests are kept as they happen."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900, *, dark: bool = False):
        """`folder`: of its profile."""
        theirs, self._to = os.pipe()
        self._from, answers = os.pipe()
        reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD, HIGH) for end in (theirs, answers))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(reads), str(writes), FOUND, *flags, f"--user-data-dir={folder}"],
            pass_fds=(reads, writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs, answers, reads, writes):
            os.close(end)
        self._rest, self._count, self._session = b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._session = ""
        self.call("Browser.close")
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._count += 1
        told = {"id": self._count, "method": method, "params": params}
        told |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(told).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from, 2**20)
            assert part, "Chromium ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        event = json.loads(text)
        self._keep(event.get("method", ""), event.get("params", {}))
        return event

    def _keep(self, method: str, told: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.errors.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, once it is there if it is a promise."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, address: str) -> None:
        """Open a page, from nothing, and wait until its first picture."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.until(
            "document.readyState === 'complete' && (document.querySelector('[data-latent], #error:not([hidden])'))"
        )

    def until(self, condition: str) -> None:
        """Wait until something holds in the page, looking every few milliseconds."""
        again = f"left-- ? setTimeout(look, 5) : fail(new Error('never: ' + {json.dumps(condition)}))"
        look = f"const look = () => ({condition}) ? done() : {again};"
        self.run(f"new Promise((done, fail) => {{ let left = 3000; {look} look(); }})")

    def shot(self, path: Path, *, whole: bool = False) -> None:
        """Write a picture of what is in sight, as PNG."""
        import base64

        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))
