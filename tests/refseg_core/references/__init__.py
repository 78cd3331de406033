"""Tests of `refseg_core/references/`."""
