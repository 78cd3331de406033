"""What the numbers of YOLO's lines mean, which no line says itself: a box, a polygon, or a box and more.

    class x_center y_center width height                      a box
    class x_center y_center width height [confidence] [track] a box, in a file whose lines are all of 6 or 7 numbers
    class x_center y_center width height keypoints ...        a box, where data.yaml has kpt_shape
    class x1 y1 x2 y2 x3 y3 ...                               a polygon; with four points also an oriented box

Not here: files, and what a class is called.
"""

import math
from collections.abc import Sequence

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
POSES = "files of keypoints, by kpt_shape in data.yaml: the boxes are read"

_BOX, _TRIANGLE = 5, 7  # numbers, that of the class included
_SCORED = (6, 7)
_SLACK = 0.1  # what tools draw beyond the edge


class LineError(ValueError):
    """Which kind of problem a line has."""


def read_numbers(line: str) -> list[float]:
    """Returns the numbers of a line. Raises LineError."""
    try:
        values = [float(value) for value in line.split()]
    except ValueError as error:
        raise LineError(BAD_LINE) from error
    if not all(map(math.isfinite, values)):
        raise LineError(BAD_LINE)
    return values


def are_scored_boxes(lines: Sequence[str]) -> bool:
    """Returns whether the lines of a file are boxes with a confidence, a track's number, or both.

    Seven numbers can be a triangle as well: unlike a track's number, its last coordinate is not whole in every line.
    """
    try:
        values = [read_numbers(line) for line in lines]
    except LineError:
        return False
    is_whole = all(own[-1].is_integer() for own in values if len(own) == _SCORED[1])
    return bool(values) and is_whole and all(len(own) in _SCORED for own in values)


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
