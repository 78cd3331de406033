"""Tests of `refseg_core/settings/`."""
