"""Tests of `refseg_core/evaluation/`."""
