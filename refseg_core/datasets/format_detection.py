"""Which format annotations are in: by the names of the files in their folder, or by how a single file begins.

Here: what tells formats apart. Not here: listing folders and what to do where several fit
(`tasks/datasets/annotation_files.py`).
"""

import re
from collections.abc import Iterable, Sequence

from refseg_core.datasets.class_names import CLASS_FILES
from refseg_core.settings import Format

SUFFIXES: dict[Format, str] = {
    "coco": ".json",
    "cvat": ".xml",
    "voc": ".xml",
    "labelme": ".json",
    "yolo": ".txt",
    "masks": ".png",
}
"""How the names of a format's annotation files end, in lower case."""

_BEGINNING = 1 << 16  # bytes
_IMAGE_LISTS = {"train.txt", "val.txt", "valid.txt", "test.txt", "requirements.txt", "license.txt"}
_CVAT_ROOT = re.compile(rb"<annotations[\s>]")
_COCO_KEYS = re.compile(rb'"(images|categories|annotations)"\s*:')
_LABELME_KEYS = re.compile(rb'"(shapes|imagePath|imageData)"\s*:')


def annotation_files(names: Iterable[str], kind: Format) -> list[str]:
    """Those of a folder's files that are annotations of the format, if it is that one; by name."""
    suffix = SUFFIXES[kind]
    return sorted(name for name in names if name.lower().endswith(suffix) and not _is_beside(name))


def formats_of_files(names: Sequence[str]) -> list[Format]:
    """The formats that a folder of files may be, the likeliest first: several where files of several kinds lie there.

    .xml may be VOC or CVAT, .json labelme or COCO: the first of each pair stands for both. PNG files are masks only
    where nothing else lies there, since images may lie beside their annotations.
    """
    kinds: tuple[Format, ...] = ("voc", "yolo", "labelme")
    found: list[Format] = [kind for kind in kinds if annotation_files(names, kind)]
    return found or (["masks"] if annotation_files(names, "masks") else [])


def format_of_document(document: bytes) -> Format:
    """The format of one file by its beginning; COCO where nothing speaks for another."""
    start = document[:_BEGINNING]
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "cvat" if _CVAT_ROOT.search(start) else "voc"
    # COCO's own keys may stand far behind, after megabytes of images; labelme's stand at the front or never.
    is_labelme = _LABELME_KEYS.search(start) and not _COCO_KEYS.search(start)
    return "labelme" if is_labelme else "coco"


def _is_beside(name: str) -> bool:
    """Whether a file says something other than annotations, in its folder by custom."""
    last = name.rpartition("/")[2].lower()
    return last in CLASS_FILES or last in _IMAGE_LISTS or last.startswith("readme")
