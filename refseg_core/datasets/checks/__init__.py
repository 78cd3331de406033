"""Checks of whole datasets of any format: frames, boxes against masks, files that are named twice or otherwise.

Not here: what single entries must say (`refseg_core/datasets/builder.py`, `refseg_core/datasets/coco/`).
"""
