"""COCO json into tables: images, annotations and categories, checked.

`parser.py` reads a file; `columns.py` and `annotations.py` gather what it says, `segmentations.py` reads one mask,
`mask_source.py` takes masks from another file, `json_stream.py` and `json_values.py` read the document. `writer.py`
writes detections as COCO json.
"""
