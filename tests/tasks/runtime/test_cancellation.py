"""Work that is stopped: in whatever thread it is, it ends within the image that it is at."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from tasks.runtime.cancellation import (
    StoppedError,
    is_stopping,
    request_stop,
    request_stop_of,
    save_finished,
    saved_by,
    stopping_with_this,
    working_for,
)

_SECONDS = 30.0  # in which a thread has to get its turn


@pytest.fixture(autouse=True)
def _nothing_stays_stopped() -> Iterator[None]:
    yield
    with stopping_with_this():
        pass


class Work:
    """Images that another thread is at, each until it may go on."""

    def __init__(self) -> None:
        self.num_done = 0
        self.is_at_work, self.goes_on = Event(), Event()

    def __call__(self) -> None:
        while True:
            self.is_at_work.set()
            assert self.goes_on.wait(_SECONDS)
            self.num_done += 1
            if is_stopping():
                raise StoppedError


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_work_in_another_thread_stops_within_one_image(error: type[BaseException]) -> None:
    work = Work()
    with ThreadPoolExecutor() as threads:
        with pytest.raises(error), stopping_with_this():
            labeling: Future[None] = threads.submit(work)
            assert work.is_at_work.wait(_SECONDS)
            raise error
        work.goes_on.set()
        with pytest.raises(StoppedError):
            labeling.result(_SECONDS)
    assert work.num_done == 1


def test_a_block_that_ends_well_stops_nobody() -> None:
    with stopping_with_this():
        assert not is_stopping()
    assert not is_stopping()


def test_work_of_a_new_block_goes_on_after_one_that_was_stopped() -> None:
    with pytest.raises(KeyboardInterrupt), stopping_with_this():
        raise KeyboardInterrupt
    assert is_stopping()
    with stopping_with_this():
        assert not is_stopping()
        request_stop()
        assert is_stopping()


def test_a_run_of_another_process_stops_only_its_own_work() -> None:
    with ThreadPoolExecutor() as threads, working_for("stopped run"):
        assert not is_stopping()
        request_stop_of("stopped run")
        assert is_stopping()
        with working_for("another run"):
            assert not is_stopping()
        assert not threads.submit(is_stopping).result(_SECONDS), "a thread that works for no such run"
    assert not is_stopping()
    with working_for("stopped run"):
        assert is_stopping(), "what comes to it later"


def test_what_is_finished_is_saved_by_all_who_are_at_work_and_by_nobody_else() -> None:
    saved: list[str] = []
    with saved_by(lambda: saved.append("one")):
        with saved_by(lambda: saved.append("other")):
            save_finished()
        save_finished()
    save_finished()
    assert saved == ["one", "other", "one"]
