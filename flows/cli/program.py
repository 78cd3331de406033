"""The program `refseg`: ends in one line where a signal comes while its commands are still loaded, or when one is over.

While a command is at work, it says itself what a signal leaves (`flows/execution/stopping.py`). So little is imported
here that a signal hardly comes earlier.
"""

import os
import pkgutil
import signal
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from flows.execution.garbage import collect_seldom

_STDERR = 2


def main() -> None:
    """Loads the commands, by name as others name this program, and runs the one that was typed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    collect_seldom()
    pkgutil.resolve_name("flows.cli.main:main")()


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends the process at once: an exception could be lost, or shown as a traceback, in whatever is being imported."""
    with suppress(OSError):  # nobody may read it any more
        os.write(_STDERR, b"\nStopped: no command was at work.\n")
    os._exit(128 + number)
