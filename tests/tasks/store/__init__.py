"""Tests of `tasks/store/`."""
