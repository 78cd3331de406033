"""Step 6: compares detections with the ground truth, as COCO does.

`instances.py` says what is compared, `curves.py` lets pycocotools compare it, `coco.py` reads the numbers off, and
`rows.py` makes of them the table of metrics, and text of that.
"""

from refseg_core.evaluation.coco import evaluate_coco as evaluate
from refseg_core.evaluation.rows import category_table, metrics_table

__all__ = ["category_table", "evaluate", "metrics_table"]
