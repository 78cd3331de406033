"""Tests of `tasks/datasets/`."""
