"""A slow restatement of what follows the decoder (method, sections 6.4 to 6.7), to hold refseg_core against.

Nothing of refseg_core is used: every formula is written out as the method states it, in float64 and in plain loops,
with none of the shortcuts (features are really upsampled to the mask's grid, masks are never packed, overlaps are
counted pair by pair). Box overlaps are exact fractions.

Shapes: N masks, G logits side, g patch grid side, P = g * g, C channels, K categories, H x W original frame.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]


class Instance(NamedTuple):
    """A labeled mask: its row among the proposals, its class, its score and its pixels in the original frame."""

    row: int
    class_index: int
    score: float
    mask: Mask


class Labels(NamedTuple):
    """All instances by falling score (not yet cut to the best), and how near the nearest threshold any decision was."""

    instances: list[Instance]
    margin: float


Taps = list[tuple[int, float]]


def interpolate(pixels: Floats, size: tuple[int, int], taps: Callable[[int, int, int], Taps]) -> Floats:
    """Resizes [H, W, ...] to `size`, corners not aligned; `taps` weighs the source pixels of an output pixel."""
    rows = [taps(index, pixels.shape[0], size[0]) for index in range(size[0])]
    columns = [taps(index, pixels.shape[1], size[1]) for index in range(size[1])]
    out = np.zeros((*size, *pixels.shape[2:]))
    for y, down in enumerate(rows):
        for x, along in enumerate(columns):
            for source_y, weight_y in down:
                for source_x, weight_x in along:
                    out[y, x] += weight_y * weight_x * pixels[source_y, source_x]
    return out


def linear(index: int, length: int, side: int) -> Taps:
    """The two nearest pixels."""
    position = max(0.0, (index + 0.5) * length / side - 0.5)
    lower = math.floor(position)
    return [(lower, lower + 1 - position), (min(lower + 1, length - 1), position - lower)]


def cubic(index: int, length: int, side: int) -> Taps:
    """The four nearest pixels, those of the border repeated; a = -0.75."""
    position = (index + 0.5) * length / side - 0.5
    first = math.floor(position) - 1
    return [(min(max(tap, 0), length - 1), _cubic_weight(tap - position, -0.75)) for tap in range(first, first + 4)]


def _cubic_weight(distance: float, a: float) -> float:
    t = abs(distance)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def antialiased_linear(index: int, length: int, side: int) -> Taps:
    """A triangle, as wide as two output pixels when shrinking, cut at the borders."""
    return _widened(index, length, side, lambda distance: max(0.0, 1 - abs(distance)))


def antialiased_cubic(index: int, length: int, side: int) -> Taps:
    """The same with the cubic of a = -0.5, which is Pillow's."""
    return _widened(index, length, side, lambda distance: _cubic_weight(distance, -0.5))


def _widened(index: int, length: int, side: int, weigh: Callable[[float], float]) -> Taps:
    scale = length / side
    center = (index + 0.5) * scale
    weights = [weigh((source + 0.5 - center) / max(1.0, scale)) for source in range(length)]
    return [(source, weight / sum(weights)) for source, weight in enumerate(weights) if weight]


def describe(masks: Mask, features_PC: Floats) -> Floats:
    """The unit mean of the upsampled features inside each mask [N, C]; zeros for an empty mask."""
    side = math.isqrt(len(features_PC))
    upsampled = interpolate(features_PC.reshape(side, side, -1), masks.shape[1:], linear)
    descriptors = np.zeros((len(masks), features_PC.shape[1]))
    for row, mask in enumerate(masks):
        pixels = [upsampled[y, x] for y in range(len(mask)) for x in range(len(mask)) if mask[y, x]]
        if pixels:
            mean = sum(pixels) / len(pixels)
            descriptors[row] = mean / math.sqrt(float(mean @ mean))
    return descriptors


def classify(descriptors: Floats, prototypes: Floats) -> list[tuple[int, float, float]]:
    """For each mask its class, its similarity, and how far the decision was from falling otherwise."""
    decisions = []
    for descriptor in descriptors:
        if not descriptor.any():
            decisions.append((0, 0.0, math.inf))
            continue
        cosines = [float(descriptor @ prototype) for prototype in prototypes]
        best = max(range(len(cosines)), key=lambda index: max(0.0, cosines[index]))
        others = [max(0.0, cosine) for index, cosine in enumerate(cosines) if index != best]
        margin = min([abs(cosine) for cosine in cosines] + [max(0.0, cosines[best]) - other for other in others])
        if cosines[best] <= 0:
            margin = -cosines[best]
        decisions.append((best, max(0.0, cosines[best]), margin))
    return decisions


def extent(mask: Mask) -> Box:
    """Inclusive pixel extents (x_min, y_min, x_max, y_max); zeros for an empty mask."""
    occupied = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    if not occupied:
        return 0, 0, 0, 0
    xs, ys = [x for x, _ in occupied], [y for _, y in occupied]
    return min(xs), min(ys), max(xs), max(ys)


def box_iou(first: Box, second: Box) -> Fraction:
    """Overlap of two boxes, sides without the closing pixel; 0 where neither has an area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0, width) * max(0, height)
    union = _box_area(first) + _box_area(second) - shared
    return Fraction(shared, union) if union else Fraction(0)


def _box_area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def suppress(boxes: list[Box], predicted_iou: list[float], classes: list[int], thresh: float) -> list[int]:
    """Greedy suppression: best predicted IoU first, a row survives unless a survivor of its class covers it."""
    survivors: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda row: -predicted_iou[row]):
        rivals = [other for other in survivors if classes[other] == classes[row]]
        if all(box_iou(boxes[row], boxes[other]) <= thresh for other in rivals):
            survivors.append(row)
    return survivors


def label(
    logits_NGG: Floats,
    predicted_iou_N: Floats,
    features_PC: Floats,
    prototypes_KC: Floats,
    *,
    size: tuple[int, int],
    box_nms_thresh: float,
    num_candidates: int,
) -> Labels:
    """Everything after the decoder."""
    masks = logits_NGG > 0
    descriptors = describe(masks, features_PC)
    decisions = classify(descriptors, prototypes_KC)
    classes = [class_index for class_index, _, _ in decisions]
    kept = suppress([extent(mask) for mask in masks], predicted_iou_N.tolist(), classes, box_nms_thresh)
    kept = [row for row in kept[:num_candidates] if decisions[row][1] > 0]
    resized = {row: interpolate(logits_NGG[row], size, antialiased_linear) for row in kept}
    instances = []
    for place, row in enumerate(kept):
        mask = resized[row] > 0
        if not mask.any():
            continue
        rivals = [other for other in kept[:place] if classes[other] == classes[row]]
        covered = [
            (mask & (resized[other] > 0)).sum() / mask.sum() * max(0.0, float(descriptors[row] @ descriptors[other]))
            for other in rivals
        ]
        left = max(0.0, 1 - max(covered, default=0.0))
        instances.append(Instance(row, classes[row], decisions[row][1] * math.sqrt(left), mask))
    instances.sort(key=lambda instance: -instance.score)
    near_zero = [float(np.abs(logits).min()) for logits in resized.values()]
    return Labels(instances, min([margin for _, _, margin in decisions] + near_zero, default=math.inf))
