"""Tests of `refseg_core/masks/`."""
