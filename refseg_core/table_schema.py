"""What a table is: a frozen dataclass whose fields are its Parquet columns.

One `column(...)` per field is the single truth for the Arrow schema, the Parquet field metadata, the checks at
construction and the documentation. The tables themselves are in `refseg_core/tables.py`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refseg_core.masks.rle import Rle

RLE_TYPE = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
VECTOR_TYPE = pa.list_(pa.float32())

Array = npt.NDArray[Any]


_REQUIRED = object()


def column(
    arrow_type: pa.DataType, doc: str, *, unit: str | None = None, nullable: bool = False, default: Any = _REQUIRED
) -> Any:
    """Declares a column: its Arrow type, what it means, its unit and whether values may be missing.

    `default` is what every row has in tables that were stored before the column existed: a column that is added to a
    table needs one.
    In memory a column of N rows is: numbers and booleans [N]; fixed-size lists and vectors [N, size]; strings,
    bytes, masks (`Rle`) and anything nullable an object array [N], with None for a missing value.
    """
    metadata = {"arrow_type": arrow_type, "doc": doc, "unit": unit, "nullable": nullable, "default": default}
    return dataclasses.field(metadata=metadata)


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length. Read-only; indexing by slice, index array or boolean mask gives the same type."""

    def __post_init__(self) -> None:
        lengths: dict[str, int] = {}
        for field in dataclasses.fields(self):
            values = _checked(type(self).__name__, field, getattr(self, field.name))
            values.flags.writeable = False
            object.__setattr__(self, field.name, values)
            lengths[field.name] = len(values)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{type(self).__name__} needs columns of one length, got {lengths}")

    def __len__(self) -> int:
        return len(getattr(self, dataclasses.fields(self)[0].name))

    def __getitem__(self, rows: slice | Array) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})

    def equals(self, other: "Table") -> bool:
        """Returns whether the other table has the same type and the same rows in the same order."""
        return type(self) is type(other) and bool(self.to_arrow().equals(other.to_arrow()))

    def replace(self, **columns: Array) -> Self:
        """Returns the same rows with some columns replaced."""
        return dataclasses.replace(self, **columns)

    @classmethod
    @functools.cache
    def empty(cls) -> Self:
        """Returns a table without rows."""
        return cls.from_arrow(cls.schema().empty_table())

    @classmethod
    def row(cls, **values: Any) -> Self:
        """Returns a table of one row."""
        return cls(**{name: _object_array([value]) for name, value in values.items()})

    @classmethod
    def concatenate(cls, tables: Sequence[Self]) -> Self:
        """Returns the rows of all tables, one after the other."""
        return cls.from_arrow(pa.concat_tables([cls.schema().empty_table(), *(t.to_arrow() for t in tables)]))

    @classmethod
    @functools.cache
    def schema(cls) -> pa.Schema:
        """Returns the Arrow schema, with each column's meaning and unit in its metadata."""
        return pa.schema([_arrow_field(field) for field in dataclasses.fields(cls)])

    def to_arrow(self) -> pa.Table:
        """Returns the table as Arrow, in the class's schema."""
        schema = self.schema()
        arrays = [_to_arrow(getattr(self, field.name), field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Self:
        """Reads a table back: a column that it lacks has its default, and columns that are not known are left out.

        Raises ValueError if a column without a default is missing, or if one has another type.
        """
        schema = cls.schema()
        missing = [field for field in dataclasses.fields(cls) if field.name not in table.column_names]
        if any(field.metadata["default"] is _REQUIRED for field in missing):
            raise ValueError(f"{cls.__name__} needs the columns {schema.names}, got {table.column_names}")
        for field in missing:
            values = pa.array([field.metadata["default"]] * len(table), type=field.metadata["arrow_type"])
            table = table.append_column(field.name, values)
        try:
            columns = table.select(schema.names).cast(schema).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{cls.__name__} cannot be read from columns of other types: {error}") from error
        return cls(**{field.name: _from_arrow(columns[field.name], field) for field in schema})


def _arrow_field(field: "dataclasses.Field[Any]") -> pa.Field:
    described = {"description": field.metadata["doc"]}
    if field.metadata["unit"]:
        described["unit"] = field.metadata["unit"]
    return pa.field(field.name, field.metadata["arrow_type"], nullable=field.metadata["nullable"], metadata=described)


def _is_object(arrow_type: pa.DataType, nullable: bool) -> bool:
    return nullable or pa.types.is_string(arrow_type) or pa.types.is_binary(arrow_type) or arrow_type == RLE_TYPE


def _checked(table: str, field: "dataclasses.Field[Any]", values: Any) -> Array:
    arrow_type, nullable = field.metadata["arrow_type"], field.metadata["nullable"]
    if _is_object(arrow_type, nullable):
        array = _object_array(values)
        if not nullable and any(value is None for value in array):
            raise ValueError(f"{table}.{field.name} must not have missing values")
        return array
    is_list = pa.types.is_fixed_size_list(arrow_type) or pa.types.is_list(arrow_type)
    if isinstance(values, np.ndarray) and values.dtype == object:
        values = values.tolist()
    array = _converted(f"{table}.{field.name}", values, arrow_type.value_type if is_list else arrow_type)
    if is_list and len(array) == 0:
        size = arrow_type.list_size if pa.types.is_fixed_size_list(arrow_type) else 0
        array = array.reshape(0, size)
    if array.ndim != (2 if is_list else 1):
        raise ValueError(f"{table}.{field.name} has the wrong number of dimensions: shape {array.shape}")
    if pa.types.is_fixed_size_list(arrow_type) and array.shape[1] != arrow_type.list_size:
        raise ValueError(f"{table}.{field.name} needs shape [N, {arrow_type.list_size}], got {array.shape}")
    return array


def _converted(name: str, values: Any, arrow_type: pa.DataType) -> Array:
    dtype = np.dtype(arrow_type.to_pandas_dtype())
    array = np.array(values, dtype=dtype)
    if dtype.kind == "i" and not np.array_equal(array, np.asarray(values)):
        raise ValueError(f"{name} holds {arrow_type} numbers; some values do not fit it")
    return array


def _object_array(values: Any) -> Array:
    listed = list(values)
    return np.fromiter(listed, dtype=object, count=len(listed))


def _to_arrow(values: Array, arrow_type: pa.DataType) -> pa.Array:
    if arrow_type == RLE_TYPE:
        return _rles_to_arrow(values)
    if values.dtype == object:
        return pa.array(values.tolist(), type=arrow_type)
    if values.ndim == 1:
        return pa.array(values, type=arrow_type)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), type=arrow_type.value_type)
    if pa.types.is_fixed_size_list(arrow_type):
        return pa.FixedSizeListArray.from_arrays(flat, type=arrow_type)
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    return pa.ListArray.from_arrays(offsets, flat, type=arrow_type)


