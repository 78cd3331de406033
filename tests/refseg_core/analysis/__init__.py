"""Tests of `refseg_core/analysis/`."""
