"""Tests of `tasks/storage/`."""
