"""Models as files and on a device: weights found, downloaded and loaded, and how fast the models are.

Not here: what the models compute (`refseg_core/models/`).
"""
