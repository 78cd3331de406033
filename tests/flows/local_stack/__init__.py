"""Tests of `flows/local_stack/`."""
