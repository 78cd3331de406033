"""Lists of categories that lie in or above a folder of annotations: found, read and hashed.

Not here: lists of one name a line (`refseg_core/datasets/class_names.py`).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import yaml

from refseg_core.datasets.class_names import (
    CLASS_FILES,
    COLOR_FILE,
    ColorMap,
    read_class_lines,
    read_class_names,
    read_color_map,
)
from refseg_core.datasets.oddities import Oddity, OddityCounter
from refseg_core.errors import DatasetError, StoreError
from refseg_core.settings.numbers import to_int
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.storage.yaml_documents import load_yaml, why_unread

_YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_CONTRADICTING = "lists of categories that contradict the one that is taken: correct or remove them"
_OTHER_COUNT = "YAML files whose nc is not the number of their names: the names count; correct one of them"
_FIRST = {"yolo": _YOLO_FILES, "masks": (COLOR_FILE,)}  # files of single formats, which come before the others


@dataclass(frozen=True)
class ClassNames:
    """The names of all categories, by number, and the hash of the file that lists them.

    `readings`: how the file was understood, where older versions took it otherwise. `keypoints`: for YOLO, how many
    follow each box, and of how many numbers each; None for none. `colors`: for masks, those of its categories.
    `oddities`: other lists in reach that say otherwise.
    """

    names: Sequence[str]
    sha256: str
    readings: tuple[str, ...] = ()
    keypoints: tuple[int, int] | None = None
    colors: ColorMap | None = None
    oddities: tuple[Oddity, ...] = ()


def find_class_names(folder: Folder, kind: str) -> ClassNames | None:
    """Returns the list of categories in or above the folder. Raises DatasetError if it is damaged or YOLO lacks it."""
    wanted = (*_FIRST.get(kind, ()), *CLASS_FILES)
    num_above = 2 if kind == "yolo" else 1  # labels/train/ lies two below data.yaml
    places = [folder, *_above(folder, num_above)]
    lists = [(place.join(name), name, document) for place in places for name, document in _lists(place, wanted)]
    if lists:
        (taken, name, document), *others = lists
        classes = _read(taken, document, _reader(kind, name))
        return replace(classes, oddities=(*classes.oddities, *_contradicting(kind, taken, classes, others)))
    if kind != "yolo":
        return None
    raise DatasetError(
        f"{redact(folder.uri)}: what the classes are called is not known. Looked in "
        f"{', '.join(redact(place.uri) for place in places)} for one of {', '.join(wanted)}: a YAML file with a list "
        "'names', or a text file with one name a line. Put one there."
    )


def _lists(place: Folder, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yields those of the files that are in a place."""
    for name in names:
        # Who may read a prefix often may not read what lies above.
        with suppress(StoreError):
            if (document := place.read_if_there(name)) is not None:
                yield name, document


def _contradicting(
    kind: str, taken: str, classes: ClassNames, others: Iterable[tuple[str, str, bytes]]
) -> tuple[Oddity, ...]:
    """Returns which of the other lists name categories otherwise than the one that is taken; none for colors."""
    found = OddityCounter()
    for uri, name, document in others if classes.colors is None else ():
        with suppress(DatasetError):
            other = _read(uri, document, _reader(kind, name)).names
            if list(other) != list(classes.names):
                pairs = zip_longest(other, classes.names, fillvalue="none")
                number, (its, own) = next((row, pair) for row, pair in enumerate(pairs) if pair[0] != pair[1])
                found.add(_CONTRADICTING, f"{_end(uri)}: number {number} is {its!r}, in {_end(taken)} {own!r}")
    return found.found()


def _end(uri: str) -> str:
    return "/".join(redact(uri).split("/")[-2:])


def _above(folder: Folder, number: int) -> Iterator[Folder]:
    place = folder.uri.rstrip("/")
    for _ in range(number):
        place = place.rpartition("/")[0]
        if not place or place.endswith(("/", ":")):
            return
        yield Folder(place)


def _read(uri: str, document: bytes, read: Callable[[bytes], ClassNames]) -> ClassNames:
    try:
        classes = read(document)
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise DatasetError(f"{redact(uri)}: cannot be read as a list of categories: {why_unread(error)}.") from error
    if not classes.names or not all(classes.names):
        raise DatasetError(f"{redact(uri)}: expected a name for every category, got {list(classes.names)[:10]}.")
    return classes


def _of_text(document: bytes) -> ClassNames:
    return ClassNames(read_class_names(document), _sha256(document))


def _of_yolo_text(document: bytes) -> ClassNames:
    """Line n is class n, whatever it is called."""
    names = read_class_lines(document)
    readings = () if len(names) == len(read_class_names(document)) else ("every line is a class",)
    return ClassNames(names, _sha256(document), readings)


def _of_yaml(document: bytes) -> ClassNames:
    """Returns what YOLO's YAML file says. Raises ValueError if it has no names."""
    written = load_yaml(document, yaml.BaseLoader)  # `off` and `007` are names, not false and 7
    names = _yaml_names(written)
    readings = () if names == _yaml_names(load_yaml(document, yaml.SafeLoader)) else ("names as they are written",)
    count, found = str(written.get("nc", len(names))), OddityCounter()
    if count != str(len(names)):
        found.add(_OTHER_COUNT, f"nc: {count}, and {len(names)} names")
    keypoints = _keypoints(written.get("kpt_shape"))
    return ClassNames(names, _sha256(document), readings, keypoints, oddities=found.found())


def _of_color_map(document: bytes) -> ClassNames:
    colors = read_color_map(document)
    return ClassNames(list(colors.of_category), _sha256(document), colors=colors)


def _reader(kind: str, name: str) -> Callable[[bytes], ClassNames]:
    if name == COLOR_FILE:
        return _of_color_map
    if name in _YOLO_FILES:
        return _of_yaml
    return _of_yolo_text if kind == "yolo" else _of_text


def _yaml_names(content: Any) -> list[str]:
    """Returns `names`, a list or a mapping from numbers."""
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        names = [{str(number): name for number, name in names.items()}[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise ValueError("expected 'names', a list or a mapping of the numbers from 0 on")
    return [str(name) for name in names]


def _keypoints(shape: Any) -> tuple[int, int] | None:
    """Returns `kpt_shape`: how many keypoints there are, and of how many numbers each."""
    if shape is None:
        return None
    try:
        numbers = [to_int(str(number)) for number in shape] if isinstance(shape, list) else []
    except ValueError:
        numbers = []
    if len(numbers) != 2 or numbers[0] < 1 or numbers[1] not in (2, 3):  # noqa: PLR2004
        raise ValueError(f"expected 'kpt_shape', the number of keypoints and 2 or 3, got {shape}")
    return numbers[0], numbers[1]


def _sha256(document: bytes) -> str:
    return hashlib.sha256(document).hexdigest()
