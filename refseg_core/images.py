"""Image files: from their bytes to RGB pixels, or to the reason why not.

Reading the bytes is not here, nor is resizing or scaling (`refseg_core/models/preprocessing.py`). Pillow's process-wide
settings (its pixel limit, its tolerance for truncated files) are neither set nor relied on.
"""

import io
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from refseg_core.errors import ImageError

try:
    from pillow_heif import HeifImageFile
except ImportError:  # the extra `heif`
    HeifImageFile = None

VERSION = 1  # of the pixels of a decoded file

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""What HEIC files' names end with: they are read where pillow-heif is installed."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".avif"}
    | {".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf", ".ppm", ".pgm", ".pbm", ".pnm"}
    | (frozenset() if HeifImageFile is None else HEIF_SUFFIXES)
)
"""What an image's name ends with, in lower case, when a folder or prefix is listed."""

WHITE = 65535
"""The value of 16-bit grayscale that is white, unless a dataset uses fewer bits."""

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")


class _Format(NamedTuple):
    name: str
    signature: re.Pattern[bytes]
    reader: Callable[[io.BytesIO], ImageFile.ImageFile]
    end_marker: bytes = b""


_JPEG_2000 = rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"  # a file, or a bare stream
_HEIF = rb".{4}ftyp(?:hei[cxsm]|hev[cxms]|mif1|msf1)"
_GRAY_PHOTOMETRICS, _COLORS = (0, 1), 3  # TIFF's tags for gray pixels, and bands that a color needs

