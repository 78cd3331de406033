"""YOLO: a text file for each image. `reader.py` reads the files, `lines.py` says what the numbers of a line mean."""
