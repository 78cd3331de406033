"""Trying things out before a whole run: other references, a pilot on some images, a study of how many are enough."""
