"""Step 0: COCO json into tables: images, annotations and categories, checked.

`reading.py` tells the story; `columns.py` and `annotations.py` gather what the file says, `segmentations.py` reads one
mask, `borrowed_masks.py` takes masks from another file, `json_stream.py` and `json_values.py` read the document.
"""

from refseg_core.coco.borrowed_masks import MaskFile
from refseg_core.coco.columns import may_be_federated
from refseg_core.coco.reading import parse_coco

__all__ = ["MaskFile", "may_be_federated", "parse_coco"]
