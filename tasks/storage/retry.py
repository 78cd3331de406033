"""Retries calls to file systems, object stores and sites: the only retries outside of Prefect's.

A transient error is retried, with pauses that grow; any other becomes an error that says what to do. Not here: opening
anything (`tasks/storage/`), and retrying whole steps (`tasks/runtime/retried_task.py`).
"""

import errno
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from refseg_core.errors import ConfigurationError, NoSpaceError, NotFoundError, StoreError, brief, redact_text
from tasks.storage.uris import redact

log = logging.getLogger(__name__)
Result = TypeVar("Result")

ATTEMPTS_VARIABLE = "REFSEG_STORE_ATTEMPTS"
_ATTEMPTS = 8  # together they outlast a server that is gone for ten seconds
_FIRST_PAUSE_SECONDS = 0.2
_TOLD_AFTER = 3  # attempts, within about a second; before, nobody has to know
_LONGEST_PAUSE_SECONDS = 8.0

NOT_FOUND = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs", "gcsfs")  # packages
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "EROFS")
_NO_CREDENTIALS = (
    "no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or whatever the store asks for; for a public "
    "bucket set FSSPEC_S3_ANON=true."
)
_IMPOSSIBLE = {
    "ENAMETOOLONG": "the name is too long for the place, so no such object can be there. Shorten it.",
    "ELOOP": "is a link that leads back to itself. Correct the link.",
}
_FULL = ("ENOSPC", "EDQUOT")
_UNUSABLE = {
    "ENOSPC": "no space left. Make room, or choose another place; what is done is kept.",
    "EFBIG": (
        "the file would be larger than the place or the system allows. Choose another place, or raise the limit "
        "(`ulimit -f`); what is done is kept."
    ),
    "EMFILE": "too many files are open. Raise the limit (`ulimit -n`).",
    "EDQUOT": "the quota is used up. Make room, or choose another place; what is done is kept.",
    "NotImplementedError": "places of this kind cannot be used for that. Choose a folder or a bucket.",
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
    "InvalidBucketName": "no such bucket can exist. Check its name.",
    "ParamValidationError": "no such bucket can exist. Check its name.",
}


def with_retries(action: Callable[[], Result], uri: str, *, pause: Callable[[float], None] = time.sleep) -> Result:
    """Returns what the action returns, which is retried with growing pauses while it fails with a transient error.

    Only for actions that may be repeated after they have worked, since a lost reply looks like a failure. Raises
    StoreError for any other error of the place at once, and the last transient error unchanged.
    """

    attempts = _attempts()

    def log_error(state: RetryCallState) -> None:
        shown, why, number = redact(uri), reason(error_of(state)), state.attempt_number
        if number == _TOLD_AFTER:
            log.warning("%s: does not answer (%s); up to %d more attempts", shown, why, attempts - number)
        else:
            log.info("%s: %s; trying again", shown, why)

    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=lambda state: pause_seconds(state.attempt_number, first=_FIRST_PAUSE_SECONDS),
        retry=retry_if_exception(is_transient_error),
        before_sleep=log_error,
        sleep=pause,
        reraise=True,
    )
    try:
        return retrying(explained(uri)(action))
    except Exception as error:
        if is_transient_error(error):
            error.add_note(redact(uri))
        raise


def pause_seconds(failures: int, *, first: float) -> float:
    """Returns the seconds to wait after so many failures in a row: ever more, up to a limit, give or take a quarter."""
    longer: float = first * 2 ** (failures - 1)
    return min(longer, _LONGEST_PAUSE_SECONDS) * random.uniform(0.75, 1.25)


def error_of(state: RetryCallState) -> BaseException:
    """Returns the error that an attempt ended with."""
    error = state.outcome.exception() if state.outcome else None
    assert error is not None, "only attempts that failed are retried"
    return error


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Raises errors of a call that may not be repeated as `explain` does; transient ones are raised unchanged."""
    try:
        yield
    except Exception as error:
        explained_error = explain(error, uri)
        if explained_error is error:
            raise
        raise explained_error from error


def explain(error: Exception, uri: str) -> Exception:
    """Returns a StoreError that says what to do about an error; a transient one is returned unchanged."""
    shown, code = redact(uri), _code(error)
    if isinstance(error, NOT_FOUND):
        is_file = isinstance(error, NotADirectoryError)
        why = ": a file stands where a folder is needed" if is_file else ""
        return NotFoundError(f"{shown}: not found{why}. Check the path, or the bucket and prefix.")
    if code in _IMPOSSIBLE:
        return NotFoundError(f"{shown}: {_IMPOSSIBLE[code]}")
    if isinstance(error, PermissionError) or code in _DENIED:
        return StoreError(f"{shown}: access denied. Check the rights of the folder or the credentials of the bucket.")
    if isinstance(error, FileExistsError):
        return StoreError(f"{shown}: a file stands where a folder is needed. Choose another place.")
    if code in _UNUSABLE:
        return (NoSpaceError if code in _FULL else StoreError)(f"{shown}: {_UNUSABLE[code]}")
    return error


def place_of(error: OSError) -> str:
    """Returns the path that an error of the system is about, as far as it says."""
    name = error.filename2 or error.filename
    return str(name) if isinstance(name, str | PathLike) else next(iter(getattr(error, "__notes__", ())), "A file")


def is_transient_error(error: BaseException) -> bool:
    """Returns whether an error may go away: one of the system, the network or a client of an object store.

    Ours do not, and any other is a bug, or the user's.
    """
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS


def reason(error: BaseException) -> str:
    """Returns an error in one line, after the place whose retries failed, without secrets of addresses."""
    line = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]
    return ": ".join([*getattr(error, "__notes__", ())[:1], redact_text(line)])


def _code(error: Exception) -> str:
    """Returns a short name of an error: the system's for files, the service's or the library's for object stores."""
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, "")
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def _attempts() -> int:
    wanted = os.environ.get(ATTEMPTS_VARIABLE, str(_ATTEMPTS))
    if not wanted.isdecimal() or int(wanted) == 0:
        raise ConfigurationError(f"{ATTEMPTS_VARIABLE}: expected a whole number of at least 1, got {brief(wanted)}.")
    return int(wanted)
