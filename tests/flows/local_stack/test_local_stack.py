"""The local stack without servers: refused options, the supervision of parts, and the settings of workers."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from flows.local_stack import lifecycle, seaweedfs
from flows.local_stack.options import StackOptions, parts_of
from flows.local_stack.processes import kill_marked, of_part
from flows.local_stack.programs import (
    Part,
    choose_gpus,
    from_json,
    server_part,
    to_json,
    visible_gpus,
    worker_part,
)
from flows.local_stack.state_folder import ServiceFolder, StackState
from flows.local_stack.supervisor import Backoff, Supervisor
from flows.local_stack.worker_machine import worker_parts
from flows.service.api import ui_address
from refseg_core.errors import ConfigurationError
from tests.support.commands import refseg, refused

_needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find processes")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("flag", ["--port", "--s3-port"])
def test_a_port_that_is_taken_is_named_with_its_flag(tmp_path: Path, taken_port: int, flag: str) -> None:
    other = "--s3-port" if flag == "--port" else "--port"
    message = refused(refseg("service", "up", "--folder", tmp_path / "s", flag, str(taken_port), other, str(_free())))
    assert f"Port {taken_port} of 127.0.0.1" in message
    assert f"choose another with {flag}." in message
    assert not (tmp_path / "s").exists()


def test_a_folder_that_cannot_be_written_is_named_with_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    message = refused(refseg("service", "up", "--folder", tmp_path / "file" / "s", "--no-s3", "--port", str(_free())))
    assert f"--folder: {tmp_path}/file/s cannot be written (Not a directory)." in message


def test_without_seaweedfs_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seaweedfs.shutil, "which", lambda *_, **__: None)
    message = refused(refseg("service", "up", "--folder", tmp_path / "s", "--port", str(_free())))
    assert "pip install 'refseg[service]'" in message
    assert "--no-s3" in message


def test_a_service_that_is_up_is_not_started_again(tmp_path: Path) -> None:
    folder = ServiceFolder(tmp_path / "s")
    folder.make()
    with folder.held():
        assert "up already" in refused(refseg("service", "up", "--folder", folder.path))


def test_a_database_without_its_driver_is_refused(tmp_path: Path) -> None:
    arguments = ("--no-s3", "--port", str(_free()), "--database", "postgresql://me:secret@db/refseg")
    message = refused(refseg("service", "up", "--folder", tmp_path / "s", *arguments))
    assert "postgresql+asyncpg://" in message
    assert "secret" not in message


@pytest.mark.parametrize("command", [("worker",), ("deploy",)])
def test_without_a_server_named_it_says_how_to_name_one(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    message = refused(refseg("service", *command))
    assert "PREFECT_API_URL is not set" in message
    assert "env.sh" in message


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{_free()}/api")
    assert "no Prefect server answers at http://127.0.0.1:" in refused(refseg("service", "worker"))


def test_down_and_status_of_what_is_not_up_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert "was not up" in refseg("service", "down", "--folder", folder).stdout
    result = refseg("service", "status", "--folder", folder)
    assert result.exit_code == 1
    assert f"is not up: refseg service up --folder {folder}" in result.stdout
    assert not folder.exists()


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


# --- keeping alive ---------------------------------------------------------------------------------------------------


def test_each_restart_waits_longer_until_a_part_has_done_well() -> None:
    backoff = Backoff(first=1, longest=10, well_after=60)
    assert [backoff.after(2) for _ in range(5)] == [1, 2, 4, 8, 10]
    assert backoff.after(61) == 1
    assert backoff.after(2) == 2


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Makes supervisors of programs that end with the test."""
    owner = str(tmp_path)

    def make(*parts: Part, on_change: Callable[[StackState], None] = lambda _: None) -> Supervisor:
        return Supervisor(parts, owner, on_change, backoff=lambda: Backoff(first=5, longest=20, well_after=60))

    yield make
    kill_marked(owner)


def _python(name: str, code: str, **options: object) -> Part:
    return Part(name, (sys.executable, "-S", "-c", code), **options)  # type: ignore[arg-type]


def _until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.02)


