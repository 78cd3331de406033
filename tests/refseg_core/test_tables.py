"""Every stored table comes back from Arrow and Parquet exactly as it went, whatever it holds."""

import dataclasses
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core import tables as module
from refseg_core.masks.rle import Rle
from refseg_core.table_schema import RLE_TYPE, Table

TABLES: list[type[Table]] = [
    value
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Table) and value is not Table
]
_SIDES = st.integers(1, 2**31 - 1)
_RLES = st.builds(Rle, st.tuples(_SIDES, _SIDES), st.text(st.characters(min_codepoint=48, max_codepoint=111)))


def _values(arrow_type: pa.DataType, vector_size: int) -> st.SearchStrategy[Any]:
    simple = {RLE_TYPE: _RLES, pa.string(): st.text(), pa.binary(): st.binary(max_size=20), pa.bool_(): st.booleans()}
    if arrow_type in simple:
        return simple[arrow_type]
    if pa.types.is_integer(arrow_type):
        limit = 2 ** (arrow_type.bit_width - 1)
        return st.integers(-limit, limit - 1)
    if pa.types.is_floating(arrow_type):
        return st.floats(allow_nan=False, width=arrow_type.bit_width)
    size = arrow_type.list_size if pa.types.is_fixed_size_list(arrow_type) else vector_size
    return st.lists(_values(arrow_type.value_type, vector_size), min_size=size, max_size=size)


@st.composite
def _tables(draw: st.DrawFn, table: type[Table]) -> Table:
    num_rows, vector_size = draw(st.integers(0, 4)), draw(st.integers(1, 5))
    columns = {}
    for field in dataclasses.fields(table):
        values = _values(field.metadata["arrow_type"], vector_size)
        if field.metadata["nullable"]:
            values = st.none() | values
        columns[field.name] = draw(st.lists(values, min_size=num_rows, max_size=num_rows))
    return table(**columns)


def _through_parquet(table: Table) -> Table:
    file = BytesIO()
    pq.write_table(table.to_arrow(), file, use_dictionary=False)
    return type(table).from_arrow(pq.read_table(BytesIO(file.getvalue())))


@settings(max_examples=100)
@given(st.sampled_from(TABLES).flatmap(_tables))
def test_tables_come_back_from_parquet_as_they_went(table: Table) -> None:
    back = _through_parquet(table)
    assert back.equals(table)
    for field in dataclasses.fields(table):
        before, after = getattr(table, field.name), getattr(back, field.name)
        assert before.dtype == after.dtype, field.name
        assert len(table) == 0 or before.shape == after.shape, field.name
        if before.dtype != object:
            assert before.tobytes() == after.tobytes(), field.name
        elif field.metadata["arrow_type"] in (RLE_TYPE, pa.string()):
            assert before.tolist() == after.tolist(), field.name
            assert [type(value) for value in before] == [type(value) for value in after], field.name


@settings(max_examples=50)
@given(st.sampled_from(TABLES).flatmap(_tables), st.integers(0, 4))
def test_cutting_and_joining_gives_the_same_table(table: Table, cut: int) -> None:
    assert type(table).concatenate([table[:cut], table[cut:]]).equals(table)
    assert len(table[:cut]) == min(cut, len(table))


@pytest.mark.parametrize("table", TABLES)
def test_every_column_says_what_it_means(table: type[Table]) -> None:
    assert table.__doc__
    for field in table.schema():
        assert len(field.metadata[b"description"].decode()) > 5, field.name
        if "box" in field.name or field.name in ("height", "width"):
            assert field.metadata[b"unit"] == b"px", field.name


@pytest.mark.parametrize("table", TABLES)
def test_boxes_say_their_convention_in_their_name(table: type[Table]) -> None:
    boxes = [name for name in table.schema().names if "box" in name]
    assert all(name.endswith(("_xyxy", "_xywh")) for name in boxes)
