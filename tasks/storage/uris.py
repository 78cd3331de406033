"""What an address (a path or URI) may show: never a password, nor the signature of a signed URL."""

import re
import shlex
from urllib.parse import parse_qsl, urlsplit, urlunsplit

_CHAINED = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_AFTER_PATH = re.compile(r"[?#]")
_SECRET_NAMES = re.compile(r"signature|^sig$|token|secret|passw|credential|access_?key|api_?key", re.IGNORECASE)


def redact(uri: str) -> str:
    """Returns the URI without user, password, query and fragment: fit for logs and manifests."""
    return "::".join(_redact_one(part) for part in _CHAINED.split(uri))


def typed(uri: object) -> str:
    """Returns an address as it is typed in a command that people are shown: quoted for the shell, without secrets."""
    return shlex.quote(redact(str(uri)))


def last_name(uri: str) -> str:
    """Returns what people call a place: the last part of its address, without secrets; '' where it has none."""
    return redact(uri).rstrip("/").rpartition("/")[2]


def check_address(uri: str) -> None:
    """Raises ValueError for a URI that is none, such as one with a bracket that is not closed."""
    for part in _CHAINED.split(uri):
        if "://" in part:
            urlsplit(part)


def scheme(uri: str) -> str:
    """Returns the URI's scheme, '' for a path; also of a URI that is otherwise none."""
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return uri.partition(":")[0].lower()


def _redact_one(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError:  # such as a bracket that is not closed
        return _redact_by_hand(uri)
    if not parts.scheme or not parts.netloc:
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _redact_by_hand(uri: str) -> str:
    start, sign, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return start + sign + _AFTER_PATH.split(host.rpartition("@")[2] + slash + path, maxsplit=1)[0]


def holds_credentials(uri: str) -> bool:
    """Returns whether the URI carries a user, a password, or the signature or token of a signed URL."""
    return holds_user(uri) or any(_is_signed(part) for part in _CHAINED.split(uri))


def holds_user(uri: str) -> bool:
    """Returns whether the URI carries a user or a password."""
    return any("@" in part.partition("//")[2].partition("/")[0] for part in _CHAINED.split(uri))


def _is_signed(uri: str) -> bool:
    if not scheme(uri):
        return False  # a path, in which '?' is a letter like others
    query = uri.partition("#")[0].partition("?")[2]
    return any(_SECRET_NAMES.search(name) for name, _ in parse_qsl(query, keep_blank_values=True))
