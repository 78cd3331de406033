"""Step 0: COCO json, or a plain listing, into tables: images, annotations and categories, checked.

`dataset.py` tells the story; `columns.py` and `annotations.py` gather what the file says, `segmentations.py` reads one
mask, `borrowed_masks.py` takes masks from another file, `json_stream.py` and `json_values.py` read the document,
`problems.py` gathers what is wrong with it.
"""

from refseg_core.coco.borrowed_masks import MaskFile
from refseg_core.coco.dataset import CocoDataset, dataset_of_files, parse_coco, select_images
from refseg_core.coco.file_names import check_file_name

__all__ = ["CocoDataset", "MaskFile", "check_file_name", "dataset_of_files", "parse_coco", "select_images"]
