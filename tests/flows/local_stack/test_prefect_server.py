"""The Prefect server's event loop is not blocked by the garbage collector."""

import subprocess
import sys
from pathlib import Path

import pytest

_BUSY_SECONDS = 5
# What Prefect, SQLAlchemy and aiosqlite do in the server: a cursor whose statement failed is garbage, its connection
# waits in a thread to write, and the main thread, which allocates, is who has to end the other connection's writing.
_DEADLOCK = f"""
import sqlite3, sys, threading, time
from flows.local_stack.prefect_server import collect_in_thread

if sys.argv[2] == "beside":
    collect_in_thread()
waiting, writing = (sqlite3.connect(sys.argv[1], {_BUSY_SECONDS}, 0, None, False) for _ in range(2))
waiting.execute("PRAGMA journal_mode = WAL")
waiting.execute("CREATE TABLE numbers (number UNIQUE)")
waiting.execute("INSERT INTO numbers VALUES (1)")
kept = []

def fail():
    cursor = waiting.cursor()
    try:
        cursor.execute("INSERT INTO numbers VALUES (1)")
    except sqlite3.IntegrityError as error:
        kept.append(error)
        error.of = error

fail()
writing.execute("BEGIN IMMEDIATE")
writer = threading.Thread(target=waiting.execute, args=("BEGIN IMMEDIATE",))
writer.start()
time.sleep(0.5)
kept.clear()
end = time.monotonic() + 2
while time.monotonic() < end:
    garbage = [[] for _ in range(1000)]
writing.execute("COMMIT")
writer.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("collected", "waits"), [("beside", False), ("anywhere", True)])
def test_a_failed_statement_that_is_garbage_does_not_stop_who_has_to_end_the_writing(
    collected: str, waits: bool, tmp_path: Path
) -> None:
    """Where it no longer waits though garbage is collected anywhere, `flows/local_stack/prefect_server.py` can go."""
    command = [sys.executable, "-c", _DEADLOCK, f"{tmp_path}/numbers.db", collected]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ("database is locked" in result.stderr) == waits, result.stderr
    assert result.returncode == 0
