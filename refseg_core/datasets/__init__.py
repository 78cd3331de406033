"""Step 0, annotation files into tables: each format into the same ones, with the same checks.

COCO's is read in `coco/`. `pascal_voc.py`, `yolo.py`, `labelme.py`, `cvat.py` and `mask_images.py` each read another
format; `format_detection.py` tells which one it is. `builder.py` turns what they find into tables, with the columns of
`coco/`; `image_lookup.py` finds the image that a file belongs to, `class_names.py` reads lists of categories,
`safe_xml.py` is the only door to XML. `dataset.py` is the tables themselves, `image_paths.py` what a file's name may
be, and `category_mapping.py` how two datasets' ids belong together.

Everywhere: an image's id is its file name, an annotation's `<annotation file>#<number in the file, from 1>`. Files come
as pairs of name and bytes, in the order of their names, and may be an iterator: none is held longer than needed.
"""

from refseg_core.datasets.builder import NamedFile
from refseg_core.datasets.class_names import CLASS_FILES, read_class_names
from refseg_core.datasets.cvat import read_cvat
from refseg_core.datasets.format_detection import SUFFIXES, annotation_files, format_of_document, formats_of_files
from refseg_core.datasets.image_lookup import ImageNames
from refseg_core.datasets.labelme import read_labelme
from refseg_core.datasets.mask_images import is_by_category, read_masks
from refseg_core.datasets.pascal_voc import read_voc
from refseg_core.datasets.yolo import read_yolo

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
