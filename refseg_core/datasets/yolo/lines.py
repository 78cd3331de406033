"""What the numbers of YOLO's lines mean, which no line says itself: a box, a polygon, or a box and more.

    class x_center y_center width height                      a box
    class x_center y_center width height [confidence] [track] a box, in a file whose lines are all of 6 or 7 numbers;
                                                              trackers write the two in either order
    class x_center y_center width height keypoints ...        a box, where data.yaml has kpt_shape
    class x1 y1 x2 y2 x3 y3 ...                               a polygon; with four points also an oriented box

Not here: files, and what a class is called.
"""

import math
from collections.abc import Mapping, Sequence

from refseg_core.settings.numbers import to_float

BAD_LINE = (
    "a line is neither 'class x_center y_center width height' nor 'class x1 y1 x2 y2 x3 y3 ...', all of them numbers: "
    "correct it; a confidence or a track's number may follow boxes where all lines of the file have 6 or 7 numbers"
)
BAD_KEYPOINTS = (
    "a line has not the numbers that kpt_shape in data.yaml asks for, after 'class x_center y_center width height': "
    "correct one of them"
)
NOT_FRACTIONS = (
    "a line's coordinates are not fractions of the image's width and height, from 0 to 1: divide pixels by them; if "
    "these are keypoints, add kpt_shape to data.yaml"
)
SCORED_BOXES = (
    "files whose boxes are followed by a confidence or the number of a track, since all of their lines have 6 or 7 "
    "numbers: the boxes are read"
)
MIXED_LINES = (
    "a line of 7 numbers whose last or last but one is whole, in a file of boxes too, is a box with a confidence and a "
    "track's number, or a triangle: have all lines of the file with or without the two"
)
LOOK_LIKE_POSES = (
    "lines that look like boxes with keypoints within them, and not like polygons: add kpt_shape, the number of "
    "keypoints and 2 or 3, to data.yaml"
)
POSES = "files of keypoints, by kpt_shape in data.yaml: the boxes are read"

_BOX, _TRIANGLE = 5, 7  # numbers, that of the class included
_SCORED = (6, 7)
_POSE = 8  # fractions: a box and two keypoints
_SLACK = 0.1  # what tools draw beyond the edge


class LineError(ValueError):
    """Which kind of problem a line has."""


def read_numbers(line: str) -> list[float]:
    """Returns the numbers of a line. Raises LineError."""
    try:
        values = [to_float(value) for value in line.split()]
    except ValueError as error:
        raise LineError(BAD_LINE) from error
    if not all(map(math.isfinite, values)):
        raise LineError(BAD_LINE)
    return values


def are_scored_boxes(lines: Sequence[str]) -> bool:
    """Returns whether the lines of a file are boxes with a confidence, a track's number, or both, in either order.

    Seven numbers can be a triangle as well: unlike tracks' numbers, neither coordinate of its last corner is whole in
    every line. A track's number comes before only what can be a confidence.
    """
    try:
        values = [read_numbers(line) for line in lines]
    except LineError:
        return False
    both = [own[_BOX:] for own in values if len(own) == _SCORED[1]]
    is_track_last = all(last.is_integer() for _, last in both)
    is_track_first = all(first.is_integer() and 0 <= last <= 1 for first, last in both)
    return bool(values) and (is_track_last or is_track_first) and all(len(own) in _SCORED for own in values)


def find_mixed(lines: Mapping[int, str]) -> int | None:
    """Returns the first line of 7 numbers that may end with a track's number, or with that and a confidence, if there
    are boxes too: what it is is not known.

    Lines whose numbers are not as they should be are told one by one.
    """
    try:
        values = {number: read_numbers(line) for number, line in lines.items()}
    except LineError:
        return None
    both = {number: own[_BOX:] for number, own in values.items() if len(own) == _SCORED[1]}
    mixed = [number for number, own in both.items() if any(value.is_integer() for value in own)]
    return mixed[0] if mixed and any(len(own) in (_BOX, _SCORED[0]) for own in values.values()) else None


class PoseEvidence:
    """Whether the lines of a folder look like poses, though nothing says so, and not like polygons."""

    def __init__(self) -> None:
        self._lengths = set[int]()
        self._num_lines = self._num_apart = 0
        self._are_within = True

    def add(self, fractions: Sequence[float]) -> None:
        """Looks at the numbers of a line but for its class."""
        self._lengths.add(len(fractions))
        self._num_lines += 1
        x, y, width, height, *rest = fractions
        points = _keypoints(rest)
        self._are_within &= bool(points) and all(
            abs(px - x) <= width / 2 and abs(py - y) <= height / 2 for px, py in points
        )
        if self._are_within:
            xs, ys = zip((x, y), *points, strict=True)
            self._num_apart += not (_is_near(width, xs) and _is_near(height, ys))

    @property
    def count(self) -> int:
        """How many lines look like poses: all or none.

        Their numbers are as many in each, all points lie within the box that the first four numbers could be, and
        its size mostly lies apart from them, as the second corner of polygons seldom does.
        """
        is_one_length = len(self._lengths) == 1 and min(self._lengths) >= _POSE
        return self._num_lines if is_one_length and self._are_within and 2 * self._num_apart >= self._num_lines else 0


def _is_near(value: float, others: Sequence[float]) -> bool:
    """Returns whether a value lies no further outside of others than these lie apart, as a corner of a polygon does."""
    low, high = min(others), max(others)
    return 2 * low - high <= value <= 2 * high - low


def _keypoints(numbers: Sequence[float]) -> list[tuple[float, float]]:
    """Returns the points of a pose that are marked: numbers in twos, or in threes that end with 0, 1 or 2."""
    step = 3 if len(numbers) % 3 == 0 and all(number in (0, 1, 2) for number in numbers[2::3]) else 2
    return [point for point in zip(numbers[::step], numbers[1::step], strict=False) if point != (0, 0)]


def fractions_of_line(line: str, *, is_scored: bool, keypoints: tuple[int, int] | None) -> tuple[float, list[float]]:
    """Returns the class, and 4 fractions of a box or 6 and more of a polygon. Raises LineError."""
    kind, *fractions = values = read_numbers(line) or [math.nan]
    if keypoints is not None:
        if len(values) != _BOX and len(values) - _BOX - math.prod(keypoints) not in (0, 1, 2):
            raise LineError(BAD_KEYPOINTS)
        fractions = values[1:_BOX]
    elif is_scored:
        fractions = values[1:_BOX]
    elif len(values) != _BOX and (len(values) < _TRIANGLE or len(values) % 2 == 0):
        raise LineError(BAD_LINE)
    if min(fractions) < -_SLACK or max(fractions) > 1 + _SLACK:
        raise LineError(NOT_FRACTIONS)
    return kind, fractions
