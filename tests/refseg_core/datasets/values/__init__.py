"""Tests of `refseg_core/datasets/values/`."""
