"""Pictures of what the method sees and finds, for people to look at: arrays in, arrays out.

`instances.py` draws masks, boxes and labels over an image; `panels.py` puts pictures together; the rest serves them:
`colours.py`, `lettering.py` (fonts and spelling), `coverage.py` (masks at a picture's size), `painting.py` (one
stroke), `plates.py` (labels and where they go), `encoding.py` (JPEG and PNG). Files are written elsewhere.
"""

from refseg_core.pictures.colours import category_colours
from refseg_core.pictures.encoding import to_jpeg, to_png
from refseg_core.pictures.instances import draw_instances
from refseg_core.pictures.lettering import Typeface
from refseg_core.pictures.painting import Picture
from refseg_core.pictures.panels import contact_sheet, reference_panel, side_by_side

__all__ = [
    "Picture",
    "Typeface",
    "category_colours",
    "contact_sheet",
    "draw_instances",
    "reference_panel",
    "side_by_side",
    "to_jpeg",
    "to_png",
]