def test_a_part_that_dies_is_started_again_after_a_while(supervise: Callable[..., Supervisor]) -> None:
    heard: list[StackState] = []
    supervisor = supervise(_python("it", "import time; time.sleep(600)"), on_change=heard.append)
    supervisor.step(now=0)
    (runner,) = supervisor.runners
    first = runner.state.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    _until(lambda: runner.process is not None and runner.process.poll() is not None)
    supervisor.step(now=10)
    assert (runner.state.state, runner.state.pid) == ("restarting", None)
    supervisor.step(now=14.9)
    assert runner.state.pid is None
    supervisor.step(now=15)
    assert (runner.state.state, runner.state.restarts) == ("running", 1)
    assert runner.state.pid != first
    supervisor.stop()
    assert [state.parts[0].state for state in heard] == ["running", "restarting", "running", "stopped"]


@_needs_proc
def test_what_a_dead_part_has_started_is_ended(supervise: Callable[..., Supervisor], tmp_path: Path) -> None:
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {!r}], start_new_session=True)"
    supervisor = supervise(_python("worker", child.format("import time; time.sleep(600)") + "; time.sleep(600)"))
    supervisor.step(now=0)
    _until(lambda: len(of_part(str(tmp_path), "worker")) == 2)
    (runner,) = supervisor.runners
    assert runner.process is not None
    runner.process.kill()
    runner.process.wait()
    supervisor.step(now=1)
    assert of_part(str(tmp_path), "worker") == []


def test_a_program_that_is_missing_does_not_stop_the_others(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise(Part("gone", ("/no/such/program",)), _python("it", "import time; time.sleep(600)"))
    supervisor.step(now=0)
    assert [runner.state.state for runner in supervisor.runners] == ["restarting", "running"]
    supervisor.stop()


def test_a_part_waits_for_its_file(supervise: Callable[..., Supervisor], tmp_path: Path) -> None:
    supervisor = supervise(_python("it", "import time; time.sleep(600)", waits_for=str(tmp_path / "ready")))
    supervisor.step(now=0)
    assert supervisor.runners[0].state.state == "waiting"
    (tmp_path / "ready").touch()
    supervisor.step(now=1)
    assert supervisor.runners[0].state.state == "running"
    supervisor.stop()


@pytest.mark.slow
def test_a_part_that_ignores_sigterm_is_killed(supervise: Callable[..., Supervisor], tmp_path: Path) -> None:
    ready = tmp_path / "deaf"
    deaf = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(ready)!r}, 'w').close(); time.sleep(600)"
    supervisor = supervise(_python("deaf", deaf, grace_seconds=0.3))
    supervisor.step(now=0)
    _until(ready.exists)
    begun = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - begun < 200  # and not the 600 s that it would go on
    assert of_part(str(tmp_path)) == []


@pytest.mark.slow
def test_workers_end_before_the_server_that_they_report_to(
    supervise: Callable[..., Supervisor], tmp_path: Path
) -> None:
    code = (
        "import signal, sys, time;"
        "signal.signal(15, lambda *_: (open({log!r}, 'a').write({name!r} + ' '), sys.exit()));"
        "open({log!r} + {name!r}, 'w').close(); time.sleep(600)"
    )
    log = tmp_path / "log"
    parts = [
        _python(name, code.format(log=str(log), name=name), ends_first=name != "server") for name in ("server", "cpu0")
    ]
    supervisor = supervise(*parts)
    supervisor.step(now=0)
    _until(lambda: all(Path(f"{log}{part.name}").exists() for part in parts))
    supervisor.stop()
    assert log.read_text().split() == ["cpu0", "server"]


