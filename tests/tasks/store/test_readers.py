"""The lines that the guide to results gives for reading the tables do so, with each of the tools it names."""

import re
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.dataset
import pytest

from tasks.store.store import Store
from tests.support.label_stores import LabelStore
from tests.support.servers.object_stores import Moto

pytest_plugins = ["tests.support.servers.stores"]

_GUIDE = (Path(__file__).resolve().parents[3] / "deployments" / "guides" / "results.md").read_text(encoding="utf-8")
_FOLDER = "runs/boats/labels/<key>/detections"
_NAMES = list("abcde")


@pytest.fixture
def labels(tmp_path: Path) -> LabelStore:
    labels = LabelStore(Store(str(tmp_path / "store")))
    labels.night(*_NAMES)
    return labels


def _line(tool: str) -> str:
    """The guide's line that reads detections with a tool."""
    (line,) = re.findall(rf"^\w+ = ({tool}\..*?)(?:  #.*)?$", _GUIDE, flags=re.M)
    assert _FOLDER in line
    return str(line)


def _run(tool: str, module: Any, folder: str) -> Any:
    return eval(_line(tool).replace(_FOLDER, folder), {tool.partition(".")[0]: module})


def test_pandas_reads_detections(labels: LabelStore) -> None:
    table = _run("pd", pd, labels.store.folder.join(f"{labels.run.root}/detections"))
    assert sorted(table.image_id) == _NAMES
    assert table.mask_rle[0]["size"].tolist() == [4, 4]


def test_duckdb_reads_detections(labels: LabelStore) -> None:
    found = _run("duckdb", duckdb, labels.store.folder.join(f"{labels.run.root}/detections"))
    assert found.fetchall() == [(1, 5)]


def test_pyarrow_reads_detections(labels: LabelStore) -> None:
    table = _run("pyarrow", pyarrow, labels.store.folder.join(f"{labels.run.root}/detections"))
    assert sorted(table["image_id"].to_pylist()) == _NAMES
    assert table.schema.field("box_xyxy").metadata[b"unit"] == b"px"


@pytest.mark.slow
def test_pandas_reads_detections_from_a_bucket(s3: Moto) -> None:
    labels = LabelStore(Store(f"s3://{s3.new_bucket()}/{uuid.uuid4().hex}"))
    labels.night(*_NAMES)
    assert sorted(_run("pd", pd, labels.store.folder.join(f"{labels.run.root}/detections")).image_id) == _NAMES


@pytest.mark.parametrize("left", [".0000-00009.parquet.0123", ".0000-00000.parquet.4567"])
def test_what_a_killed_writer_left_unfinished_is_not_read(labels: LabelStore, left: str) -> None:
    labels.store.folder.create(f"{labels.run.root}/detections/{left}", b"half a table")
    test_pandas_reads_detections(labels)
    test_duckdb_reads_detections(labels)
    test_pyarrow_reads_detections(labels)
