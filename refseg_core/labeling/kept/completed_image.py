"""An image of which something is kept: what is missing is computed when it is asked for, and noted down.

Shapes: P patches, C channels, G mask logits side, n masks or points.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from refseg_core.labeling.kept.crop_means import CropMeans
from refseg_core.labeling.kept.kept_image import (
    ChosenMasks,
    KeptImage,
    KeptLooks,
    KeptMasks,
    KeptRefined,
    rows_of,
    unknown,
)
from refseg_core.masks.bitmasks import PackedMasks


class ImageModels(NamedTuple):
    """What models answer about one image. Equal questions have equal answers, whatever else is asked with them.

    `begin` encodes the image. `ask` prompts the segmenter with points of the grid, int64 [n], and describes the masks
    by features [P, C]. `look` encodes the crops around masks, bool [n, G, G]. `refine` decodes masks again from the
    boxes of logits [n, G, G], and resizes them to the original frame.
    """

    begin: Callable[[], KeptImage]
    ask: Callable[[Tensor, Tensor], KeptMasks]
    look: Callable[[Tensor], CropMeans]
    refine: Callable[[Tensor], PackedMasks]


class CompletedImage:
    """An image that answers from what is kept of it, or else from the models; `added` is what these were asked."""

    def __init__(self, kept: KeptImage | None, models: ImageModels) -> None:
        """`kept`: None where nothing is. `added`: None where the models were not asked."""
        self._models = models
        self.kept = models.begin() if kept is None else kept
        self.added = self.kept if kept is None else None

    def masks(self, point_n: Tensor) -> ChosenMasks:
        """Returns the masks of points of the grid, by ascending key; only points that were not asked yet are asked."""
        new_n = point_n[unknown(self.kept.asked_n, point_n)]
        if len(new_n):
            self._add(asked_n=new_n, masks=self._models.ask(new_n, self.kept.features_PC))
        return self.kept.masks.of_points(point_n)

    def look(self, key_n: Tensor, masks: PackedMasks) -> CropMeans:
        """Returns what the crops around masks of G x G cells show, of these keys."""
        row_n = unknown(self.kept.looks.key_n, key_n)
        if len(row_n):
            self._add(looks=KeptLooks(key_n[row_n], self._models.look(masks[row_n].unpack())))
        known_n = rows_of(self.kept.looks.key_n, key_n)
        return CropMeans(*(part[known_n] for part in self.kept.looks.means))

    def refine(self, key_n: Tensor, logits_of: Callable[[Tensor], Tensor]) -> PackedMasks:
        """Returns masks of these keys decoded again, in the original frame; `logits_of`: rows of keys to logits."""
        row_n = unknown(self.kept.refined.key_n, key_n)
        if len(row_n):
            self._add(refined=KeptRefined(key_n[row_n], self._models.refine(logits_of(row_n))))
        return self.kept.refined.masks[rows_of(self.kept.refined.key_n, key_n)]

    def _add(self, **parts: Any) -> None:
        nothing = self.kept.emptied()
        added = replace(nothing, **parts)
        self.kept, self.added = self.kept.plus(added), (self.added or nothing).plus(added)