def test_a_long_log_is_emptied_and_one_copy_kept(
    supervise: Callable[..., Supervisor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.local_stack.supervisor._LOG_BYTES", 10)
    log = tmp_path / "it.log"
    log.write_text("more than ten bytes")
    supervise(_python("it", "", log=str(log))).runners[0].trim_log()
    assert log.read_text() == ""
    assert Path(f"{log}.1").read_text() == "more than ten bytes"


@_needs_proc
def test_down_ends_what_a_killed_supervisor_left(tmp_path: Path) -> None:
    folder = ServiceFolder(tmp_path / "s")
    folder.make()
    folder.write_private(folder.plan, to_json([_python("it", "import time; time.sleep(600)")]))
    supervisor = subprocess.Popen([sys.executable, "-m", "flows.local_stack.supervisor", str(folder.path)])
    _until(lambda: len(of_part(str(folder.path))) == 1)
    supervisor.kill()
    supervisor.wait()
    assert lifecycle.take_down(folder)
    assert of_part(str(folder.path)) == []


# --- parts -----------------------------------------------------------------------------------------------------------


def test_parts_survive_being_written() -> None:
    parts = [
        Part("a", ("b", "c"), {"D": "e", "F": None}, port=1, leaves=("g",)),
        worker_part("cpu0", "refseg-cpu"),
    ]
    assert from_json(to_json(parts)) == parts


def test_the_ui_asks_the_port_that_the_server_has_and_passwords_stay_out_of_the_command() -> None:
    url = "postgresql+asyncpg://me:secret@db/refseg"
    api_url = "http://box:4444/api"
    part = server_part(host="127.0.0.1", port=4444, api_url=api_url, home="h", database=url, login="me:secret", log="l")
    assert part.environment["PREFECT_SERVER_UI_API_URL"] == "http://box:4444/api"
    assert part.environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "secret" not in " ".join(part.command)


def test_a_gpu_worker_does_one_run_at_a_time_on_its_own_gpu() -> None:
    part = worker_part("gpu1", "refseg-gpu", gpu="1")
    assert part.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert part.environment["PREFECT_WORKER_HEARTBEAT_SECONDS"] == "10"
    assert part.command[-2:] == ("--limit", "1")
    assert part.command[part.command.index("--name") + 1].endswith("-gpu1")


def test_a_worker_without_a_gpu_is_not_called_after_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, options = ServiceFolder(tmp_path / "s"), StackOptions("127.0.0.1", 4999, None, 2, None, None)
    folder.make()
    for number, expected in ((0, ["label0", "label1"]), (2, ["gpu0", "gpu1"])):
        monkeypatch.setattr("tasks.models.loading.num_gpus", lambda number=number: number)
        assert [part.name for part in parts_of(folder, options, None)] == ["server", "cpu0", *expected]
    assert [part.name for part in worker_parts("refseg-gpu", "all", "box", [])] == ["label0"]
    assert [part.name for part in worker_parts("refseg-gpu", "all", "box", ["1"])] == ["gpu0"]


def test_groups_that_wait_for_a_worker_are_not_shown_as_late(tmp_path: Path) -> None:
    part = server_part(host="h", port=1, api_url="u", home="h", database=None, login=None, log="l")
    assert float(str(part.environment["PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS"])) >= 2 * 20 * 60


def test_what_the_user_has_set_of_prefect_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_WORKER_QUERY_SECONDS", "30")
    assert worker_part("gpu0", "refseg-gpu").environment["PREFECT_WORKER_QUERY_SECONDS"] == "30"


def test_gpus_keep_the_numbers_that_the_machine_gives_them() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"}, 2) == ["2", "3"]
    assert visible_gpus({}, 2) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, 0) == []
    assert choose_gpus("all", ["0", "1"]) == ["0", "1"]
    assert choose_gpus("1", ["0", "1"]) == ["1"]
    assert choose_gpus("all", []) == [None]
    with pytest.raises(ConfigurationError, match="there are 0, 1"):
        choose_gpus("0,7", ["0", "1"])
    with pytest.raises(ConfigurationError, match="shows none"):
        choose_gpus("0", [])


# --- folder and files ------------------------------------------------------------------------------------------------


def test_credentials_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    folder = ServiceFolder(tmp_path / "s")
    folder.make()
    first = seaweedfs.prepare(folder, host="127.0.0.1", port=8333)
    second = seaweedfs.prepare(folder, host="127.0.0.1", port=8334)
    assert first.account == second.account
    assert {name: port for name, port in first.ports.items() if name != "s3.port"}.items() <= second.ports.items()
    part = seaweedfs.s3_part(second, folder, "weed")
    assert first.account["secret"] not in " ".join(part.command)
    folder.write_exports(second.environment("127.0.0.1"))
    for file in (folder.s3 / "account.json", folder.s3 / "accounts.json", folder.env_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_log_is_shown_without_passwords(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("cannot reach postgresql+asyncpg://me:secret@db/refseg\n")
    shown = lifecycle._tail(str(log))
    assert "secret" not in shown
    assert "@db/refseg" in shown


def test_the_deployments_are_found_and_name_flows_that_exist() -> None:
    from prefect.utilities.importtools import import_object

    from flows.config.shipped_files import deployment_files

    content = yaml.safe_load((deployment_files() / "prefect.yaml").read_text())
    names = {(import_object(entry["entrypoint"]).name, entry["name"]) for entry in content["deployments"]}
    assert {("label shards", "gpu"), ("build bank", "gpu"), ("refseg", "label-now")} <= names


def test_the_ui_is_where_the_api_is() -> None:
    assert ui_address("http://box:4200/api") == "http://box:4200"
