"""The stages of labeling an image, which may be measured."""

from collections.abc import Callable
from contextlib import AbstractContextManager

Stage = Callable[[str], AbstractContextManager[object]]
"""Wraps a stage of the work, by its name, to measure how long each takes."""
