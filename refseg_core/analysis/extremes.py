"""The most and the least certain detections of a stream, of which only the few that are kept are ever held."""

import numpy as np

from refseg_core.table_schema import Array
from refseg_core.tables import Detections


class Extremes:
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
