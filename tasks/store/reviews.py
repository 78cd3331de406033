"""How people's decisions lie in a store: appended part by part, never changed.

    STORE/reviews/<key>/recipe.json                                    which images they are about
                       /decisions/<time>-<reviewer>-<hash>.parquet     what one person decided at once
                       /decisions/<time>-merged.<n>-<hash>.parquet     the rows of n parts, which its notes name

The key is that of the images, not of their labels, so that decisions outlive labels. A part exists whole or not at all,
and its name ends with the hash of its content: no two writers touch one object, nothing is lost when a writer is
killed, and a damaged part is noticed. They are found by listing. Where there are many, whoever opens a review puts
their rows into one part, which is read in their place; they stay. What a decision means is in
`refseg_core/analysis/decisions.py`.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from refseg_core.analysis.decisions import DecidedInstances, in_categories, label_decisions
from refseg_core.errors import NotFoundError, StoreError
from refseg_core.tables import Decisions, Detections, Images, LabeledImages
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.label_store import Labels, StoredLabels
from tasks.store.lineage import labeled_categories
from tasks.store.parquet import notes_of_parquet, table_from_parquet, table_to_parquet
from tasks.store.steps import REVIEW
from tasks.store.store import Recipe, Store, made_by

_VERSION = 1  # of what decisions are about
_HASH_LENGTH = 16
_LONGEST_NAME = 32  # characters of a reviewer's name in that of a part
_MERGED, _HELD = "merged.", "held"  # how a merged part is named, and the note of the parts that it holds
_MOST_LOOSE = 256  # parts; reading more takes over half a second


class StoredReview:
    """The decisions on the instances of one image folder. Keeps what it has read, since parts never change."""

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key
        self.root = f"{REVIEW.folder}/{key}"
        self._parts: dict[str, Decisions] = {}
        self._held: set[str] = set()  # the names of parts whose rows others have

    @classmethod
    def of_labels(cls, run: StoredLabels) -> "StoredReview":
        """Returns the decisions on the images that labels are of, whether there are any or not."""
        return cls(run.store, _recipe(run.recipe_or_error()).key)

    @classmethod
    def open(cls, run: StoredLabels) -> "StoredReview":
        """Returns the decisions on the images of labels, to append to: which images these are is written down.

        Merges the parts where they are many.
        """
        recipe, review = _recipe(run.recipe_or_error()), cls.of_labels(run)
        if review.recipe() is None:
            review.store.commit(f"{review.root}/recipe.json", {**asdict(recipe), "key": recipe.key, **made_by()})
        review._merge()
        return review

    def _merge(self) -> None:
        rows, known = self.read(), {*self._parts, *self._held}
        if sum(not _is_merged(name) for name in self._parts) > _MOST_LOOSE:
            merged = self._put(rows, f"{_MERGED}{len(known)}", {_HELD: json.dumps(sorted(known))})
            self._parts, self._held = {merged: rows}, known

    def recipe(self) -> dict[str, Any] | None:
        """Returns what the decisions are about, or None where nobody has decided anything."""
        return self.store.read_recipe(f"{self.root}/recipe.json")

    def append(self, decisions: Decisions) -> str:
        """Puts decisions of one person, which exist when this returns; returns the name of their part.

        Raises StoreError where the store was moved or removed meanwhile, lest they go where nobody looks for them.
        """
        if self.recipe() is None:
            place = redact(self.store.folder.join(f"{self.root}/recipe.json"))
            raise StoreError(
                f"{place}: the store is gone, so that nothing can be saved. Put it back, or start `refseg review` "
                "again where it is now; then decide again."
            )
        name = self._put(decisions, _plain(str(decisions.reviewer[0])))
        self._parts[name] = decisions
        return name

    def _put(self, decisions: Decisions, by: str, notes: Mapping[str, str] | None = None) -> str:
        data = table_to_parquet(decisions, notes)
        name = f"{re.sub('[^0-9TZ]', '', max(decisions.decided_at))}-{by}-{_hash(data)}.parquet"
        self.store.folder.create(f"{self.root}/decisions/{name}", data)
        return name

    def part_names(self) -> list[str]:
        """Returns the names of all parts, by time."""
        with suppress(NotFoundError):
            return Folder(self.store.folder.join(f"{self.root}/decisions")).list_names(".parquet")
        return []

    def read_part(self, name: str) -> Decisions:
        """Returns a part. Raises StoreError where it is missing or damaged."""
        return self._decoded(name, self.store.folder.read(f"{self.root}/decisions/{name}"))

    def read(self) -> Decisions:
        """Returns every row that there is now, by time; only parts that are new since the last call are fetched."""
        self.read_new()
        return Decisions.concatenate([self._parts[name] for name in sorted(self._parts)])

    def read_new(self) -> Decisions:
        """Returns the rows that others have added since the last call; some of them may be known already."""
        before = set(self._parts)
        unread = [name for name in self.part_names() if name not in self._parts]
        for name in reversed([name for name in unread if _is_merged(name)]):
            if name not in self._held:  # by one that was made later
                merged = self.store.folder.read(f"{self.root}/decisions/{name}")
                self._parts[name] = self._decoded(name, merged)
                self._held.update(json.loads(notes_of_parquet(merged)[_HELD]))
        loose = [name for name in unread if name not in self._parts and name not in self._held]
        found = self.store.folder.read_many(f"{self.root}/decisions/{name}" for name in loose)
        for name, data in zip(loose, found, strict=True):
            if data is not None:  # else it was removed after the listing
                self._parts[name] = self._decoded(name, data)
        return Decisions.concatenate([part for name, part in self._parts.items() if name not in before])

    def _decoded(self, name: str, data: bytes) -> Decisions:
        place = redact(self.store.folder.join(f"{self.root}/decisions/{name}"))
        if not name.endswith(f"-{_hash(data)}.parquet"):
            raise StoreError(
                f"{place}: damaged: expected the content that its name ends with the hash of. Restore the object, or "
                "remove it to give up these decisions."
            )
        return table_from_parquet(data, Decisions)


def read_reviewed(run: StoredLabels, images: Images) -> Iterator[Labels]:
    """Yields the labels of the given images in their versions by what people have decided on them, shard by shard.

    What became of an image counts the instances that there are after that.
    """
    return (labels for labels, _ in read_reviewed_and_removed(run, images))


def read_reviewed_and_removed(run: StoredLabels, images: Images) -> Iterator[tuple[Labels, int]]:
    """Yields the same, and how many labels of each shard people have rejected or merged."""
    decided = DecidedInstances(decisions_on(run))
    for detections, labeled in run.read(images):
        reviewed = decided.apply(detections, labeled)
        if reviewed is detections:
            yield (detections, labeled), 0
        else:
            yield (reviewed, _counted(labeled, reviewed)), decided.num_removed(detections, labeled)


def _counted(labeled: LabeledImages, detections: Detections) -> LabeledImages:
    found = Counter(detections.image_id.tolist())
    counts = np.array([found[image_id] for image_id in labeled.image_id], dtype=np.int32)
    status = np.where(labeled.status == "unreadable", "unreadable", np.where(counts > 0, "ok", "empty"))
    return labeled.replace(num_detections=counts, status=status.astype(object))


def decisions_hash(run: StoredLabels) -> str | None:
    """Returns what changes when a decision that counts does, for the keys of what is made from reviewed labels.

    None where nothing is decided on, so that such keys are as they were before there were reviews.
    """
    labels = label_decisions(decisions_on(run))
    return _hash("".join(sorted(labels.decision_id)).encode()) if len(labels) else None


def decisions_on(run: StoredLabels) -> Decisions:
    """Returns all decisions on the images of labels, in the categories of these."""
    decisions = StoredReview.of_labels(run).read()
    return in_categories(decisions, labeled_categories(run.store, run.prototypes())) if len(decisions) else decisions


def _recipe(of_labels: Mapping[str, Any]) -> Recipe:
    return Recipe(*REVIEW, version=_VERSION, settings={"images": of_labels["settings"]["images"]})


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_HASH_LENGTH]


def _is_merged(name: str) -> bool:
    return f"-{_MERGED}" in name


def _plain(reviewer: str) -> str:
    """Returns a name as it can stand in that of an object; the whole name is in the table."""
    return re.sub("[^a-z0-9]+", "_", reviewer.lower()).strip("_")[:_LONGEST_NAME] or "someone"
