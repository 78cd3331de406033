"""Lists of categories that lie in or above a folder of annotations: found, read and hashed.

Not here: lists of one name a line (`refseg_core/datasets/class_names.py`).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import yaml

from refseg_core.datasets.class_names import CLASS_FILES, read_class_names
from refseg_core.errors import DatasetError, StoreError
from tasks.storage.folder import Folder
from tasks.storage.uris import redact

_YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True)
class ClassNames:
    """The names of all categories, by number, and the hash of the file that lists them."""

    names: Sequence[str]
    sha256: str


def find_class_names(folder: Folder, kind: str) -> ClassNames | None:
    """Returns the list of categories in or above the folder. Raises DatasetError if it is damaged or YOLO lacks it."""
    wanted = (*_YOLO_FILES, *CLASS_FILES) if kind == "yolo" else CLASS_FILES
    num_above = 2 if kind == "yolo" else 1  # labels/train/ lies two below data.yaml
    for place in [folder, *_above(folder, num_above)]:
        for name in wanted:
            document = None
            # Who may read a prefix often may not read what lies above.
            with suppress(StoreError):
                document = place.read_if_there(name)
            if document is not None:
                read = _yaml_names if name in _YOLO_FILES else read_class_names
                return ClassNames(_class_names(place.join(name), document, read), hashlib.sha256(document).hexdigest())
    if kind != "yolo":
        return None
    raise DatasetError(
        f"{redact(folder.uri)}: neither it nor the folders above say what the classes are called. Add one of "
        f"{', '.join(wanted)}: a YAML file with a list 'names', or a text file with one name a line."
    )


def _above(folder: Folder, number: int) -> Iterator[Folder]:
    place = folder.uri.rstrip("/")
    for _ in range(number):
        place = place.rpartition("/")[0]
        if not place or place.endswith(("/", ":")):
            return
        yield Folder(place)


def _class_names(uri: str, document: bytes, read: Callable[[bytes], Sequence[str]]) -> Sequence[str]:
    try:
        names = read(document)
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise DatasetError(f"{redact(uri)}: cannot be read as a list of categories: {error}.") from error
    if not names or not all(names):
        raise DatasetError(f"{redact(uri)}: expected a name for every category, got {list(names)[:10]}.")
    return names


def _yaml_names(document: bytes) -> Sequence[str]:
    """Returns the `names` of YOLO's YAML file, a list or a mapping from numbers. Raises ValueError if it has none."""
    content = yaml.safe_load(document)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        names = [{str(number): name for number, name in names.items()}[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise ValueError("expected 'names', a list or a mapping of the numbers from 0 on")
    return [str(name) for name in names]
