"""Tables as Parquet, and back. The only door to `pyarrow.parquet`."""

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from refseg_core.errors import StoreError
from refseg_core.table_schema import VECTOR_TYPE, Array, Table

_ROWS_AT_ONCE = 256
_PIECE = 1 << 20  # bytes

AnyTable = TypeVar("AnyTable", bound=Table)


def table_to_parquet(table: Table, notes: Mapping[str, str] | None = None) -> bytes:
    """Returns the table as a Parquet file; equal tables with equal notes give equal bytes.

    `notes` go into the file's key-value metadata, next to the meaning and unit of each column.
    """
    arrow = table.to_arrow()
    arrow = arrow.replace_schema_metadata(dict(notes)) if notes else arrow
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, **_options(arrow.schema))
    return buffer.getvalue()


def table_from_parquet(data: bytes, table: type[AnyTable]) -> AnyTable:
    """Reads a table back. Raises StoreError where the bytes are no such table."""
    with _explaining(table):
        return table.from_arrow(_arrow(data))


def rows_of_parquet(data: bytes, table: type[AnyTable]) -> Callable[[Array], AnyTable]:
    """Returns what makes a table of some rows, int64 [n], of a Parquet file: if they are few far quicker than of all.

    Raises StoreError where the bytes are no such table.
    """
    with _explaining(table):
        arrow = _arrow(data)
        table.from_arrow(arrow[:0])
    return lambda rows: table.from_arrow(arrow.take(pa.array(rows, type=pa.int64())))


def _arrow(data: bytes) -> pa.Table:
    # Without Arrow's own threads: a process that ends while they start is aborted, one time in twenty or forty.
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


@contextmanager
def _explaining(table: type[Table]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:
        raise StoreError(f"damaged: expected a Parquet table of {table.__name__} ({error}).") from error


def notes_of_parquet(data: bytes) -> dict[str, str]:
    """Returns the notes that a Parquet file carries."""
    metadata = pq.read_schema(io.BytesIO(data)).metadata or {}
    return {name.decode(): value.decode() for name, value in metadata.items()}


def stream_parquet(tables: Iterable[AnyTable], kind: type[AnyTable]) -> Iterator[bytes]:
    """Yields one Parquet file of many tables, in pieces, one row group per table; never holds all of them."""
    schema = kind.schema()
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, **_options(schema)) as writer:
        for table in tables:
            writer.write_table(table.to_arrow())
            yield sink.take()
    yield sink.take()


class RowFile:
    """A Parquet file that grows by rows, in a temporary file until it is whole: several can grow at once."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed at the end of the block
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row, with a value for every column."""
        self._rows.append(row)
        if len(self._rows) == _ROWS_AT_ONCE:
            self._write()

    def content(self) -> Iterator[bytes]:
        """Ends the file and yields it in pieces."""
        self._write()
        self._writer.close()
        self._file.seek(0)
        return iter(lambda: self._file.read(_PIECE), b"")

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()


class _Sink(io.RawIOBase):
    """A file for a writer that only appends: what it wrote can be taken away piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        piece = bytes(data)
        self._pieces.append(piece)
        self._position += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """Returns what was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


def _options(schema: pa.Schema) -> dict[str, object]:
    # Dictionaries help repeated ids and names; on vectors and masks they only add to the size. Bytes of equal place in
    # the numbers of vectors lie together, which saves a tenth of what is kept of images.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    vectors = [f"{field.name}.list.element" for field in schema if field.type == VECTOR_TYPE]
    return {
        "compression": "zstd",
        "use_dictionary": texts,
        "column_encoding": dict.fromkeys(vectors, "BYTE_STREAM_SPLIT") or None,
    }
