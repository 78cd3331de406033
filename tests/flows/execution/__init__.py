"""Tests of `flows/execution/`."""
