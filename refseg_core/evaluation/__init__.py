"""Step 6: compares detections with the ground truth, by COCO's protocol, LVIS's, VOC's, or pixel by pixel.

`protocols.py` chooses; `coco.py`, `lvis.py`, `voc.py` and `semantic.py` are the four. What they share: `instances.py`
selects what counts, and `summary.py` turns numbers into the table of metrics. Instances are compared in `overlaps.py`,
which pairs boxes or masks form, `matching.py`, which detection gets which annotation, and `curves.py`, precision and
recall. `diagnostics.py` adds what explains the numbers, with `bootstrap.py` for their uncertainty; `report.py` turns
all of it into text.
"""
