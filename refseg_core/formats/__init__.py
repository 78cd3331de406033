"""Step 0 for annotations that are not COCO's: each format into the same tables, with the same checks.

`voc.py`, `yolo.py`, `labelme.py`, `cvat.py` and `mask_files.py` each read one format; `recognition.py` tells which one
it is. `gathering.py` turns what they find into tables, with the columns of `refseg_core/coco/`; `image_names.py` finds
the image that a file belongs to, `class_names.py` reads lists of categories, `xml.py` is the only door to XML.

Everywhere: an image's id is its file name, an annotation's `<annotation file>#<number in the file, from 1>`. Files come
as pairs of name and bytes, in the order of their names, and may be an iterator: none is held longer than needed.
"""

from refseg_core.formats.class_names import CLASS_FILES, read_class_names
from refseg_core.formats.cvat import read_cvat
from refseg_core.formats.gathering import NamedFile
from refseg_core.formats.image_names import ImageNames
from refseg_core.formats.labelme import read_labelme
from refseg_core.formats.mask_files import is_by_category, read_masks
from refseg_core.formats.recognition import SUFFIXES, annotation_files, format_of_document, formats_of_files
from refseg_core.formats.voc import read_voc
from refseg_core.formats.yolo import read_yolo

__all__ = [
    "CLASS_FILES",
    "SUFFIXES",
    "ImageNames",
    "NamedFile",
    "annotation_files",
    "format_of_document",
    "formats_of_files",
    "is_by_category",
    "read_class_names",
    "read_cvat",
    "read_labelme",
    "read_masks",
    "read_voc",
    "read_yolo",
]
