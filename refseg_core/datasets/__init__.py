"""Step 0, annotation files into tables: each format into the same ones, with the same checks.

The formats are registered in `refseg_core/settings/choices.py`. COCO's is read in `coco/`, YOLO's in `yolo/`;
`pascal_voc.py`, `labelme.py`, `cvat.py` and `mask_images.py` each read another one. `format_detection.py` detects which
one it is. `builder.py` turns what they find into tables, with the columns of `coco/`; `image_files/` finds the image
that a file belongs to and says what its name can be, `class_names.py` reads lists of categories, `values/` numbers
that are text and, alone, XML. `dataset.py` has the tables themselves, `checks/` compares them with their images,
`oddities.py` has what was odd or guessed, and `category_mapping.py` says how two datasets' category ids correspond.

Everywhere: an image's id is its file name, an annotation's `<annotation file>#<number in the file, from 1>`. Files come
as pairs of name and bytes, in the order of their names, and may be an iterator: none is held longer than needed.
"""
