"""Segmenter and encoder: how they are built, loaded and made fast. The steps that use them are not here."""
