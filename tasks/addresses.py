"""What an address (a path or URI) may show: never a password."""

import re
from urllib.parse import urlsplit, urlunsplit

_CHAINED = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")


def redact(uri: str) -> str:
    """The URI without user, password, query and fragment: fit for logs and manifests."""
    return "::".join(_redact_one(part) for part in _CHAINED.split(uri))


def _redact_one(uri: str) -> str:
    parts = urlsplit(uri)
    if not parts.scheme or not parts.netloc:
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def holds_credentials(uri: str) -> bool:
    """Whether the URI carries a user or password."""
    return any("@" in urlsplit(part).netloc for part in _CHAINED.split(uri))
