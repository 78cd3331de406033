"""What the json objects of a store must say, so that a damaged one is named where it is read.

Here: their shapes, as far as they are read. Not here: reading them (`tasks/store/store.py`), and whether what they
say is true (`tasks/store/verify.py`).
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

SCHEMA_VERSION = 1
"""The version of a store's layout and manifests, counted up when older readers would misread them.

A manifest without one is of version 1. Another key needs no new version: readers ignore those that they do not know.
"""

SCHEMA_OF_PARTIAL_SHARDS = 2
"""The version of the manifest of a shard's first images alone: older readers would take the rest for labeled."""

Shape = Any
"""A type; a range of whole numbers; a mapping of keys to shapes (`str` stands for any keys); a list of one shape, for
any number of it; a tuple of a shape for each of the first, which more may follow.
"""

_COUNT = range(1 << 62)
PART: Shape = {"name": str, "table": str, "num_rows": _COUNT, "size": _COUNT, "sha256": str}
RECIPE: Shape = {
    **{"step": str, "folder": str, "version": int, "key": str},
    **{"settings": dict, "inputs": {str: str}, "weights": {str: str}},
    **{"refseg_version": str, "created": str, "created_by": str},
}
ARTIFACT: Shape = {**RECIPE, "tables": [PART]}
REQUEST: Shape = {"dataset": str}
EDIT: Shape = {"kind": str, "id": str}
PLAN: Shape = {"images_per_shard": _COUNT[1:], "tables": [PART]}
SHARD: Shape = {
    "images": {"ok": _COUNT, "empty": _COUNT, "unreadable": _COUNT},
    "created": str,
    "tables": (PART, PART),
}


def check_schema(manifest: Any) -> None:
    """Raises ValueError if a json object is of a newer schema than this version of refseg reads."""
    found = manifest.get("schema_version", 1) if isinstance(manifest, dict) else 1
    if isinstance(found, int) and found > SCHEMA_OF_PARTIAL_SHARDS:
        by = f" by refseg {manifest['refseg_version']}" if "refseg_version" in manifest else ""
        raise ValueError(
            f"was written{by} in version {found} of the store's schema; refseg {version('refseg')} reads versions up "
            f"to {SCHEMA_OF_PARTIAL_SHARDS}. Use a newer refseg for this store."
        )


def validate(value: Any, shape: Shape, place: str = "") -> str | None:
    """Returns where and how the value has not the shape, or None."""
    came, kind = type(value), shape if isinstance(shape, type) else _KINDS[type(shape)]
    if came is not kind:
        return f"expected {_NAMES[kind]}{place and f' as {place}'}, got {_NAMES[came]}"
    if isinstance(shape, range) and value not in shape:
        return f"expected at least {shape.start} as {place}, got {value}"
    if isinstance(shape, tuple) and len(value) < len(shape):
        return f"expected at least {len(shape)} entries in {place}, got {len(value)}"
    inner = f"{place}." if place else ""
    for key, part in _parts(value, shape):
        if isinstance(value, Mapping) and key not in value:
            return f"expected {inner}{key}"
        if found := validate(value[key], part, f"{inner}{key}"):
            return found
    return None


_KINDS: dict[type, type] = {dict: dict, list: list, tuple: list, range: int}
_NAMES: dict[type, str] = {
    **{dict: "an object", list: "a list", str: "a text", int: "a whole number"},
    **{float: "a fraction", bool: "true or false", type(None): "null"},
}


def _parts(value: Any, shape: Shape) -> list[tuple[Any, Shape]]:
    """Returns the keys or indices of what must be there, each with its shape."""
    if isinstance(shape, Mapping):
        return [(key, shape[str]) for key in value] if str in shape else list(shape.items())
    if isinstance(shape, list):
        return [(index, shape[0]) for index in range(len(value))]
    return list(enumerate(shape)) if isinstance(shape, tuple) else []
