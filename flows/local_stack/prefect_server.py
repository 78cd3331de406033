"""Prefect's server as a program that collects its garbage beside its event loop.

On SQLite that loop stood still for a minute at times, and with it everybody who asked the server. A statement that
fails ("database is locked") leaves a cursor to the garbage collector. Python collects in the thread that happens to
allocate, which is the event loop's; there the cursor's end waits for its connection, while that waits in a thread of
its own to write; and whoever writes needs the event loop to get done. SQLite's busy timeout, 60 seconds in Prefect,
ended that.
"""

import gc
import itertools
import runpy
import sys
import time
from threading import Thread

_SECONDS = 1.0
_ROUNDS_PER_FULL = 60  # all that lives is looked through then: 0.4 s for Prefect's server


def collect_beside() -> None:
    """From now on a thread of its own collects what is garbage, and no other does."""
    gc.disable()
    Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    for number in itertools.count(1):
        time.sleep(_SECONDS)
        gc.collect(1 if number % _ROUNDS_PER_FULL else 2)


if __name__ == "__main__":
    collect_beside()
    sys.argv[1:1] = ["server", "start"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
