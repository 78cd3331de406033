"""The rows of the tables that are published: plain values in, plain rows out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refseg_core.analysis.label_statistics import CategoryStatistics
from tasks.outputs.prefect_ui.publishing import Cell

_LONGEST_TEXT = 300

Row = dict[str, Cell]


@dataclass(frozen=True)
class ShardRow:
    """A shard, and its manifest once it is labeled; `error` says why it could not be, where that is known."""

    name: str
    num_images: int
    manifest: Mapping[str, Any] | None
    error: str | None = None

    @property
    def state(self) -> str:
        """'labeled', 'failed' or 'missing'."""
        return "labeled" if self.manifest is not None else "missing" if self.error is None else "failed"


def shard_rows(shards: Sequence[ShardRow]) -> list[Row]:
    """Returns the shards, those that failed or are missing first, then the newest."""
    open_ones = sorted(
        (shard for shard in shards if shard.manifest is None), key=lambda shard: (shard.state, shard.name)
    )
    labeled = [shard for shard in shards if shard.manifest is not None]
    labeled.sort(key=lambda shard: (str((shard.manifest or {})["created"]), shard.name), reverse=True)
    return [_shard_row(shard) for shard in (*open_ones, *labeled)]


def category_rows(names: Mapping[int, str], statistics: Mapping[int, CategoryStatistics], shown: str) -> list[Row]:
    """Returns every category with what was found of it, the most frequent first; `shown` says what pictures show."""
    found = [(statistics.get(category_id, CategoryStatistics()), category_id) for category_id in names]
    found.sort(key=lambda row: (-row[0].num_instances, row[1]))
    return [
        {
            "category": _short(names[category_id]),
            "id": category_id,
            "instances": statistics.num_instances,
            shown: statistics.num_certain,
            "images": statistics.num_images,
            "mean score": None if statistics.mean_score is None else round(statistics.mean_score, 3),
        }
        for statistics, category_id in found
    ]


def failed_rows(failed: Sequence[tuple[str, str]]) -> list[Row]:
    """Images that could not be read, and why."""
    return [{"image": _short(image_id), "reason": _short(error)} for image_id, error in failed]


def text_rows(table: Sequence[Sequence[str]], corner: str) -> list[Row]:
    """Returns a table of text with its header; `corner` names the first column if the header does not."""
    header, *body = table
    names = [header[0] or corner, *header[1:]]
    return [dict(zip(names, map(_short, row), strict=True)) for row in body]


def _shard_row(shard: ShardRow) -> Row:
    manifest = shard.manifest or {}
    images = manifest.get("images", {})
    return {
        "shard": shard.name,
        "state": shard.state,
        "images": shard.num_images,
        "instances": manifest["tables"][0]["num_rows"] if manifest else None,
        "unreadable": images.get("unreadable"),
        "labeled at": str(manifest.get("created", ""))[: len("2026-01-01T00:00:00")].replace("T", " "),
        "by, or reason": _short(shard.error or str(manifest.get("created_by", ""))),
    }


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}…"