# The readers are called directly and not through Image.open, whose check against Pillow's process-wide pixel limit
# warns or fails at sizes of its own, and which would also try readers that start external programs (EPS).
_FORMATS = (
    _Format("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile, b"\xff\xd9"),
    _Format("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile, b"IEND"),
    _Format("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    _Format("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
    _Format("BMP", re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    _Format("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    _Format("PPM", re.compile(rb"P[1-6]\s"), PpmImagePlugin.PpmImageFile),
    _Format("AVIF", re.compile(rb".{4}ftypavi[fs]", re.DOTALL), AvifImagePlugin.AvifImageFile),
    _Format("JPEG 2000", re.compile(_JPEG_2000), Jpeg2KImagePlugin.Jpeg2KImageFile, b"\xff\xd9"),
    *([] if HeifImageFile is None else [_Format("HEIC", re.compile(_HEIF, re.DOTALL), HeifImageFile)]),
)

_PNG = next(known for known in _FORMATS if known.name == "PNG")

_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}
"""EXIF's orientations: what turns the stored pixels into the picture that people see."""

_INVERSE_ORIENTATION = {6: 8, 8: 6}
_SIDEWAYS = (5, 6, 7, 8)
_REASON_LENGTH = 200


def decode_image(
    data: bytes,
    *,
    max_pixels: int,
    declared_size: tuple[int, int] = (0, 0),
    is_upright: bool = False,
    white: int = WHITE,
) -> Pixels:
    """Decodes an image file into RGB pixels: uint8 [H, W, 3], in the original frame.

    `declared_size` is the (height, width) that the annotations declare, and decides the frame, since boxes and
    masks were drawn in it: if it is the stored size, the pixels stay as they are stored; if it is only that of the
    picture turned upright by its EXIF orientation, they are turned. Where a side is 0, unknown, they are turned as
    people see them. `is_upright`: the annotations were drawn on the picture as people see it, which decides where the
    declared size fits both ways: squares, and pictures that are mirrored or stand on their head.

    The first frame of an animation and the first page of a document count. Alpha and transparency are dropped, as
    Pillow's `convert("RGB")` does, whatever color lies below. 16-bit grayscale (0..65535) is divided by 257 and
    rounded; another value of `white`, as that of files of 12 bits, becomes 255. Color profiles are not applied.

    Raises ImageError with a short reason for everything that is not completely and faithfully decoded: empty,
    damaged and truncated files, other formats, more than `max_pixels` pixels (seen in the header, before anything
    is decoded), floating-point pixels, or a declared size that fits neither way.
    """
    kind = _format_of(data)
    image = _opened(kind, data)
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{image.height} x {image.width} pixels (height x width) are more than the limit of {max_pixels}; "
            "raise labeling.max_image_pixels if it is to be labeled, or scale it down"
        )
    if data.find(kind.end_marker, image.fp.tell() if image.fp else 0) < 0:
        # Pillow decodes a file whose tail is zeros, such as a cut download into preallocated space.
        raise ImageError(f"the {kind.name} file is truncated: its end marker is missing")
    stored, orientation = _guarded(kind, lambda: _stored_pixels(image, white))
    return np.ascontiguousarray(_oriented(stored, orientation, declared_size, is_upright=is_upright))


class ImageHeader(NamedTuple):
    """What the beginning of an image file says: the size of the stored pixels, and EXIF's orientation, 1 for none."""

    height: int
    width: int
    orientation: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) of the pixels as the file stores them."""
        return self.height, self.width

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) of the picture as people see it."""
        return (self.width, self.height) if self.orientation in _SIDEWAYS else (self.height, self.width)


def is_image(start: bytes) -> bool:
    """Returns whether a file that begins so is an image in a format that is read."""
    return any(known.signature.match(start) for known in _FORMATS)


def image_header(data: bytes) -> ImageHeader:
    """Reads an image file's header, from its first bytes alone.

    Raises ImageError where they are not the beginning of an image, or too few.
    """
    kind = _format_of(data)
    image = _opened(kind, data)
    found: object = _guarded(kind, lambda: image.getexif().get(ExifTags.Base.Orientation))
    orientation = found if isinstance(found, int) and found in _UPRIGHT else 1
    if orientation in _SIDEWAYS and kind.name == "TIFF":  # Pillow says a TIFF's size as it will be
        return ImageHeader(image.width, image.height, orientation)
    return ImageHeader(image.height, image.width, orientation)


def may_have_16_bits(start: bytes) -> bool:
    """Returns whether a file that begins so may be 16-bit grayscale; so may one whose header lies further behind."""
    try:
        return _is_16_bit(_opened(_format_of(start), start))
    except ImageError:
        return True


def largest_gray(data: bytes, *, max_pixels: int) -> int | None:
    """Returns the largest value of a file of 16-bit grayscale; None for any other. Raises ImageError."""
    kind = _format_of(data)
    image = _opened(kind, data)
    if not _is_16_bit(image) or image.width * image.height > max_pixels:
        return None
    return _guarded(kind, lambda: int(np.asarray(image).max()))


def decode_values(data: bytes, *, max_pixels: int, as_colors: bool = False) -> npt.NDArray[np.int32]:
    """Returns the pixels of a PNG file as the numbers that they stand for, int32 [H, W]: palette indices, gray values.

    Of colors, r * 65536 + g * 256 + b, and a gray value where all three are equal; `as_colors`: of a palette too. Alpha
    is dropped. Raises ImageError where it is no PNG file, damaged, or has more than `max_pixels` pixels.
    """
    return _guarded(_PNG, lambda: _values(_opened_png(data, max_pixels), as_colors))


def decode_alpha(data: bytes, *, max_pixels: int) -> Pixels | None:
    """Returns how opaque the pixels of a PNG file are, uint8 [H, W]; None where all are. Raises ImageError."""

    def alpha() -> Pixels | None:
        image = _opened_png(data, max_pixels)
        return np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None

    return _guarded(_PNG, alpha)


def _opened_png(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    kind = _format_of(data)
    if kind.name != "PNG":
        raise ImageError(f"a mask is a PNG file, and this is a {kind.name} file, which would not keep its numbers")
    image = _opened(kind, data)
    if image.width * image.height > max_pixels:
        raise ImageError(f"{image.height} x {image.width} pixels are more than the limit of {max_pixels}")
    return image


def _values(file: ImageFile.ImageFile, as_colors: bool) -> npt.NDArray[np.int32]:
    file.load()
    image = file.convert("RGB") if as_colors and file.mode == "P" else file
    if image.mode in ("RGB", "RGBA"):
        red, green, blue = np.moveaxis(np.asarray(image)[..., :3].astype(np.int32), 2, 0)
        is_gray = (red == green) & (green == blue)
        return np.asarray(np.where(is_gray, red, (red << 16) + (green << 8) + blue), dtype=np.int32)
    values = np.asarray(image)
    return (values[..., 0] if image.mode == "LA" else values).astype(np.int32)


def _format_of(data: bytes) -> _Format:
    if not data:
        raise ImageError("the file is empty (0 bytes)")
    for known in _FORMATS:
        if known.signature.match(data):
            return known
    names = ", ".join(known.name for known in _FORMATS)
    raise ImageError(f"not an image in a known format ({names}): the file begins with {data[:12]!r}")


def _opened(kind: _Format, data: bytes) -> ImageFile.ImageFile:
    """Reads an image's header."""
    try:
        return _guarded(kind, lambda: kind.reader(io.BytesIO(data)))
    except ImageError:
        bands = _gray_bands(data) if kind.name == "TIFF" else 1
        if bands < _COLORS:
            raise
    raise ImageError(
        f"the TIFF file has {bands} gray bands, as of a multispectral camera, and does not say which of them are red, "
        "green and blue: save those three as an RGB image"
    )


def _gray_bands(data: bytes) -> int:
    """Returns how many bands a TIFF file of gray pixels has; 1 for any other, and where its tags cannot be read."""
    stream = io.BytesIO(data)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        return int(tags.get(277, 1)) if tags.get(262) in _GRAY_PHOTOMETRICS else 1
    except Exception:  # as in _guarded
        return 1


def _guarded(kind: _Format, decode: Callable[[], T]) -> T:
    """Runs a step of decoding; whatever it raises becomes an ImageError.

    Everything is caught because hostile bytes make Pillow raise anything: SyntaxError, struct.error, KeyError, a
    warning where warnings are errors, MemoryError for sizes that only the header promises.
    """
    try:
        return decode()
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"too large for Pillow's own limit: {error}") from error
    except Exception as error:
        reason = (str(error) or type(error).__name__)[:_REASON_LENGTH]
        raise ImageError(f"the {kind.name} file is truncated or damaged: {reason}") from error


def _stored_pixels(image: ImageFile.ImageFile, white: int) -> tuple[Pixels, int]:
    """Decodes: the RGB pixels as the file stores them, and the EXIF orientation, 1 if there is none."""
    orientation: object = image.getexif().get(ExifTags.Base.Orientation)
    image.load()
    pixels = _to_rgb(image, white)
    if not isinstance(orientation, int) or orientation not in _UPRIGHT:
        return pixels, 1
    if ExifTags.Base.Orientation not in image.getexif():
        # Pillow turns TIFF files upright on its own, and then forgets the orientation.
        pixels = _UPRIGHT[_INVERSE_ORIENTATION.get(orientation, orientation)](pixels)
    return pixels, orientation


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _to_rgb(image: Image.Image, white: int) -> Pixels:
    if image.mode == "F":
        raise ImageError("floating-point pixels have no known range; convert the image to 8 or 16 bits")
    if _is_16_bit(image):
        return _gray16_to_rgb(np.asarray(image), white)
    # Alpha is dropped, and transparency info would only make convert() warn.
    image.info.pop("transparency", None)
    return np.array(image.convert("RGB"))


def _gray16_to_rgb(values_HW: npt.NDArray[np.integer], white: int) -> Pixels:
    if values_HW.min() < 0 or values_HW.max() > np.iinfo(np.uint16).max:
        raise ImageError(
            f"grayscale values from {values_HW.min()} to {values_HW.max()} do not fit into 16 bits; "
            "convert the image to 8 or 16 bits"
        )
    scaled_HW = (np.minimum(values_HW, white).astype(np.int64) * 255 + white // 2) // white
    gray_HW = scaled_HW.astype(np.uint8)
    return np.repeat(gray_HW[:, :, None], 3, axis=2)


def _oriented(stored: Pixels, orientation: int, declared_size: tuple[int, int], *, is_upright: bool) -> Pixels:
    upright = _UPRIGHT[orientation](stored) if orientation != 1 else stored
    if not all(declared_size):
        return upright
    for pixels in (upright, stored) if is_upright else (stored, upright):
        if pixels.shape[:2] == declared_size:
            return pixels
    raise ImageError(
        f"the image has {stored.shape[0]} x {stored.shape[1]} pixels (height x width), "
        f"but the annotations declare {declared_size[0]} x {declared_size[1]}"
    )
