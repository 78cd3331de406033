"""What labels hold, counted shard by shard: images by what became of them, instances by category, failed images.

Of the detections, only the most and the least certain few are ever held.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np

from refseg_core.errors import counted
from refseg_core.table_schema import Array
from refseg_core.tables import Detections, LabeledImages


class TopK:
    """The `num` detections of each category with the highest scores, or with the lowest; first come where equal."""

    def __init__(self, num: int, *, highest: bool) -> None:
        self._num = num
        self._sign = 1.0 if highest else -1.0
        self._kept = Detections.empty()
        self._bars: dict[int, float] = {}  # what a detection must pass, for categories that have their number

    def add(self, detections: Detections) -> None:
        """Looks at more of the stream."""
        bars_N = np.array([self._bars.get(category, -np.inf) for category in detections.category_id.tolist()])
        passing = detections[self._heights(detections) > bars_N]
        if len(passing) == 0:
            return
        kept = Detections.concatenate([self._kept, passing])
        order, ranks = self._by_category(kept)
        self._kept = kept[np.sort(order[ranks < self._num])]
        last = order[ranks == self._num - 1]
        heights = self._heights(kept)[last].tolist()
        self._bars.update(zip(kept.category_id[last].tolist(), heights, strict=True))

    def chosen(self, num: int) -> Detections:
        """At most `num`: the extreme of each category, then the second of each, and so on; the most extreme first."""
        order, ranks = self._by_category(self._kept)
        heights = self._heights(self._kept)
        rows = order[np.lexsort((-heights[order], ranks))][:num]
        return self._kept[rows[np.argsort(-heights[rows], kind="stable")]]

    def _heights(self, detections: Detections) -> Array:
        """Float64 [N]: the higher, the more extreme."""
        return np.asarray(self._sign * detections.score.astype(np.float64))

    def _by_category(self, detections: Detections) -> tuple[Array, Array]:
        """Rows [N] by category, the most extreme first; and each one's rank within its category, from 0."""
        order = np.lexsort((-self._heights(detections), detections.category_id))
        _, firsts, counts = np.unique(detections.category_id[order], return_index=True, return_counts=True)
        return order, np.arange(len(order)) - np.repeat(firsts, counts)


@dataclass
class CategoryStatistics:
    """The instances of one category: how many, in how many images, how many of them certain, and their scores' sum."""

    num_instances: int = 0
    num_images: int = 0
    num_certain: int = 0
    sum_of_scores: float = 0.0

    @property
    def mean_score(self) -> float | None:
        """The mean score, or None where nothing was found."""
        return self.sum_of_scores / self.num_instances if self.num_instances else None


class PromptShare(NamedTuple):
    """How much of images was prompted: how many were read, how many of those without any prompt, and all prompts."""

    num_images: int = 0
    num_skipped: int = 0
    num_prompts: int = 0

    @classmethod
    def of(cls, labeled: LabeledImages) -> Self:
        """Counts the images that could be read. Their numbers of prompts must be known: the path `guided` tells."""
        num_prompts = labeled[labeled.status != "unreadable"].num_prompts
        return cls(len(num_prompts), int((num_prompts == 0).sum()), int(num_prompts.sum()))

    def plus(self, other: "PromptShare") -> "PromptShare":
        """Returns the counts of both."""
        return PromptShare(*(one + more for one, more in zip(self, other, strict=True)))

    def describe(self, points_per_image: int) -> str:
        """'12.5 % of the points prompted, 45 of 80 images skipped'."""
        share = self.num_prompts / max(1, points_per_image * self.num_images)
        return (
            f"{share:.1%} of the points prompted, {self.num_skipped:,} of {counted(self.num_images, 'image')} skipped"
        )


@dataclass
class LabelStatistics:
    """Counts of labels, and the few of their rows that are shown.

    `certain` says which instances [N] count as certain; `least` holds the lowest scores of these, since others are
    rarely used. At most `most_failed` failed images are named, and `most_shown`
    detections of each category kept at either end. `prompts` counts shards that know how many there were.
    """

    certain: Callable[[Detections], Array]
    most_failed: int
    most_shown: int
    images: Counter[str] = field(default_factory=Counter)
    categories: dict[int, CategoryStatistics] = field(default_factory=dict)
    prompts: PromptShare = PromptShare()
    failed: list[tuple[str, str]] = field(default_factory=list)
    most: TopK = field(init=False)
    least: TopK = field(init=False)

    def __post_init__(self) -> None:
        self.most = TopK(self.most_shown, highest=True)
        self.least = TopK(self.most_shown, highest=False)

    @property
    def num_instances(self) -> int:
        """How many instances were found."""
        return sum(category.num_instances for category in self.categories.values())

    def add(self, detections: Detections, labeled: LabeledImages) -> None:
        """Counts a shard; no other shard holds its images."""
        is_certain = self.certain(detections)
        self.images.update(labeled.status.tolist())
        if None not in labeled.num_prompts:
            self.prompts = self.prompts.plus(PromptShare.of(labeled))
        self._count_categories(detections, is_certain)
        failed = labeled[labeled.status == "unreadable"][: self.most_failed - len(self.failed)]
        self.failed += zip(failed.image_id.tolist(), map(str, failed.error), strict=True)
        self.most.add(detections)
        self.least.add(detections[is_certain])

    def _count_categories(self, detections: Detections, is_certain: Array) -> None:
        ids, category_N, counts = np.unique(detections.category_id, return_inverse=True, return_counts=True)
        pairs = set(zip(category_N.tolist(), detections.image_id.tolist(), strict=True))
        num_images = Counter(category for category, _ in pairs)
        num_certain = np.bincount(category_N, is_certain, minlength=len(ids))
        sums = np.bincount(category_N, detections.score, minlength=len(ids))
        for index, category_id in enumerate(ids.tolist()):
            statistics = self.categories.setdefault(category_id, CategoryStatistics())
            statistics.num_instances += int(counts[index])
            statistics.num_images += num_images[index]
            statistics.num_certain += int(num_certain[index])
            statistics.sum_of_scores += float(sums[index])
