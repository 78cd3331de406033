"""LVIS's protocol in plain loops, from its definition: slow, and independent of what refseg computes with."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_RANGES = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)


@dataclass(eq=False)
class Thing:
    """An annotation or a detection: where it is, its pixels [H, W], and what it is compared by."""

    image_id: int
    category_id: int
    box_xywh: list[float]
    mask: npt.NDArray[np.bool_]
    area: float
    score: float = 0.0


@dataclass
class _Outcomes:
    """What became of a category's detections at one threshold and range, image by image."""

    scores: list[float] = field(default_factory=list)
    is_right: list[bool] = field(default_factory=list)
    num_true: int = 0


class _Terms(NamedTuple):
    """What a match needs: the range of areas, the IoU, and of what."""

    window: tuple[float, float]
    threshold: float
    iou_type: str


class _Curve(NamedTuple):
    precisions: list[float]
    recall: float


def lvis_numbers(document: dict[str, Any], truth: list[Thing], found: list[Thing], iou_type: str) -> dict[str, float]:
    """The thirteen numbers by LVIS's names without its @300, and AP of each category by its id."""
    truth = [thing for thing in truth if thing.area > 0]
    found = [thing for thing in _best_300(found) if thing.area > 0]
    curves = {}
    for category_id in [category["id"] for category in document["categories"]]:
        true, claimed = ([one for one in things if one.category_id == category_id] for things in (truth, found))
        for letter, window in _RANGES.items():
            for index, threshold in enumerate(_THRESHOLDS):
                terms = _Terms(window, threshold, iou_type)
                outcomes = _outcomes(document["images"], true, claimed, category_id, terms)
                curves[category_id, letter, index] = _curve(outcomes)
    ids = [category["id"] for category in document["categories"]]
    numbers = {f"AP{letter}": _ap(curves, ids, letter) for letter in _RANGES}
    numbers |= {"AP50": _ap(curves, ids, "", [0]), "AP75": _ap(curves, ids, "", [5])}
    for group in "rcf":
        of_group = [category["id"] for category in document["categories"] if category["frequency"] == group]
        numbers[f"AP{group}"] = _ap(curves, of_group, "")
    for letter in _RANGES:
        recalls = [curve.recall for key, curve in curves.items() if curve and key[1] == letter]
        numbers[f"AR{letter or 300}"] = sum(recalls) / len(recalls) if recalls else -1
    return numbers | {str(number): _ap(curves, [number], "") for number in ids}


def _best_300(found: list[Thing]) -> list[Thing]:
    of_image = defaultdict(list)
    for thing in found:
        of_image[thing.image_id].append(thing)
    return [thing for things in of_image.values() for thing in sorted(things, key=lambda one: -one.score)[:300]]


def _ap(curves: dict[Any, _Curve | None], ids: list[int], letter: str, thresholds: Any = range(10)) -> float:
    known = [curves[number, letter, index] for number in ids for index in thresholds]
    precisions = [value for curve in known if curve for value in curve.precisions]
    return sum(precisions) / len(precisions) if precisions else -1


def _outcomes(
    images: list[dict[str, Any]], truth: list[Thing], found: list[Thing], category_id: int, terms: _Terms
) -> _Outcomes:
    outcomes = _Outcomes()
    for image in sorted(images, key=lambda one: int(one["id"])):
        true = [thing for thing in truth if thing.image_id == image["id"]]
        if not true and category_id not in image["neg_category_ids"]:
            continue
        claimed = [thing for thing in found if thing.image_id == image["id"]]
        is_partial = category_id in image["not_exhaustive_category_ids"]
        _match(outcomes, true, sorted(claimed, key=lambda one: -one.score), terms, is_partial=is_partial)
    return outcomes


def _match(outcomes: _Outcomes, true: list[Thing], claimed: list[Thing], terms: _Terms, *, is_partial: bool) -> None:
    def in_window(thing: Thing) -> bool:
        return terms.window[0] <= thing.area <= terms.window[1]

    wanted, unwanted = [one for one in true if in_window(one)], [one for one in true if not in_window(one)]
    outcomes.num_true += len(wanted)
    for thing in claimed:
        partner = _partner(thing, wanted, terms)
        if partner is not None:
            wanted.remove(partner)
            outcomes.scores.append(thing.score)
            outcomes.is_right.append(True)
            continue
        partner = _partner(thing, unwanted, terms)
        if partner is not None:
            unwanted.remove(partner)
        elif in_window(thing) and not is_partial:
            outcomes.scores.append(thing.score)
            outcomes.is_right.append(False)


def _partner(thing: Thing, candidates: list[Thing], terms: _Terms) -> Thing | None:
    """The best of those that overlap enough; of equal ones the last."""
    best, best_iou = None, terms.threshold
    for candidate in candidates:
        iou = _iou(thing, candidate, terms.iou_type)
        if iou >= best_iou:
            best, best_iou = candidate, iou
    return best


def _iou(first: Thing, second: Thing, iou_type: str) -> float:
    if iou_type == "segm":
        return int((first.mask & second.mask).sum()) / int((first.mask | second.mask).sum())
    (x1, y1, w1, h1), (x2, y2, w2, h2) = first.box_xywh, second.box_xywh
    width, height = min(x1 + w1, x2 + w2) - max(x1, x2), min(y1 + h1, y2 + h2) - max(y1, y2)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (w1 * h1 + w2 * h2 - width * height)


def _curve(outcomes: _Outcomes) -> _Curve | None:
    """Precision at 101 recalls, each the best at that recall or beyond, and the last recall; None without truth."""
    if not outcomes.num_true:
        return None
    order = sorted(range(len(outcomes.scores)), key=lambda index: -outcomes.scores[index])
    right, points = 0, []
    for number, index in enumerate(order, start=1):
        right += outcomes.is_right[index]
        points.append((right / outcomes.num_true, right / number))
    precisions = []
    for recall in _RECALLS:
        precisions.append(max((precision for reached, precision in points if reached >= recall), default=0.0))
    return _Curve(precisions, right / outcomes.num_true)
