"""Step 0: COCO json into tables: images, annotations and categories, checked.

`parser.py` tells the story; `columns.py` and `annotations.py` gather what the file says, `segmentations.py` reads one
mask, `mask_source.py` takes masks from another file, `json_stream.py` and `json_values.py` read the document.
`writer.py` goes the other way, from detections to a file.
"""

from refseg_core.datasets.coco.columns import FEDERATED_VERSION, may_be_federated
from refseg_core.datasets.coco.mask_source import MaskFile
from refseg_core.datasets.coco.parser import parse_coco

__all__ = ["FEDERATED_VERSION", "MaskFile", "may_be_federated", "parse_coco"]
