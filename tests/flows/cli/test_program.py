"""A signal that comes before a command is at work ends `refseg` in one line."""

import gc
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_PROGRAM = """
import signal, sys

class Signals:
    def find_spec(self, name, *_):
        if name == "flows.cli.main":
            signal.raise_signal(int(sys.argv[1]))

sys.meta_path.insert(0, Signals())
from {module} import {function}
{function}()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_commands_are_imported_ends_the_program_in_a_line(number: signal.Signals) -> None:
    module, function = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["scripts"]["refseg"].split(":")
    program = _PROGRAM.format(module=module, function=function)
    command = [sys.executable, "-c", program, str(int(number))]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, "\nStopped: no command was at work.\n")


_IDLE = """
import atexit, gc, sys
from types import ModuleType

atexit.register(lambda: print(gc.get_freeze_count() > 100 * len(gc.get_objects())))
sys.modules["flows.cli.main"] = ModuleType("flows.cli.main")
sys.modules["flows.cli.main"].main = lambda: print(gc.get_threshold()[0])
from flows.cli.program import main
main()
"""


def test_what_a_command_imports_is_not_looked_through_for_garbage_again_and_again_nor_at_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", _IDLE], cwd=_ROOT, capture_output=True, text=True, check=True)
    threshold, is_frozen = done.stdout.split()
    assert int(threshold) > 10 * gc.get_threshold()[0]
    assert is_frozen == "True"
