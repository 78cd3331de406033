"""A PostgreSQL server for a test, of the programs that the system has."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_USER = "postgres"  # the server refuses to be root


@contextmanager
def postgresql() -> Iterator[str | None]:
    """The address of an empty database, for SQLAlchemy with asyncpg; None where PostgreSQL is not installed."""
    control = shutil.which("pg_ctl")
    programs = None if control is None else Path(control).resolve().parent
    if programs is None or not (programs / "initdb").exists():
        yield None
        return
    user = _USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="refseg-postgresql-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        _run([programs / "initdb", "--auth=trust", f"--username={_USER}", "-D", data], user)
        options = f"-c listen_addresses= -c unix_socket_directories={folder}"
        start = [programs / "pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start"]
        _run(start, user)
        try:
            yield f"postgresql+asyncpg://{_USER}@/postgres?host={folder}"
        finally:
            _run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], user)


def _run(command: list[str | Path], user: str | None) -> None:
    subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