def _from_arrow(values: pa.ChunkedArray, field: pa.Field) -> Array:
    array = values.combine_chunks()
    array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    if field.type == RLE_TYPE:
        return _rles_from_arrow(array)
    if _is_object(field.type, field.nullable):
        return _object_array(array.to_pylist())
    if pa.types.is_fixed_size_list(field.type) or pa.types.is_list(field.type):
        if len(array.value_lengths().unique()) > 1:
            raise ValueError(f"the vectors of column {field.name!r} have different lengths")
        flat: Array = array.flatten().to_numpy(zero_copy_only=False)
        width = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 0
        return flat.reshape(len(array), -1 if len(array) else width)
    plain: Array = array.to_numpy(zero_copy_only=False)
    return plain


def _rles_to_arrow(rles: Array) -> pa.Array:
    """By parts: a dictionary per mask would take gigabytes for a million."""
    is_missing = np.array([rle is None for rle in rles], dtype=bool)
    sizes = np.array([(0, 0) if rle is None else rle.size for rle in rles], dtype=np.int32).reshape(-1)
    counts = pa.array(["" if rle is None else rle.counts for rle in rles], type=pa.string())
    parts = [pa.FixedSizeListArray.from_arrays(pa.array(sizes), type=RLE_TYPE.field("size").type), counts]
    return pa.StructArray.from_arrays(parts, fields=list(RLE_TYPE), mask=pa.array(is_missing))


def _rles_from_arrow(array: pa.Array) -> Array:
    present = array.drop_null()
    sizes = present.field("size").flatten().to_numpy(zero_copy_only=False).reshape(-1, 2).tolist()
    rles = np.full(len(array), None, dtype=object)
    rows = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False)).tolist()
    for row, (height, width), counts in zip(rows, sizes, present.field("counts").to_pylist(), strict=True):
        rles[row] = Rle((height, width), counts)
    return rles
