"""Tables become Parquet files that are equal where the tables are, and come back equal."""

import io
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.errors import StoreError
from refseg_core.tables import Detections, LabeledImages, Prototypes
from tasks.store.parquet import notes_of_parquet, rows_of_parquet, stream_parquet, table_from_parquet, table_to_parquet
from tests.support.samples import images_table, labels_of


def _labeled(image_ids: list[str]) -> LabeledImages:
    return LabeledImages.concatenate(
        [
            LabeledImages.row(
                image_id=image_id,
                version="1",
                status="unreadable",
                error=f"no {image_id}",
                height=0,
                width=0,
                num_proposals=0,
                num_detections=0,
                num_prompts=0,
                max_similarity=None,
                seconds=0,
            )
            for image_id in image_ids
        ]
    )


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
@settings(max_examples=20)
def test_equal_tables_have_equal_bytes_and_come_back_equal(image_ids: list[str]) -> None:
    table = _labeled(image_ids)
    data = table_to_parquet(table)
    assert data == table_to_parquet(_labeled(image_ids))
    assert table_from_parquet(data, LabeledImages).equals(table)


def test_vectors_take_little_more_than_their_raw_size() -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 384)).astype(np.float32)
    count = np.arange(200)
    table = Prototypes(category_id=count, num_references=count, prototype=vectors)
    assert len(table_to_parquet(table)) < 1.05 * vectors.nbytes + 10_000


def test_a_file_carries_its_notes_beside_the_meaning_of_its_columns() -> None:
    data = table_to_parquet(_labeled(["a"]), {"note": "für später"})
    assert notes_of_parquet(data) == {"note": "für später"}
    assert notes_of_parquet(table_to_parquet(_labeled(["a"]))) == {}
    for schema in (pq.read_schema(io.BytesIO(file)) for file in (data, table_to_parquet(_labeled(["a"])))):
        assert schema.field("seconds").metadata[b"unit"] == b"s"
        assert schema.field("status").metadata[b"description"].startswith(b"'ok'")


@pytest.mark.parametrize("num_tables", [0, 1, 5])
def test_many_tables_stream_into_one_file(num_tables: int) -> None:
    tables = [labels_of(images_table(f"{number}", "b"))[0] for number in range(num_tables)]
    data = b"".join(stream_parquet(tables, Detections))
    assert table_from_parquet(data, Detections).equals(Detections.concatenate(tables))


def test_a_table_leaves_the_stream_before_the_next_is_asked_for() -> None:
    asked = 0

    def tables() -> Iterator[Detections]:
        nonlocal asked
        for _ in range(3):
            asked += 1
            yield labels_of(images_table("a"))[0]

    pieces = stream_parquet(tables(), Detections)
    assert next(pieces)
    assert asked == 1


@pytest.mark.parametrize("data", [b"", b"PAR1", b"{}", table_to_parquet(_labeled(["a"]))[:-9]], ids=len)
def test_what_is_no_such_table_is_a_store_error(data: bytes) -> None:
    with pytest.raises(StoreError, match="expected a Parquet table of LabeledImages"):
        table_from_parquet(data, LabeledImages)
    with pytest.raises(StoreError, match="expected a Parquet table of Detections"):
        table_from_parquet(table_to_parquet(_labeled(["a"])), Detections)


@given(st.lists(st.integers(0, 5), max_size=8))
@pytest.mark.slow
def test_some_rows_are_those_of_the_whole_table(rows: list[int]) -> None:
    detections, _ = labels_of(images_table(*"abcdef"))
    read = rows_of_parquet(table_to_parquet(detections), Detections)
    wanted = np.array(rows, dtype=np.int64)
    assert read(wanted).equals(detections[wanted])


def test_rows_of_a_damaged_file_or_of_another_table_are_refused_before_any_is_read() -> None:
    detections, labeled = labels_of(images_table("a"))
    for data in (table_to_parquet(detections)[:-9], table_to_parquet(labeled)):
        with pytest.raises(StoreError, match="expected a Parquet table of Detections"):
            rows_of_parquet(data, Detections)
