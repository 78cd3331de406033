"""Datasets where they lie: annotation files, lists of names, images.

Not here: what the formats mean (`refseg_core/datasets/`).
"""
