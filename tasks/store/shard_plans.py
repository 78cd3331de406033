"""How the images of labels are cut into shards: written down in plans, which are never changed.

The layout stands in `label_store.py`. Parts are named by their content: a plan that lost a race leaves parts that no
manifest names and that are never read.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from refseg_core.errors import StoreError
from refseg_core.table_schema import Array
from refseg_core.tables import Images, LabeledImages
from tasks.storage.uris import redact
from tasks.store.manifests import PLAN
from tasks.store.parquet import table_from_parquet, table_to_parquet
from tasks.store.store import Artifact, Store, describe_part, made_by, numbered_name

_IMAGES_PER_PART = 16_384  # about a megabyte: what a worker holds of a plan, however many images there are


@dataclass(frozen=True)
class Shard:
    """Some images of a plan, labeled and committed together: rows `start` to `stop` of the plan's part.

    `offset`: how many images of the planned shard come before, where a run that was stopped committed those alone.
    """

    plan: int
    number: int
    part: str
    start: int
    stop: int
    offset: int = 0

    @property
    def name(self) -> str:
        """Its name in the store; the rest of a shard comes after its beginning in the order of names."""
        planned = f"{self.plan:04d}-{self.number:05d}"
        return f"{planned}_{self.offset:05d}" if self.offset else planned

    def __len__(self) -> int:
        return self.stop - self.start

    def first(self, number: int) -> "Shard":
        """Returns its first images."""
        return replace(self, stop=self.start + number)

    def after(self, number: int) -> "Shard | None":
        """Returns what comes after its first images, or None where nothing does."""
        left = replace(self, start=self.start + number, offset=self.offset + number)
        return left if len(left) else None


@dataclass(frozen=True)
class PlanPart:
    """Some of the images of a plan, at most `_IMAGES_PER_PART` and the shard that passes it, and their shards."""

    images: Images
    shards: list[Shard]

    def holding(self, is_wanted: Array) -> list[Shard]:
        """Returns the shards with at least one wanted image; `is_wanted` is boolean [N], by the part's rows."""
        return [shard for shard in self.shards if is_wanted[shard.start : shard.stop].any()]


class Wanted:
    """Selected images: finds their rows by id and version."""

    def __init__(self, images: Images) -> None:
        self._versions = images.version
        self._row_of = {image_id: row for row, image_id in enumerate(images.image_id)}

    def rows_of(self, table: Images | LabeledImages) -> Array:
        """Int64 [N]: for each image of the table its row among the wanted, -1 where its version is not wanted."""
        found = (self._row_of.get(image_id, -1) for image_id in table.image_id)
        rows = np.fromiter(found, dtype=np.int64, count=len(table))
        is_known = rows >= 0
        rows[is_known] = np.where(self._versions[rows[is_known]] == table.version[is_known], rows[is_known], -1)
        return rows

    def among(self, labeled: LabeledImages) -> LabeledImages:
        """Returns the rows of the table that are of wanted images in their version."""
        return labeled[self.rows_of(labeled) >= 0]


class Plans:
    """The plans of one recipe's labels, below `root` in the store."""

    def __init__(self, store: Store, root: str) -> None:
        self._store = store
        self._root = root
        self._folder = f"{root}/parts"

    def count(self) -> int:
        """Returns how many plans there are."""
        return sum(1 for _ in self.manifests())

    def parts(self) -> Iterator[PlanPart]:
        """Yields every image that was ever planned, once in each of its versions, part by part."""
        for number, manifest in enumerate(self.manifests()):
            yield from self.parts_of(number, manifest)

    def shards_of(self, wanted: Wanted) -> Iterator[tuple[Shard, Array]]:
        """Yields every shard that holds some of the wanted images, and which of its images these are, boolean [N]."""
        for part in self.parts():
            is_wanted = wanted.rows_of(part.images) >= 0
            for shard in part.holding(is_wanted):
                yield shard, is_wanted[shard.start : shard.stop]

    def images_of(self, shard: Shard) -> Images:
        """Returns the images of one shard."""
        return _cached_part(self._store.uri, f"{self._folder}/{shard.part}")[shard.start : shard.stop]

    def manifests(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """Yields the plans from that number on."""
        for number, manifest in enumerate(self._store.numbered(self._root, PLAN)):
            if number >= first:
                yield manifest

    def parts_of(self, plan: int, manifest: Mapping[str, Any]) -> Iterator[PlanPart]:
        """Yields the images of one plan, part by part."""
        first, per_shard = 0, int(manifest["images_per_shard"])
        for part in manifest["tables"]:
            images = self._store.read_part(self._folder, part, Images)
            starts = range(0, len(images), per_shard)
            yield PlanPart(
                images,
                [
                    Shard(plan, number, part["name"], start, min(start + per_shard, len(images)))
                    for number, start in enumerate(starts, start=first)
                ],
            )
            first += len(starts)

    def create(self, number: int, images: Images, images_per_shard: int) -> None:
        """Cuts images into shards, unless there is a plan of that number already."""
        size = images_per_shard * max(1, _IMAGES_PER_PART // images_per_shard)
        parts = [self.put_part(images[start : start + size]) for start in range(0, len(images), size)]
        manifest = {"images_per_shard": images_per_shard, **made_by(), "tables": parts}
        self._store.commit(numbered_name(self._root, number), manifest)

    def put_part(self, images: Images) -> dict[str, Any]:
        """Puts images that a plan is to name; returns what its manifest says of them."""
        data = table_to_parquet(images)
        name = f"{self._folder}/{_content_name(data)}"
        self._store.folder.create(name, data)
        return describe_part(name, images, data)


@lru_cache(maxsize=2)
def _cached_part(uri: str, name: str) -> Images:
    """Returns a plan's part, which neighboring shards share; parts never change, so the last ones are kept."""
    folder = Store(uri).folder
    data = folder.read(name)
    if not name.endswith(f"/{_content_name(data)}"):
        raise StoreError(
            f"{redact(folder.join(name))}: damaged: expected the content that its name is the hash of. Restore the "
            "object."
        )
    return table_from_parquet(data, Images)


def _content_name(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:16]}.parquet"


@dataclass(frozen=True)
class LabelPlan:
    """What is to be labeled: the images, the labels' key, and the shards still to do.

    `gone`, once it is known, is the table of labels whose images were removed or changed.
    """

    dataset: Artifact
    key: str
    pending: tuple[Shard, ...]
    gone: Artifact | None = None
