"""Tests of `flows/benchmarks/`."""
