"""Tests of `refseg_core/visualization/`."""
