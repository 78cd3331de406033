"""Prefect's server as a program that collects garbage in a thread of its own.

On SQLite the server's event loop sometimes blocked for a minute. A statement that fails ("database is locked") leaves
a cursor to the garbage collector. Python collects in the thread that happens to allocate, usually the event loop's;
finalizing the cursor there waits for its connection, which waits in another thread to write, while the current writer
needs the event loop to finish. Only SQLite's busy timeout, 60 seconds in Prefect, ended that.

The fault is Python's: its sqlite3 finalizes a cursor under the lock of the connection that another thread waits in.
What users see of it are reports of locked databases (https://github.com/PrefectHQ/prefect/issues/18934). The test
`tests/flows/local_stack/test_prefect_server.py` is a minimal case of it, without Prefect: this file can go when the
half of the test that does without it no longer waits.
"""

import gc
import itertools
import runpy
import sys
import time
from threading import Thread

_SECONDS = 1.0
_ROUNDS_PER_FULL = 60  # collections between two full ones, which take 0.4 s


def collect_in_thread() -> None:
    """Moves garbage collection to a thread of its own."""
    gc.disable()
    Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    for number in itertools.count(1):
        time.sleep(_SECONDS)
        gc.collect(1 if number % _ROUNDS_PER_FULL else 2)


if __name__ == "__main__":
    collect_in_thread()
    sys.argv[1:1] = ["server", "start"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
