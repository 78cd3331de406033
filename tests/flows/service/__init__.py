"""Tests of `flows/service/`."""
