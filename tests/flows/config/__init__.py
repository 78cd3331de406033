"""Tests of `flows/config/`."""
