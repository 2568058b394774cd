"""A headless Chromium that is driven over its DevTools protocol, to see what a person would see."""

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT = 60  # seconds that anything may take: graphics are drawn by the CPU here


class Browser:
    """One page in a window of a given size."""

    def __init__(self, profile: Path, width: int, height: int) -> None:
        assert CHROMIUM is not None
        switches = (
            *("--headless=new", "--no-sandbox", "--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio"),
            *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--remote-debugging-port=0"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"),
        )
        self._errors = (profile.parent / f"{profile.name}.log").open("w+")
        self._process = subprocess.Popen([CHROMIUM, *switches], stderr=self._errors)
        port = self._wait_for(profile / "DevToolsActivePort").split()[0]
        self._socket = connect(f"ws://127.0.0.1:{port}{self._page(int(port))}", max_size=None)
        self._numbers = itertools.count(1)
        self.call("Page.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(WAIT)
        self._errors.close()

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """Calls a method of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters or {}}))
        while (answer := json.loads(self._socket.recv(WAIT))).get("id") != number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def run(self, script: str) -> Any:
        """Runs JavaScript in the page; returns its value."""
        answer = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        """Opens a page and waits for its canvas."""
        self.call("Page.navigate", {"url": address})
        end = time.monotonic() + WAIT
        while not self.run("document.querySelector('canvas') !== null && document.readyState === 'complete'"):
            assert time.monotonic() < end, f"{address}: no canvas appeared"
            time.sleep(0.2)

    def wait_for_picture(self, accept: Callable[[np.ndarray], bool], what: str) -> np.ndarray:
        """A picture of the window that is accepted: Gaussians fly in, and are sorted after a while."""
        end = time.monotonic() + WAIT
        while not accept(picture := self.picture()):
            assert time.monotonic() < end, f"the window never showed {what}"
            time.sleep(0.5)
        return picture

    def close_notes(self) -> None:
        """Closes what pops up over the picture, as a warning about slow graphics."""
        self.run("document.querySelectorAll('.mantine-Notification-closeButton').forEach(e => e.click())")

    def picture(self) -> np.ndarray:
        """What the window shows, [h, w, 3]."""
        data = base64.b64decode(self.call("Page.captureScreenshot", {"format": "png"})["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def drag(self, start: tuple[int, int], end: tuple[int, int], steps: int = 8) -> None:
        """Drags with the left button."""
        self._mouse("mousePressed", *start)
        for i in range(1, steps + 1):
            x, y = (round(a + (b - a) * i / steps) for a, b in zip(start, end))
            self._mouse("mouseMoved", x, y)
        self._mouse("mouseReleased", *end)

    def _mouse(self, kind: str, x: int, y: int) -> None:
        self.call(
            "Input.dispatchMouseEvent",
            {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1},
        )

    def _page(self, port: int) -> str:
        """Address of the first page's socket, from the browser's list."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=WAIT) as response:
            pages = [entry for entry in json.load(response) if entry["type"] == "page"]
        return re.sub(r"^ws://[^/]*", "", pages[0]["webSocketDebuggerUrl"])

    def _wait_for(self, path: Path) -> str:
        end = time.monotonic() + WAIT
        while not (path.is_file() and path.read_text().strip()):
            assert self._process.poll() is None, self._log()
            assert time.monotonic() < end, self._log()
            time.sleep(0.1)
        return path.read_text()

    def _log(self) -> str:
        self._errors.seek(0)
        return self._errors.read()
