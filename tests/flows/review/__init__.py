"""Tests of `flows/review/`."""
