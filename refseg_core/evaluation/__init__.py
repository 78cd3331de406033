"""Step 6: compares detections with the ground truth, by COCO's protocol, LVIS's, VOC's, or pixel by pixel.

`protocols.py` chooses; `coco.py`, `lvis.py`, `voc.py` and `semantic.py` are the four. What they share: `instances.py`
says what counts, `summary.py` reads the numbers off, `metric_rows.py` makes of them the table of metrics,
and `report.py` text.
COCO's comparison, which is LVIS's too, goes by `overlaps.py`, which pairs boxes or masks form, and `matching.py`, who
gets whom, to `curves.py`, precision and recall. `diagnostics.py` adds what a reviewer asks, with `bootstrap.py` for how
sure it is.
"""

from refseg_core.evaluation.diagnostics import Review
from refseg_core.evaluation.protocols import VERSION, choose_protocol, evaluate, review
from refseg_core.evaluation.report import (
    HOW_COMPARED,
    category_table,
    confusion_table,
    findings,
    metrics_table,
    score_table,
)
from refseg_core.evaluation.semantic import require_masks

__all__ = [
    "HOW_COMPARED",
    "VERSION",
    "Review",
    "category_table",
    "choose_protocol",
    "confusion_table",
    "evaluate",
    "findings",
    "metrics_table",
    "require_masks",
    "review",
    "score_table",
]
