"""A real browser without a window: opens pages, waits for what they show, clicks, and takes pictures of them.

It is driven through Chromium's DevTools protocol. Nothing here knows what the pages are about.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_START_SECONDS, _ANSWER_SECONDS, _PATIENCE_SECONDS = 150, 150, 150
_POLL_SECONDS = 0.2
_KEY_CODES = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}


def find_browser() -> str | None:
    """The program, or None where there is none: what REFSEG_BROWSER names, or a Chromium on the path."""
    found = (shutil.which(name) for name in (os.environ.get("REFSEG_BROWSER", ""), *_NAMES) if name)
    return next((program for program in found if program), None)


class BetweenPagesError(AssertionError):
    """A page was left before it answered, as when it is loaded again; the next one may."""


class Page:
    """The one page of a browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0

    def open(self, url: str) -> None:
        """Goes to the address; returns before everything is there."""
        self._command("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """What a JavaScript expression gives."""
        answer = self._command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def _evaluate_on_any(self, script: str) -> Any:
        with suppress(BetweenPagesError):
            return self.evaluate(script)

    @property
    def text(self) -> str:
        """What there is to read."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def wait_for(self, script: str, seconds: float = _PATIENCE_SECONDS) -> Any:
        """Waits until the expression gives something true, and returns it."""
        end = time.monotonic() + seconds
        while not (value := self._evaluate_on_any(script)):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds:.0f} s: {script}. The page reads:\n{self.text[:3000]}")
            time.sleep(_POLL_SECONDS)
        return value

    def wait_for_text(self, text: str, seconds: float = _PATIENCE_SECONDS) -> None:
        """Waits until the page shows the text."""
        self.wait_for(f"document.body && document.body.innerText.includes({json.dumps(text)})", seconds)

    def click(self, text: str) -> None:
        """Clicks the middle of the first link, tab or button that reads so, or else begins so."""
        find = (
            "(() => { const all = [...document.querySelectorAll('a, button, [role=tab]')];"
            f" const text = {json.dumps(text)};"
            " const found = all.find(e => e.innerText.trim() === text)"
            " || all.find(e => e.innerText.trim().startsWith(text));"
            " if (!found) return null;"
            " found.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const box = found.getBoundingClientRect();"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        place, before = self.wait_for(find), None
        while place != before:  # what is still being loaded moves what is there
            time.sleep(2 * _POLL_SECONDS)
            place, before = self.wait_for(find), place
        for kind in ("mousePressed", "mouseReleased"):
            self._command("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Presses and releases a key: a character, or a name such as Enter, Escape or ArrowDown."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = _KEY_CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
        pressed = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self._command("Input.dispatchKeyEvent", type="keyDown", **{name: one for name, one in pressed.items() if one})
        self._command("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self._command("Input.insertText", text=text)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Presses at one place of the window, moves to another and releases; a click where they are equal."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        steps = [("mousePressed", start), ("mouseMoved", middle), ("mouseMoved", end), ("mouseReleased", end)]
        for kind, (x, y) in steps:
            self._command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, file: Path, *, quality: int = 80) -> Path:
        """Writes what the window shows as a JPEG."""
        answer = self._command("Page.captureScreenshot", format="jpeg", quality=quality)
        file.write_bytes(base64.b64decode(answer["data"]))
        return file

    def _command(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(timeout=_ANSWER_SECONDS))
            if answer.get("id") == self._number:
                problem = answer.get("error", {}).get("message", "")
                if "navigated" in problem or "context" in problem:
                    raise BetweenPagesError(f"{method}: {problem}")
                assert not problem, f"{method}: {problem}"
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def any_browser(*, width: int, height: int) -> Iterator[Page]:
    """Yields a page of the browser that there is; without one the test is skipped."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium found; install one, or set REFSEG_BROWSER to its program")
    with open_browser(program, width=width, height=height) as page:
        yield page


@contextmanager
def open_browser(program: str, *, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Starts the browser with a new profile, and ends it with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", f"--window-size={width},{height}"),
        ]
        with (Path(profile) / "log").open("wb") as log:
            process = subprocess.Popen([program, *arguments, "about:blank"], stdout=log, stderr=log)
        try:
            with connect(_page_address(Path(profile), process), max_size=None) as connection:
                page = Page(connection)
                page._command(
                    "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
                )
                yield page
        finally:
            process.terminate()
            process.wait(timeout=150)


def _page_address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the first page is driven; the browser writes its port into its profile."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        file = profile / "DevToolsActivePort"
        if file.exists() and (lines := file.read_text().split()):
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=60) as reply:
                pages = [target for target in json.load(reply) if target["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(_POLL_SECONDS)
    raise AssertionError(f"the browser did not start: {(profile / 'log').read_text(errors='replace')[-2000:]}")
