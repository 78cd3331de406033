"""Tests of `tasks/models/`."""
