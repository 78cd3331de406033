"""Tests of `refseg_core/labeling/kept/`."""
