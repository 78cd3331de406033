"""Tests of `refseg_core/demo/`."""
