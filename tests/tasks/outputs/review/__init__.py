"""Tests of `tasks/outputs/review/`."""
