"""A document read through a window is what json reads at once, or is refused where json refuses it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.datasets.coco import json_stream
from refseg_core.datasets.coco.json_stream import JsonError, JsonReader

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


def _read(document: bytes, window: int) -> Any:
    """The document's only value: a list or object item by item, anything else as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_WINDOW", window)
        reader = JsonReader(document)
        value: Any
        match reader.peek():
            case "[":
                value = list(reader.items())
            case "{":
                value = {key: reader.value() for key in reader.members()}
            case _:
                value = reader.value()
        reader.end()
        return value


@pytest.mark.slow
@settings(max_examples=200)
@given(_VALUES, st.integers(1, 40), st.sampled_from([None, 0, 3]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16-le"]))
def test_any_value_is_read_as_it_was_written(value: Any, window: int, indent: int | None, encoding: str) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=False)
    assert _read(written.encode(encoding), window) == value


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*"[]{},:1-. ", '"a"', "null", "1e5", "\n"]), max_size=9).map("".join))
def test_what_json_refuses_is_refused(written: str) -> None:
    try:
        expected = json.loads(written)
    except ValueError:
        with pytest.raises(JsonError, match="near byte"):
            _read(written.encode(), 3)
    else:
        assert _read(written.encode(), 3) == expected
