"""Tests of `refseg_core/models/`."""
