"""Tests of `flows/reports/`."""
