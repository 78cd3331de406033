"""The labeling methods, each in one entry: the published method, and the parts that others add to it.

Settings, command line, messages and documentation read them from here. Every part may also be set on its own
(`LabelingSettings`); what each gains is in the guide on accuracy.
"""

from dataclasses import dataclass

SMALL_GRID = 16
"""Patches along one side of a small crop, of a reference and of a candidate at its second look."""


@dataclass(frozen=True)
class MethodParts:
    """What a method does beyond the published one; the defaults are the published method.

    `all_views`: references are encoded in three views. `all_masks`: all three masks of a prompt are candidates, not
    only the best. `similarity_exponent`: duplicates are dropped in the order of predicted IoU * similarity ** this.
    `quality_in_score`: the score is the geometric mean of similarity and predicted IoU. `max_second_looks`: candidates
    per image that are encoded again in a crop of their own. `part_penalty`: how much of the likeness of a crop's
    background is taken off. `max_refined_masks`: masks per image that are decoded again from their box.
    """

    all_views: bool = False
    all_masks: bool = False
    similarity_exponent: float = 0.0
    quality_in_score: bool = False
    max_second_looks: int = 0
    part_penalty: float = 0.0
    max_refined_masks: int = 0


@dataclass(frozen=True)
class LabelingMethod:
    """A method by name, what it is, and its parts."""

    name: str
    help: str
    parts: MethodParts


LABELING_METHODS = {
    method.name: method
    for method in (
        LabelingMethod("published", "the published method", MethodParts()),
        LabelingMethod(
            "accurate",
            "more candidates, a second look at the best of them, and their masks decoded again",
            MethodParts(
                all_views=True,
                all_masks=True,
                similarity_exponent=0.5,
                quality_in_score=True,
                max_second_looks=60,
                part_penalty=0.3,
                max_refined_masks=30,
            ),
        ),
    )
}

PUBLISHED = LABELING_METHODS["published"].parts

DESCRIPTION = "; ".join(f"'{method.name}': {method.help}" for method in LABELING_METHODS.values())
