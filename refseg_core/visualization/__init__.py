"""Pictures of what the method sees and finds, for people to look at: arrays in, arrays out.

`annotate.py` draws masks, boxes and labels over an image; `panels.py` shows one instance, or two pictures side by
side; `contact_sheet.py` puts many on a sheet; the rest serves them: `palette.py`, `text.py` (font and spelling),
`mask_coverage.py` (masks at a picture's size), `drawing.py` (one stroke), `label_placement.py` (labels and where they
go), `encoding.py` (JPEG and PNG). Files are written elsewhere.
"""

from refseg_core.visualization.annotate import draw_instances
from refseg_core.visualization.contact_sheet import contact_sheet
from refseg_core.visualization.drawing import Picture
from refseg_core.visualization.encoding import to_jpeg, to_png, to_small_jpeg
from refseg_core.visualization.palette import category_colors
from refseg_core.visualization.panels import instance_panel, reference_panel, side_by_side, surroundings

__all__ = [
    "Picture",
    "category_colors",
    "contact_sheet",
    "draw_instances",
    "instance_panel",
    "reference_panel",
    "side_by_side",
    "surroundings",
    "to_jpeg",
    "to_png",
    "to_small_jpeg",
]
