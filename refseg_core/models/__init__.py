"""Segmenter and encoder: how they are built, loaded and made fast. Not here: the steps that ask them, nor files."""
