"""The image files that annotations are about: what they may be called, and which one a file of annotations means.

Not here: decoding them (`refseg_core/images.py`), and opening any (`tasks/datasets/image_reader.py`).
"""
