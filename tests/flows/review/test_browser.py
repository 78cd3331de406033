"""A page is opened where there is a browser, and nothing that it prints is seen."""

import os
import sys
import time
import webbrowser
from pathlib import Path

import pytest

from flows.review.browser import open_in_browser

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_without_a_display_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    assert not open_in_browser("http://127.0.0.1:1/")


def test_without_a_browser_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise webbrowser.Error("no browser")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "get", missing)
    assert not open_in_browser("http://127.0.0.1:1/")


@pytest.mark.slow
def test_a_browser_gets_the_link_and_what_it_prints_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program, heard = tmp_path / "browser", tmp_path / "heard"
    program.write_text(
        f"#!/bin/sh\necho a complaint\necho another >&2\necho $1 > {heard}.part\nmv {heard}.part {heard}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BROWSER", str(program))
    assert open_in_browser("http://127.0.0.1:1/?token=a")
    end = time.monotonic() + 150
    while not heard.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert heard.read_text() == "http://127.0.0.1:1/?token=a\n"
    assert capfd.readouterr() == ("", "")
