"""Tests of `tasks/runtime/`."""
