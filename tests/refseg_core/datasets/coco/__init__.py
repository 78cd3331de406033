"""Tests of `refseg_core/datasets/coco/`."""
