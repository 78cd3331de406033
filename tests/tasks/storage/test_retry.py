"""Transient errors are retried, lasting ones are explained at once, and bugs are neither."""

import errno
from collections.abc import Iterable

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from refseg_core.errors import ConfigurationError, NotFoundError, StoreError
from tasks.storage.retry import ATTEMPTS_VARIABLE, is_transient_error, reason, with_retries

_URI = "s3://user:hunter2@bucket/prefix"


class Fails:
    """An action that fails in the given ways, one after the other, and then works."""

    def __init__(self, faults: Iterable[Exception]) -> None:
        self.faults = list(faults)
        self.calls = 0
        self.pauses: list[float] = []

    def __call__(self) -> str:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        return "done"

    def run(self) -> str:
        return with_retries(self, _URI, pause=self.pauses.append)


_PASSING = [
    TimeoutError("the network sleeps"),
    ConnectionResetError("peer"),
    OSError(errno.EBUSY, "SlowDown"),
    OSError(errno.EIO, "internal error"),
    EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
]


@pytest.mark.parametrize("fault", _PASSING, ids=reason)
def test_a_passing_fault_is_tried_again_until_it_is_over(fault: Exception) -> None:
    action = Fails([fault] * 3)
    assert action.run() == "done"
    assert action.calls == 4


def test_each_pause_is_longer_up_to_a_limit_and_all_of_them_outlast_ten_seconds() -> None:
    action = Fails([TimeoutError()] * 99)
    with pytest.raises(TimeoutError):
        action.run()
    assert action.calls == len(action.pauses) + 1
    assert 10 < sum(action.pauses) < 60
    assert max(action.pauses) <= 10
    assert all(later > earlier for earlier, later in zip(action.pauses, action.pauses[1:-1], strict=False))


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (FileNotFoundError("a"), NotFoundError, "not found"),
        (NotADirectoryError("a"), NotFoundError, "not found: a file stands where a folder is needed"),
        (PermissionError("a"), StoreError, "access denied"),
        (OSError(errno.EROFS, "a"), StoreError, "access denied"),
        (NoCredentialsError(), StoreError, "no credentials.*for a public bucket set FSSPEC_S3_ANON=true"),
        (OSError(errno.ENOSPC, "a"), StoreError, "no space left"),
        (OSError(errno.EDQUOT, "a"), StoreError, "quota"),
        (OSError(errno.EFBIG, "a"), StoreError, "larger than the place or the system allows"),
        (OSError(errno.EMFILE, "a"), StoreError, "too many files are open"),
        (OSError(errno.ENAMETOOLONG, "a"), NotFoundError, "name is too long"),
        (FileExistsError("a"), StoreError, "a file stands where a folder is needed"),
    ],
)
def test_a_lasting_fault_says_at_once_where_and_what_to_do(fault: Exception, kind: type, words: str) -> None:
    action = Fails([fault])
    with pytest.raises(kind, match=rf"s3://bucket/prefix: .*{words}") as caught:
        action.run()
    assert action.calls == 1
    assert caught.value.__cause__ is fault
    assert "hunter2" not in str(caught.value)


def test_a_place_that_does_not_answer_is_told_once_while_it_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    assert Fails([TimeoutError("slow")] * 2).run() == "done"
    assert not caplog.records
    assert Fails([TimeoutError("slow")] * 5).run() == "done"
    assert caplog.messages == ["s3://bucket/prefix: does not answer (TimeoutError: slow); up to 5 more attempts"]


def test_a_fault_that_does_not_pass_is_told_in_a_line_with_its_place() -> None:
    action = Fails([ConnectionResetError("by peer\nwith details")] * 99)
    with pytest.raises(ConnectionResetError) as caught:
        action.run()
    assert reason(caught.value) == "s3://bucket/prefix: ConnectionResetError: by peer"


def test_an_address_within_a_message_is_told_without_its_secrets() -> None:
    fault = EndpointConnectionError(endpoint_url="http://user:hunter2@host:1/bucket?list&X-Amz-Signature=hunter2")
    assert reason(fault) == ('EndpointConnectionError: Could not connect to the endpoint URL: "http://host:1/bucket"')


def test_faults_of_the_world_may_pass_and_bugs_and_our_own_errors_do_not() -> None:
    assert all(map(is_transient_error, _PASSING))
    assert not any(map(is_transient_error, [StoreError("denied"), KeyError("a"), RuntimeError("a")]))


@pytest.mark.parametrize("bug", [ZeroDivisionError("a"), KeyError("a"), RuntimeError("a")], ids=reason)
def test_a_bug_is_raised_as_it_is_and_not_repeated(bug: Exception) -> None:
    action = Fails([bug])
    with pytest.raises(type(bug)):
        action.run()
    assert action.calls == 1


def test_patience_is_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ATTEMPTS_VARIABLE, "2")
    action = Fails([TimeoutError()] * 9)
    with pytest.raises(TimeoutError):
        action.run()
    assert action.calls == 2


@pytest.mark.parametrize("wanted", ["0", "-1", "two", "1.5", ""])
def test_a_senseless_patience_is_an_error_that_names_the_variable(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ATTEMPTS_VARIABLE, wanted)
    with pytest.raises(ConfigurationError, match=rf"{ATTEMPTS_VARIABLE}: expected .* got {wanted!r}"):
        Fails([]).run()
