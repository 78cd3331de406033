"""The store: artifacts by their keys, with their tables and manifests, labels, and what became of all that.

Not here: how bytes are read and put (`tasks/storage/`).
"""
