"""Pictures as files' contents."""

import io

import numpy as np
from PIL import Image

from refseg_core.pictures.painting import Picture


def to_jpeg(picture: Picture, quality: int = 90) -> bytes:
    """The picture, uint8 RGB [H, W, 3], as a JPEG file; colours at full resolution, so that letters stay sharp."""
    return _encoded(picture, "JPEG", quality=quality, subsampling=0)


def to_png(picture: Picture) -> bytes:
    """The picture, uint8 RGB [H, W, 3], as a PNG file: without loss, some four times larger."""
    return _encoded(picture, "PNG")


def _encoded(picture: Picture, file_format: str, **options: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, file_format, **options)
    return content.getvalue()
