"""A table declared by its columns: checked when built, read-only, and the same again after Arrow and Parquet."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refseg_core.masks.rle import Rle
from refseg_core.table_schema import RLE_TYPE, VECTOR_TYPE, Array, Table, column


@dataclass(frozen=True, eq=False)
class Boats(Table):
    """One column of every kind."""

    name: Array = column(pa.string(), "its name")
    crew: Array = column(pa.int32(), "people aboard", unit="persons")
    afloat: Array = column(pa.bool_(), "whether it floats")
    box: Array = column(pa.list_(pa.float64(), 4), "where it lies", unit="px")
    looks: Array = column(VECTOR_TYPE, "how it looks")
    outline: Array = column(RLE_TYPE, "its mask", nullable=True)
    length: Array = column(pa.float32(), "stem to stern, where known", unit="m", nullable=True)


@dataclass(frozen=True, eq=False)
class Ships(Boats):
    """The same columns under another name."""


_RLE = Rle((3, 5), "0f0")


def _columns(count: int = 3) -> dict[str, Any]:
    return {
        "name": np.array([f"boat {row}" for row in range(count)], dtype=object),
        "crew": np.arange(count, dtype=np.int32),
        "afloat": np.arange(count) % 2 == 0,
        "box": np.arange(4.0 * count).reshape(count, 4),
        "looks": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
        "outline": [_RLE if row % 2 else None for row in range(count)],
        "length": [None if row % 2 else row + 0.5 for row in range(count)],
    }


def _boats(count: int = 3, **others: Any) -> Boats:
    return Boats(**{**_columns(count), **others})


def _arrow(**others: pa.Array) -> pa.Table:
    table = _boats().to_arrow()
    for name, values in others.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def test_columns_have_their_declared_types_and_shapes() -> None:
    boats = _boats()
    assert len(boats) == 3
    types = {name: str(getattr(boats, name).dtype) for name in ("crew", "afloat", "box", "looks")}
    assert types == {"crew": "int32", "afloat": "bool", "box": "float64", "looks": "float32"}
    assert (boats.box.shape, boats.looks.shape) == ((3, 4), (3, 2))
    assert boats.name.dtype == boats.outline.dtype == boats.length.dtype == object
    assert boats.outline[1] == _RLE


def test_lists_do_as_columns() -> None:
    assert _boats(crew=[0, 1, 2], box=np.arange(12.0).reshape(3, 4).tolist()).equals(_boats())


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([2, 0, 2]), [2, 0, 2]),
        (np.array([], dtype=np.int64), []),
        (np.array([True, False, True]), [0, 2]),
        (np.zeros(3, dtype=bool), []),
    ],
)
def test_rows_are_taken_by_slice_index_or_mask(rows: Any, expected: list[int]) -> None:
    taken = _boats()[rows]
    assert type(taken) is Boats
    assert taken.crew.tolist() == expected
    assert taken.name.tolist() == [f"boat {row}" for row in expected]
    assert taken.box.tolist() == [_boats().box[row].tolist() for row in expected]


def test_rows_that_are_not_there_raise() -> None:
    with pytest.raises(IndexError):
        _boats()[np.array([3])]
    with pytest.raises(IndexError):
        _boats()[np.array([True, False])]


@pytest.mark.parametrize("name", list(_columns()))
def test_tables_are_read_only(name: str) -> None:
    boats = _boats()
    with pytest.raises(ValueError, match="read-only"):
        getattr(boats, name)[0] = getattr(boats, name)[1]
    with pytest.raises(AttributeError):
        setattr(boats, name, [])
    with pytest.raises(ValueError, match="read-only"):
        getattr(boats[1:], name)[0] = None


def test_a_table_keeps_its_own_copy() -> None:
    columns = _columns()
    boats = Boats(**columns)
    columns["crew"][:] = 99
    columns["name"][:] = "another"
    columns["box"][:] = -1
    assert boats.equals(_boats())


@pytest.mark.parametrize("name", list(_columns()))
def test_columns_of_another_length_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"Boats needs columns of one length.*'{name}': 2"):
        _boats(**{name: _columns(2)[name]})


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("box", np.zeros((3, 5)), r"Boats.box needs shape \[N, 4\], got \(3, 5\)"),
        ("box", np.zeros(3), "Boats.box has the wrong number of dimensions"),
        ("looks", np.zeros((3, 2, 1)), "Boats.looks has the wrong number of dimensions"),
        ("crew", np.zeros((3, 1)), "Boats.crew has the wrong number of dimensions"),
        ("crew", ["a", "b", "c"], "invalid literal"),
        ("name", ["a", None, "c"], "Boats.name must not have missing values"),
    ],
)
def test_wrong_values_are_refused(name: str, values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Boats(**{**_columns(), name: values})


@pytest.mark.parametrize("values", [[0, 1.5, 2], np.array([0, 1, 2**40]), [0, float("nan"), 2]])
def test_numbers_that_the_column_cannot_hold_are_refused_not_changed(values: object) -> None:
    with pytest.raises((ValueError, OverflowError)):
        _boats(crew=values)


def test_a_row_is_a_table_of_one() -> None:
    values = {name: values[1] for name, values in _columns().items()}
    assert Boats.row(**values).equals(_boats()[1:2])


def test_replacing_columns_leaves_the_others_and_is_checked_too() -> None:
    replaced = _boats().replace(crew=np.array([7, 8, 9]))
    assert replaced.crew.tolist() == [7, 8, 9]
    assert replaced.name.tolist() == _boats().name.tolist()
    with pytest.raises(ValueError, match="one length"):
        _boats().replace(crew=np.array([7]))


@pytest.mark.parametrize(
    "change",
    [
        lambda boats: boats.replace(name=["boat 0", "boat 1", "boat"]),
        lambda boats: boats.replace(crew=[0, 1, 3]),
        lambda boats: boats.replace(box=boats.box + 1e-9),
        lambda boats: boats.replace(looks=boats.looks[:, :1]),
        lambda boats: boats.replace(outline=[None, None, None]),
        lambda boats: boats.replace(length=[0.5, 0.0, 2.5]),
        lambda boats: boats[::-1],
        lambda boats: boats[:2],
        lambda boats: Ships.from_arrow(boats.to_arrow()),
    ],
)
def test_tables_that_differ_anywhere_are_not_equal(change: Callable[[Boats], Table]) -> None:
    assert _boats().equals(_boats())
    assert not change(_boats()).equals(_boats())
    assert not _boats().equals(change(_boats()))


def test_concatenation_keeps_all_rows_in_order() -> None:
    boats = _boats()
    assert Boats.concatenate([boats[:1], Boats.empty(), boats[1:]]).equals(boats)
    assert Boats.concatenate([]).equals(Boats.empty())


def test_vectors_of_different_lengths_are_never_mixed() -> None:
    """Two of two numbers and one of five could pass for three of three."""
    short, long = _boats(2), _boats(1, looks=np.arange(5).reshape(1, 5))
    with pytest.raises(ValueError, match="looks"):
        Boats.concatenate([short, long])
    ragged = pa.array([[1, 2], [3, 4], [5, 6, 7, 8, 9]], type=VECTOR_TYPE)
    with pytest.raises(ValueError, match="looks"):
        Boats.from_arrow(_arrow(looks=ragged))


def test_empty_tables_have_every_column() -> None:
    empty = Boats.empty()
    assert len(empty) == 0
    assert empty.box.shape == (0, 4)
    assert empty.looks.ndim == 2
    assert empty.crew.dtype == np.int32
    assert empty.equals(_boats()[:0])
    assert empty.equals(Boats.from_arrow(empty.to_arrow()))


def test_the_schema_says_what_each_column_means() -> None:
    schema = Boats.schema()
    assert schema.names == list(_columns())
    assert schema.field("crew").metadata == {b"description": b"people aboard", b"unit": b"persons"}
    assert schema.field("name").metadata == {b"description": b"its name"}
    assert [field.name for field in schema if field.nullable] == ["outline", "length"]
    assert _boats().to_arrow().schema.equals(schema, check_metadata=True)


def test_parquet_keeps_values_meanings_and_units() -> None:
    file = BytesIO()
    pq.write_table(_boats().to_arrow(), file)
    read = pq.read_table(BytesIO(file.getvalue()))
    assert Boats.from_arrow(read).equals(_boats())
    assert read.schema.field("box").metadata[b"unit"] == b"px"


def test_chunked_tables_are_read_as_one() -> None:
    chunks = pa.concat_tables([_boats(2).to_arrow(), _boats(3).to_arrow()])
    assert chunks["box"].num_chunks == 2
    assert len(Boats.from_arrow(chunks)) == 5


def test_the_order_of_stored_columns_and_further_ones_do_not_matter() -> None:
    table = _boats().to_arrow()
    shuffled = table.select(table.column_names[::-1]).append_column("color", pa.array(["red"] * 3))
    assert Boats.from_arrow(shuffled).equals(_boats())


def test_a_slice_of_a_stored_table_reads_its_own_rows() -> None:
    assert Boats.from_arrow(_boats().to_arrow().slice(1, 2)).equals(_boats()[1:])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("crew", pa.array(["many", "few", "none"])),
        ("crew", pa.array([0.5, 1.0, 2.0])),
        ("crew", pa.array([1, None, 2])),
        ("name", pa.array(["a", None, "c"])),
        ("box", pa.array([[1.0, 2.0]] * 3)),
        ("box", pa.array([1.0, 2.0, 3.0])),
        ("looks", pa.array(["a", "b", "c"])),
        ("looks", pa.array([[1.0, 2.0], None, [1.0, 2.0]])),
        ("outline", pa.array(["a", "b", "c"])),
    ],
)
def test_stored_columns_of_another_type_are_refused(name: str, values: pa.Array) -> None:
    with pytest.raises(ValueError):
        Boats.from_arrow(_arrow(**{name: values}))


@dataclass(frozen=True, eq=False)
class NewerBoats(Boats):
    """The same table in a later version, with more columns."""

    ports: Array = column(pa.int64(), "ports it called at", default=7)
    flag: Array = column(pa.string(), "its flag", default="none")
    shadow: Array = column(RLE_TYPE, "the mask of its shadow", nullable=True, default=None)
    keel: Array = column(pa.list_(pa.float64(), 2), "where its keel ends", unit="m", default=[0.5, 0.5])


def _stored(table: Table) -> pa.Table:
    buffer = BytesIO()
    pq.write_table(table.to_arrow(), buffer)
    return pq.read_table(buffer)


@pytest.mark.parametrize("count", [0, 3])
def test_columns_that_a_stored_table_lacks_have_their_default(count: int) -> None:
    read = NewerBoats.from_arrow(_stored(_boats(count)))
    assert read.name.tolist() == _boats(count).name.tolist()
    assert read.ports.tolist() == [7] * count
    assert read.ports.dtype == np.int64
    assert read.flag.tolist() == ["none"] * count
    assert read.shadow.tolist() == [None] * count
    assert read.keel.tolist() == [[0.5, 0.5]] * count
    assert read.equals(NewerBoats.from_arrow(_stored(read)))


def test_a_table_of_a_later_version_is_read_by_its_known_columns() -> None:
    newer = NewerBoats.from_arrow(_stored(_boats()))
    assert Boats.from_arrow(_stored(newer)).equals(_boats())


def test_a_default_is_no_value_of_a_new_table() -> None:
    with pytest.raises(TypeError, match="missing 4 required positional arguments: 'ports'"):
        NewerBoats(**_columns())


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match=r"Boats needs the columns \['name', 'crew'.*got \['name'\]"):
        Boats.from_arrow(_boats().to_arrow().select(["name"]))
