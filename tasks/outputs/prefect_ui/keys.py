"""How what is published is called: by its store, so that the next run of a store publishes new versions of the same."""

import hashlib
import re
import unicodedata

from tasks.storage.uris import redact

_LONGEST_SLUG = 40
_HASH_DIGITS = 6


def artifact_name(store_uri: str) -> str:
    """Returns how keys of a store's artifacts begin: the last part of its address, and a hash of the whole."""
    address = redact(store_uri).rstrip("/\\")
    digest = hashlib.sha256(address.encode()).hexdigest()[:_HASH_DIGITS]
    last = re.split(r"[/\\]", address)[-1]
    return f"{slug(last) or 'store'}-{digest}"


def slug(text: str) -> str:
    """Returns the text in lowercase letters, digits and single dashes; '' where it has none of those."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:_LONGEST_SLUG].strip("-")
