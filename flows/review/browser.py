"""Opens a page in the browser of this machine, where there is one; nothing that a browser prints is shown."""

import os
import subprocess
import sys
import webbrowser
from threading import Thread

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")


def open_in_browser(link: str) -> bool:
    """Opens a link without waiting for it; returns whether there is a browser with a display to do so."""
    if not _has_browser():
        return False
    command = [sys.executable, "-m", "webbrowser", link]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    Thread(target=subprocess.run, args=(command,), kwargs=quiet, daemon=True).start()
    return True


def _has_browser() -> bool:
    if sys.platform not in ("darwin", "win32") and not any(os.environ.get(name) for name in _DISPLAYS):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
