"""Pictures of what the method sees and finds, for people to look at: arrays in, arrays out.

`instances.py` draws masks, boxes and labels over an image; `panels.py` shows one instance, or two pictures side by
side; `sheets.py` puts many on a sheet; the rest serves them:
`colours.py`, `lettering.py` (fonts and spelling), `coverage.py` (masks at a picture's size), `painting.py` (one
stroke), `plates.py` (labels and where they go), `encoding.py` (JPEG and PNG). Files are written elsewhere.
"""

from refseg_core.pictures.colours import category_colours
from refseg_core.pictures.encoding import to_jpeg, to_png, to_small_jpeg
from refseg_core.pictures.instances import draw_instances
from refseg_core.pictures.lettering import Typeface
from refseg_core.pictures.painting import Picture
from refseg_core.pictures.panels import instance_panel, reference_panel, side_by_side
from refseg_core.pictures.sheets import contact_sheet

__all__ = [
    "Picture",
    "Typeface",
    "category_colours",
    "contact_sheet",
    "draw_instances",
    "instance_panel",
    "reference_panel",
    "side_by_side",
    "to_jpeg",
    "to_png",
    "to_small_jpeg",
]
