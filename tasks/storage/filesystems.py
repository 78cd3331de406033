"""From a URI to a file system of fsspec and a path in it, with the options that our promises need."""

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from refseg_core.errors import StoreError, redact_text
from tasks.storage.uris import check_address, holds_user, redact, scheme

# Listings are never cached: another process may have added objects since.
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"use_listings_cache": False, "default_fill_cache": False}}
_CLIENT_SETTINGS: dict[str, dict[str, Any]] = {"s3": {"retries": {"total_max_attempts": 1}}}  # `retry.py` retries


def resolve(uri: str) -> tuple[Any, str]:
    """Returns the file system and the path in it. Raises StoreError where the address is none, or means no place."""
    try:
        uri.encode()
        check_address(uri)
        if kind_of(uri) == "s3" and holds_user(uri):  # which would be taken for a part of the bucket's name
            raise ValueError("it holds a user or password, which S3 takes from the environment alone")
        filesystem, path = fsspec.core.url_to_fs(uri, **_options(kind_of(uri)))
        if isinstance(filesystem, LocalFileSystem) and (reason := _misread(uri)):
            raise ValueError(reason)
    except (ValueError, ImportError, OSError) as error:
        printable = redact(uri).encode("unicode_escape" if "\0" in uri else "utf-8", "backslashreplace").decode()
        raise StoreError(
            f"{printable}: cannot be opened: {redact_text(str(error))}. Use a path or a URI such as file:///folder "
            "or s3://bucket/prefix."
        ) from error
    return filesystem, path


def kind_of(uri: str) -> str:
    """Returns the scheme, one name for each kind of place."""
    name = scheme(uri)
    return "s3" if name == "s3a" else name


def _options(name: str) -> dict[str, Any]:
    options = dict(_OPTIONS.get(name, {}))
    if name in _CLIENT_SETTINGS:
        of_the_user = fsspec.config.conf.get(name, {}).get("config_kwargs", {})
        options["config_kwargs"] = {**of_the_user, **_CLIENT_SETTINGS[name]}
    return options


def _misread(uri: str) -> str | None:
    """Returns why fsspec would take the address for a local path that was not meant, or None."""
    if not uri or "\0" in uri:
        return "it is empty or holds a NUL character"
    if "::" in uri:
        return "'::' joins the names of file systems, as in simplecache::s3://bucket, and no path may hold it"
    if scheme(uri) == "file" and not uri.removeprefix("file://").startswith("/"):
        return "file:// needs a whole path, and no host"
    return None


def protocols(filesystem: Any) -> set[str]:
    """Returns the schemes that lead to a file system."""
    named = filesystem.protocol
    return {named} if isinstance(named, str) else set(named)
