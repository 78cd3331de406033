"""Signals stop runs: what is finished is kept and said to be, and the same command goes on. Real processes, too."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from threading import Thread

import pytest
from prefect.exceptions import TerminationSignal

from flows.execution import stopping
from flows.execution.stopping import finishing_images, handled_by_this_process, stopped_by_signals, stopping_signal
from tasks.runtime.cancellation import is_stopping, saved_by, stopping_with_this
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.counts import count
from tests.support.crashes.killed_runs import (
    NUM_IMAGES,
    TABLES,
    Crashes,
    folder_as_one_table,
    rows_by_image,
    visible_names,
)
from tests.support.servers.prefect_server import PrefectServer, prefect_server

pytest_plugins = [
    "tests.support.crashes.crash_scenes",
    "tests.support.servers.stores",
    "tests.support.projects.tiny_project",
]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _nothing_stays_stopped() -> Iterator[None]:
    yield
    with stopping_with_this():
        pass


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which this process would have ended at once."""
    codes: list[int] = []
    monkeypatch.setattr(stopping.os, "_exit", codes.append)
    monkeypatch.setattr(stopping, "_SAME_SECONDS", 0)
    return codes


# --- a command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_interrupts_a_command_that_has_no_images_at_hand(number: int, ended: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        assert stopping_signal() is None
        signal.raise_signal(number)
    assert ended == []
    assert stopping_signal() is None


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_lets_the_images_at_hand_end_first(number: int, ended: list[int]) -> None:
    work: list[str] = []
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(), finishing_images():
        signal.raise_signal(number)
        assert is_stopping()
        assert stopping_signal() == number
        work.append("finished")
    assert (work, ended) == (["finished"], [])


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_second_signal_ends_a_command_at_once(number: int, ended: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(), finishing_images():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(number)
        assert ended == [128 + number]
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(number)
            assert ended == [128 + number] * 2


def test_the_same_signal_twice_is_one(monkeypatch: pytest.MonkeyPatch, ended: list[int]) -> None:
    """A process and its group may both get it, as from make."""
    monkeypatch.setattr(stopping, "_SAME_SECONDS", 60)
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(), finishing_images():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert ended == []


def test_a_signal_that_prefect_has_seen_to_and_sends_again_is_no_second_one(ended: list[int]) -> None:
    with pytest.raises(TerminationSignal), stopped_by_signals():
        try:
            raise TerminationSignal(signal.SIGTERM)
        except TerminationSignal:
            signal.raise_signal(signal.SIGTERM)
            assert stopping_signal() == signal.SIGTERM
            raise
    assert ended == []


# --- a worker's run --------------------------------------------------------------------------------------------------


def test_a_workers_run_ends_as_prefect_would_end_it_after_its_images(ended: list[int]) -> None:
    """Its SIGTERM may come twice: from the worker, and from what ends the worker with all that it started."""
    work: list[str] = []
    with pytest.raises(TerminationSignal), finishing_images():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        work.append("finished")
    assert (work, ended) == (["finished"], [])


def test_ctrl_c_without_a_command_can_be_repeated(ended: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), finishing_images():
        signal.raise_signal(signal.SIGINT)
        assert is_stopping()
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one interrupts")
    assert ended == []


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in _SIGNALS]
    with stopped_by_signals(), finishing_images():
        pass
    assert [signal.getsignal(number) for number in _SIGNALS] == before


