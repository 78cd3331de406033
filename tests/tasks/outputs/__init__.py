"""Tests of `tasks/outputs/`."""
