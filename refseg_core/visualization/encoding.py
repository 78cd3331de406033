"""Pictures as files' contents."""

import io

import numpy as np
from PIL import Image

from refseg_core.visualization.drawing import Picture, resized

_QUALITIES = (85, 75, 65)  # below that, letters get hard to read, and a smaller picture is better
_SMALLER = 0.8


def to_jpeg(picture: Picture, quality: int = 90) -> bytes:
    """Returns the picture, uint8 RGB [H, W, 3], as JPEG; colors at full resolution, so that letters stay sharp."""
    return _encoded(picture, "JPEG", quality=quality, subsampling=0)


def to_small_jpeg(picture: Picture, most_bytes: int) -> bytes:
    """Returns the picture, uint8 RGB [H, W, 3], as JPEG of at most that many bytes: coarser, then smaller.

    The smallest there is, one pixel, takes some 700 bytes.
    """
    while True:
        for quality in _QUALITIES:
            content = to_jpeg(picture, quality)
            if len(content) <= most_bytes or max(picture.shape[:2]) == 1:
                return content
        height, width = (max(1, int(length * _SMALLER)) for length in picture.shape[:2])
        picture = np.array(resized(picture, (height, width)))


def to_png(picture: Picture) -> bytes:
    """Returns the picture, uint8 RGB [H, W, 3], as a PNG file: without loss, some four times larger."""
    return _encoded(picture, "PNG")


def _encoded(picture: Picture, file_format: str, **options: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(content, file_format, **options)
    return content.getvalue()