def test_ctrl_c_does_not_reach_processes_that_this_one_sees_to() -> None:
    ask = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    said: list[bytes] = []
    with handled_by_this_process():
        thread = Thread(target=lambda: said.append(subprocess.check_output([sys.executable, "-c", ask])))
        thread.start()
    thread.join()
    assert said == [b"True\n"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_where_the_images_at_hand_take_long_what_is_finished_is_saved(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stopping, "IMAGE_SECONDS", 0.01)
    monkeypatch.setattr(stopping, "_LOOK_SECONDS", 0.01)
    saved: list[bool] = []

    def save() -> None:
        saved.append(True)
        raise TimeoutError("the store sleeps")

    with pytest.raises(TerminationSignal), finishing_images(), saved_by(save):
        signal.raise_signal(signal.SIGTERM)
        deadline = time.monotonic() + 150
        while len(caplog.messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert saved == [True]
    assert caplog.messages[0].startswith("Stopping when the images at hand are finished")
    assert "the store sleeps" in caplog.messages[1]


# --- processes -------------------------------------------------------------------------------------------------------

_MOMENTS = 20
_PAUSE = 0.3  # seconds for each image
_MOST_SECONDS = 300.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@contextmanager
def _running(config: Path, environment: dict[str, str], pause: float = _PAUSE) -> Iterator[subprocess.Popen[str]]:
    """`refseg run`, which notes beside its configuration when it begins an image."""
    crashing = [sys.executable, "-m", "tests.support.crashes.crashing"]
    process = subprocess.Popen(
        [*crashing, "command", str(pause), str(_begun(config)), "run", str(config)],
        cwd=Path(__file__).resolve().parents[3],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _begun(config: Path) -> Path:
    """The file to which a run adds a byte for each image that it begins to label."""
    return config.with_name("begun")


def _wait_until(process: subprocess.Popen[str], is_time: Callable[[], bool]) -> None:
    """Waits for the moment, or for the end of the process."""
    deadline = time.monotonic() + _MOST_SECONDS
    while not is_time() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _wait_for_moment(seed: int, process: subprocess.Popen[str], config: Path, store: str) -> None:
    """Waits for a random moment of the seed's part of a run: its bank, one of its images, or its end."""
    number, begun, later = seed * (NUM_IMAGES + 2) // _MOMENTS, _begun(config), Random(f"moment {seed}").uniform(0, 1)
    if number == 0:
        _wait_until(process, lambda: bool(visible_names(store)))
        time.sleep(later)
    else:
        _wait_until(process, lambda: begun.exists() and begun.stat().st_size >= min(number, NUM_IMAGES))
        time.sleep(_PAUSE * (later + (number > NUM_IMAGES)))


def _wait_for(process: subprocess.Popen[str], store: str, what: str) -> None:
    _wait_until(process, lambda: any(what in name for name in visible_names(store)))
    assert process.poll() is None, "it ended too early"


def _kept(said: str) -> int | None:
    """How many images the command said to have kept; None where it was stopped before or after it labeled."""
    if "\nStopped: what is finished is kept; the same command goes on.\n" in f"\n{said}":
        return None
    stopped = re.search(rf"^Stopped: (\d+) of {NUM_IMAGES} images kept; the same command goes on\.$", said, re.M)
    assert stopped, said
    return int(stopped[1])


def _assert_whole(crashes: Crashes, num_images: int | None) -> None:
    """So many images are labeled, each once and as by an undisturbed run; None: all or none."""
    assert verify_store(Store(crashes.store)).problems == []
    for table in TABLES:
        seen = rows_by_image(folder_as_one_table(crashes.store, table, crashes.scene.filesystem))
        assert {image: crashes.scene.undisturbed().rows[table].get(image) for image in seen} == seen
        assert len(seen) in ((0, NUM_IMAGES) if num_images is None else (num_images,))
    crashes.count_images(may_lack=num_images != NUM_IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(_MOMENTS))
def test_a_run_that_is_stopped_at_random_keeps_what_it_says_and_goes_on_exactly(
    seed: int, on_disk: Crashes, server: PrefectServer, tmp_path: Path
) -> None:
    generator, number = Random(f"stopped {seed}"), _SIGNALS[seed % 2]
    batches = {**on_disk.scene.content["batches"], "images_per_shard": generator.choice([3, 4, 10])}
    on_disk.scene.write_config(tmp_path / "run.yaml", store=on_disk.store, batches=batches)
    with _running(tmp_path / "run.yaml", server.environment) as process:
        _wait_for_moment(seed, process, tmp_path / "run.yaml", on_disk.store)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        said = process.communicate(timeout=_MOST_SECONDS)[1]
    if process.returncode == 0:
        kept: int | None = NUM_IMAGES
    else:
        assert process.returncode == 128 + number, said
        kept = _kept(said)
        assert "Traceback" not in said
        assert "Crash" not in said
    count("stop tests: commands stopped by a signal")
    count("stop tests: images kept", kept or 0)
    _assert_whole(on_disk, kept)
    on_disk.attempt()
    _assert_whole(on_disk, NUM_IMAGES)


@pytest.mark.slow
def test_a_second_signal_ends_a_run_at_once_and_leaves_it_whole(
    on_disk: Crashes, server: PrefectServer, tmp_path: Path
) -> None:
    config = on_disk.scene.write_config(tmp_path / "run.yaml", store=on_disk.store)
    with _running(config, server.environment, pause=30) as process:
        _wait_until(process, _begun(config).exists)
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert process.poll() is None, "the image at hand takes longer"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        said = process.communicate(timeout=_MOST_SECONDS)[1]
    assert process.returncode == 130
    assert said.endswith("\nEnded at once: what was saved before is kept; the same command goes on.\n")
    assert time.monotonic() - began < 20, "less than the image takes yet"
    _assert_whole(on_disk, 0)
    on_disk.attempt()
    _assert_whole(on_disk, NUM_IMAGES)


def _with_home(home: Path) -> list[str]:
    """The commands of all processes that have Prefect's home there."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and f"PREFECT_HOME={home}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [*_SIGNALS, signal.SIGKILL])
def test_no_temporary_server_outlives_the_command_or_ends_before_it(
    number: int, on_disk: Crashes, tmp_path: Path
) -> None:
    config, home = on_disk.scene.write_config(tmp_path / "run.yaml", store=on_disk.store), tmp_path / "prefect"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    with _running(config, {**environment, "PREFECT_HOME": str(home)}) as process:
        _wait_for(process, on_disk.store, "/plans/0000.json")
        assert sum("flows.execution.temporary_server" in command for command in _with_home(home)) == 1
        time.sleep(1)
        os.killpg(process.pid, number)
        said = process.communicate(timeout=_MOST_SECONDS)[1]
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in said
    if number != signal.SIGKILL:
        _assert_whole(on_disk, _kept(said))
    deadline = time.monotonic() + 150
    while _with_home(home):
        assert time.monotonic() < deadline, _with_home(home)
        time.sleep(0.1)
