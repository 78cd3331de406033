"""Draws the scenes of the demo, and those that its models learn from.

The demo's own scenes come with the package as files, which `python -m tests.demo_scenes` writes. Not here: training,
which is in `tests/demo_training/`.
"""
