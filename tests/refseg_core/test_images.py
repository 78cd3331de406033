"""Image files become the right pixels, or an ImageError that says why not."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from refseg_core.errors import ImageError
from refseg_core.images import IMAGE_SUFFIXES, decode_image

MAX_PIXELS = 1_000_000
ORIENTATION = 0x0112

Pixels = npt.NDArray[np.uint8]


def _encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _noise(height: int, width: int, *channels: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def _gray(values_HW: npt.NDArray[Any]) -> Pixels:
    return np.repeat(values_HW[:, :, None], 3, axis=2).astype(np.uint8)


def _palette_image(indices_HW: Pixels, palette: Pixels) -> Image.Image:
    image = Image.fromarray(indices_HW, "L").convert("P")
    image.putdata(indices_HW.ravel().tolist())
    image.putpalette(palette.tobytes())
    return image


RGB = _noise(19, 23, 3)
GRAY = _noise(19, 23)
BITS = GRAY > 127
PALETTE = _noise(1, 256, 3, seed=1)[0]
DEEP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
DEEP_AS_8_BIT = np.rint(DEEP.astype(np.float64) / 257).astype(np.uint8)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _animation(file_format: str) -> bytes:
    frames = [Image.fromarray(_noise(19, 23, seed=seed)) for seed in (5, 6, 7)]
    return _encode(frames[0], file_format, save_all=True, append_images=frames[1:])


def _deep_tiff_big_endian() -> bytes:
    return _encode(Image.frombytes("I;16B", (256, 256), DEEP.astype(">u2").tobytes()), "TIFF")


def _pgm_16() -> bytes:
    return b"P5 256 256 65535\n" + DEEP.astype(">u2").tobytes()


LOSSLESS: dict[str, tuple[Callable[[], bytes], Pixels]] = {
    "RGB PNG": (lambda: _encode(Image.fromarray(RGB), "PNG"), RGB),
    "RGB BMP": (lambda: _encode(Image.fromarray(RGB), "BMP"), RGB),
    "RGB PPM": (lambda: _encode(Image.fromarray(RGB), "PPM"), RGB),
    "RGB WEBP": (lambda: _encode(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "RGB TIFF": (lambda: _encode(Image.fromarray(RGB), "TIFF"), RGB),
    "RGB TIFF, LZW": (lambda: _encode(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), RGB),
    "interlaced palette GIF": (
        lambda: _encode(_palette_image(GRAY, PALETTE), "GIF", interlace=1),
        PALETTE[GRAY],
    ),
    "grayscale PNG": (lambda: _encode(Image.fromarray(GRAY), "PNG"), _gray(GRAY)),
    "grayscale TIFF": (lambda: _encode(Image.fromarray(GRAY), "TIFF"), _gray(GRAY)),
    "palette PNG": (lambda: _encode(_palette_image(GRAY, PALETTE), "PNG"), PALETTE[GRAY]),
    "palette PNG, transparent index": (
        lambda: _encode(_palette_image(GRAY, PALETTE), "PNG", transparency=3),
        PALETTE[GRAY],
    ),
    "palette PNG, alpha per entry": (
        lambda: _encode(_palette_image(GRAY, PALETTE), "PNG", transparency=bytes(range(256))),
        PALETTE[GRAY],
    ),
    "palette GIF, transparent index": (
        lambda: _encode(_palette_image(GRAY, PALETTE), "GIF", transparency=GRAY[0, 0]),
        PALETTE[GRAY],
    ),
    "RGB PNG, transparent color": (
        lambda: _encode(Image.fromarray(RGB), "PNG", transparency=tuple(RGB[0, 0].tolist())),
        RGB,
    ),
    "grayscale PNG, transparent level": (
        lambda: _encode(Image.fromarray(GRAY), "PNG", transparency=int(GRAY[0, 0])),
        _gray(GRAY),
    ),
    "RGBA PNG": (lambda: _encode(Image.fromarray(np.dstack([RGB, GRAY])), "PNG"), RGB),
    "RGBA TIFF": (lambda: _encode(Image.fromarray(np.dstack([RGB, GRAY])), "TIFF"), RGB),
    "LA PNG": (lambda: _encode(Image.fromarray(np.dstack([GRAY, GRAY[::-1]]), "LA"), "PNG"), _gray(GRAY)),
    "1-bit PNG": (lambda: _encode(Image.fromarray(BITS), "PNG"), _gray(BITS * 255)),
    "1-bit TIFF": (lambda: _encode(Image.fromarray(BITS), "TIFF", compression="group4"), _gray(BITS * 255)),
    "1-bit BMP": (lambda: _encode(Image.fromarray(BITS), "BMP"), _gray(BITS * 255)),
    "16-bit PNG": (lambda: _encode(Image.fromarray(DEEP), "PNG"), _gray(DEEP_AS_8_BIT)),
    "16-bit TIFF": (lambda: _encode(Image.fromarray(DEEP), "TIFF"), _gray(DEEP_AS_8_BIT)),
    "16-bit TIFF, big endian": (_deep_tiff_big_endian, _gray(DEEP_AS_8_BIT)),
    "16-bit PGM": (_pgm_16, _gray(DEEP_AS_8_BIT)),
    "32-bit TIFF with 16-bit values": (
        lambda: _encode(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
        _gray(DEEP_AS_8_BIT),
    ),
    "animated GIF": (lambda: _animation("GIF"), _gray(_noise(19, 23, seed=5))),
    "animated PNG": (lambda: _animation("PNG"), _gray(_noise(19, 23, seed=5))),
    "multi-page TIFF": (lambda: _animation("TIFF"), _gray(_noise(19, 23, seed=5))),
    "1x1 PNG": (lambda: _encode(Image.fromarray(RGB[:1, :1]), "PNG"), RGB[:1, :1]),
    "1x1 GIF": (lambda: _encode(_palette_image(GRAY[:1, :1], PALETTE), "GIF"), PALETTE[GRAY[:1, :1]]),
    "very wide PNG": (lambda: _encode(Image.fromarray(_noise(1, 60_000, 3)), "PNG"), _noise(1, 60_000, 3)),
    "very tall BMP": (lambda: _encode(Image.fromarray(_noise(60_000, 1, 3)), "BMP"), _noise(60_000, 1, 3)),
}

SMALL_FILES: dict[str, bytes] = {
    "PNG": _encode(Image.fromarray(RGB), "PNG"),
    "palette PNG": _encode(_palette_image(GRAY, PALETTE), "PNG", transparency=3),
    "16-bit PNG": _encode(Image.fromarray(DEEP[:9, :9]), "PNG"),
    "JPEG": _encode(Image.fromarray(RGB), "JPEG", exif=_exif(6)),
    "progressive JPEG": _encode(Image.fromarray(RGB), "JPEG", progressive=True),
    "CMYK JPEG": _encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "GIF": _encode(_palette_image(GRAY, PALETTE), "GIF"),
    "animated GIF": _animation("GIF"),
    "TIFF": _encode(Image.fromarray(RGB), "TIFF", exif=_exif(8)),
    "LZW TIFF": _encode(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
    "1-bit TIFF": _encode(Image.fromarray(BITS), "TIFF", compression="group4"),
    "BMP": _encode(Image.fromarray(RGB), "BMP"),
    "palette BMP": _encode(_palette_image(GRAY, PALETTE), "BMP"),
    "WEBP": _encode(Image.fromarray(RGB), "WEBP"),
    "lossless WEBP": _encode(Image.fromarray(RGB), "WEBP", lossless=True, exif=_exif(3)),
    "PPM": _encode(Image.fromarray(RGB), "PPM"),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_file_decodes_to_exactly_its_pixels(name: str) -> None:
    encode, expected = LOSSLESS[name]
    pixels = decode_image(encode(), max_pixels=MAX_PIXELS)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("name", ["RGB PNG", "16-bit PNG", "1-bit PNG"])
def test_the_pixels_are_contiguous_and_writable(name: str) -> None:
    pixels = decode_image(LOSSLESS[name][0](), max_pixels=MAX_PIXELS)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_a_jpeg_decodes_as_pillow_decodes_it(options: dict[str, Any]) -> None:
    data = _encode(Image.fromarray(RGB), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode_image(data, max_pixels=MAX_PIXELS), expected)


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_inks_become_their_colors(file_format: str) -> None:
    inks = {
        (255, 0, 0, 0): (0, 255, 255),
        (0, 255, 0, 0): (255, 0, 255),
        (0, 0, 255, 0): (255, 255, 0),
        (0, 0, 0, 255): (0, 0, 0),
        (0, 0, 0, 0): (255, 255, 255),
    }
    for ink, color in inks.items():
        data = _encode(Image.new("CMYK", (16, 8), ink), file_format)
        pixels = decode_image(data, max_pixels=MAX_PIXELS)
        assert pixels.shape == (8, 16, 3)
        assert np.abs(pixels.astype(int) - color).max() <= 2


def test_16_bit_grayscale_keeps_its_ends_and_its_8_bit_levels() -> None:
    levels = np.arange(256, dtype=np.uint16)[None] * 257
    pixels = decode_image(_encode(Image.fromarray(levels), "PNG"), max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(256))


@pytest.mark.parametrize("value", [-1, 65_536, 2**31 - 1])
def test_grayscale_beyond_16_bits_is_refused(value: int) -> None:
    data = _encode(Image.fromarray(np.array([[0, value]], dtype=np.int32)), "TIFF")
    with pytest.raises(ImageError, match=rf"{value} do not fit|from {value} to"):
        decode_image(data, max_pixels=MAX_PIXELS)


def test_floating_point_pixels_are_refused() -> None:
    data = _encode(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(data, max_pixels=MAX_PIXELS)


# --- EXIF orientation ---------------------------------------------------------------------------------------------

SWAPPING = (5, 6, 7, 8)
ORIENTED_FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "TIFF": {},
    "TIFF, deflate": {"compression": "tiff_deflate"},
    "WEBP": {"lossless": True},
    "JPEG": {},
}


def _oriented_file(name: str, pixels: Pixels, orientation: int) -> tuple[bytes, Pixels, Pixels]:
    """The file, its stored pixels and its upright pixels (by Pillow's own transposition)."""
    file_format, options = name.partition(",")[0], ORIENTED_FORMATS[name]
    data = _encode(Image.fromarray(pixels), file_format, exif=_exif(orientation), **options)
    plain = Image.open(io.BytesIO(_encode(Image.fromarray(pixels), file_format, **options))).convert("RGB")
    stored = np.asarray(plain)
    plain.getexif()[ORIENTATION] = orientation
    return data, stored, np.asarray(ImageOps.exif_transpose(plain))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ORIENTED_FORMATS)
def test_without_a_declared_size_images_are_turned_as_people_see_them(name: str, orientation: int) -> None:
    data, _, upright = _oriented_file(name, RGB, orientation)
    np.testing.assert_array_equal(decode_image(data, max_pixels=MAX_PIXELS), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ORIENTED_FORMATS)
def test_a_declared_size_that_is_the_stored_one_keeps_the_stored_pixels(name: str, orientation: int) -> None:
    data, stored, _ = _oriented_file(name, RGB, orientation)
    pixels = decode_image(data, max_pixels=MAX_PIXELS, declared_size=(19, 23))
    np.testing.assert_array_equal(pixels, stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ORIENTED_FORMATS)
def test_a_square_image_of_the_declared_size_is_never_turned(name: str, orientation: int) -> None:
    data, stored, _ = _oriented_file(name, RGB[:, :19], orientation)
    pixels = decode_image(data, max_pixels=MAX_PIXELS, declared_size=(19, 19))
    np.testing.assert_array_equal(pixels, stored)


@pytest.mark.parametrize("orientation", SWAPPING)
@pytest.mark.parametrize("name", ORIENTED_FORMATS)
def test_a_declared_size_that_is_only_the_upright_one_turns_the_image(name: str, orientation: int) -> None:
    data, _, upright = _oriented_file(name, RGB, orientation)
    pixels = decode_image(data, max_pixels=MAX_PIXELS, declared_size=(23, 19))
    np.testing.assert_array_equal(pixels, upright)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_nothing_turns_an_image_whose_orientation_does_not_swap_its_sides(orientation: int) -> None:
    data, _, _ = _oriented_file("PNG", RGB, orientation)
    with pytest.raises(ImageError, match=r"19 x 23 .* declare 23 x 19"):
        decode_image(data, max_pixels=MAX_PIXELS, declared_size=(23, 19))


@pytest.mark.parametrize("name", ORIENTED_FORMATS)
def test_a_declared_size_that_fits_neither_way_is_an_error_with_both_sizes(name: str) -> None:
    data, _, _ = _oriented_file(name, RGB, 6)
    with pytest.raises(ImageError, match=r"19 x 23 .* declare 20 x 23"):
        decode_image(data, max_pixels=MAX_PIXELS, declared_size=(20, 23))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_unknown_orientation_counts_as_none(orientation: int) -> None:
    data, stored, _ = _oriented_file("PNG", RGB, orientation)
    np.testing.assert_array_equal(decode_image(data, max_pixels=MAX_PIXELS), stored)


def test_damaged_metadata_do_not_cost_the_image() -> None:
    data = _encode(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = decode_image(data, max_pixels=MAX_PIXELS)
    expected = _encode(Image.fromarray(RGB), "JPEG")
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(expected))))


# --- what is refused ----------------------------------------------------------------------------------------------


def test_an_empty_file_is_named_as_such() -> None:
    with pytest.raises(ImageError, match="empty"):
        decode_image(b"", max_pixels=MAX_PIXELS)


@pytest.mark.parametrize(
    "data",
    [
        b"just some text in a file named .jpg",
        b"<html><body>404 Not Found</body></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\0" * 64,
        b"\xff",
        b"PK\x03\x04",
        "grüße, 世界".encode(),
    ],
)
def test_what_is_not_an_image_is_said_not_to_be(data: bytes) -> None:
    with pytest.raises(ImageError, match="not an image in a known format"):
        decode_image(data, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("data", [b"BMW is a make of car", b"P5 is not what you think", b"GIF89a", b"II*\0"])
def test_text_that_begins_like_an_image_is_refused_too(data: bytes) -> None:
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode_image(data, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("quiet", [True, False], ids=["warnings ignored", "warnings are errors"])
@pytest.mark.parametrize("name", SMALL_FILES)
def test_every_prefix_of_a_file_is_refused_or_complete(name: str, quiet: bool) -> None:
    data = SMALL_FILES[name]
    whole = decode_image(data, max_pixels=MAX_PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if quiet else "error")
        for length in range(0, len(data), 3):
            try:
                part = decode_image(data[:length], max_pixels=MAX_PIXELS)
            except ImageError:
                continue
            np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize("name", ["PNG", "palette PNG", "JPEG", "progressive JPEG", "CMYK JPEG"])
def test_a_cut_download_into_preallocated_space_is_refused(name: str) -> None:
    data = SMALL_FILES[name]
    for length in range(8, len(data) - 12, 7):
        with pytest.raises(ImageError):
            decode_image(data[:length] + b"\0" * (len(data) - length), max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_bytes_after_the_end_of_an_image_do_not_matter(name: str) -> None:
    data = SMALL_FILES[name]
    np.testing.assert_array_equal(
        decode_image(data + b"a video, or other trailing data \xff\xda", max_pixels=MAX_PIXELS),
        decode_image(data, max_pixels=MAX_PIXELS),
    )


# --- size limits --------------------------------------------------------------------------------------------------


def _png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e" + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(ImageError, match=rf"{side} x {side} pixels .* more than the limit of 100000000"):
        decode_image(_png_header(side, side), max_pixels=100_000_000)


@pytest.mark.parametrize("name", SMALL_FILES)
def test_the_limit_is_the_number_of_pixels_and_inclusive(name: str) -> None:
    data = SMALL_FILES[name]
    height, width, _ = decode_image(data, max_pixels=MAX_PIXELS).shape
    assert decode_image(data, max_pixels=height * width).shape == (height, width, 3)
    with pytest.raises(ImageError, match=f"limit of {height * width - 1};"):
        decode_image(data, max_pixels=height * width - 1)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "PPM"])
def test_pillows_own_limit_neither_warns_nor_refuses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode_image(SMALL_FILES[name], max_pixels=MAX_PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    np.testing.assert_array_equal(decode_image(SMALL_FILES[name], max_pixels=MAX_PIXELS), expected)


@pytest.mark.parametrize("limit", [1, 300])
@pytest.mark.parametrize("name", ["TIFF", "WEBP"])
def test_where_pillow_insists_on_its_limit_that_is_an_image_error(
    name: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    try:
        decode_image(SMALL_FILES[name], max_pixels=MAX_PIXELS)
    except ImageError as error:
        assert "Pillow's own limit" in str(error), "releases of Pillow differ in where they check"


def test_decoding_changes_no_process_wide_setting() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    for data in SMALL_FILES.values():
        decode_image(data, max_pixels=MAX_PIXELS)
        with pytest.raises(ImageError):
            decode_image(data[:60], max_pixels=MAX_PIXELS)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


# --- hostile bytes ------------------------------------------------------------------------------------------------


@st.composite
def _mutated_files(draw: st.DrawFn) -> bytes:
    """A valid small file with a few bytes overwritten, inserted or removed, mostly near its header."""
    data = bytearray(SMALL_FILES[draw(st.sampled_from(sorted(SMALL_FILES)))])
    extremes = st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xff\xff"])
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, 120) | st.integers(0, max(0, len(data) - 1)))
        removed = draw(st.integers(0, 8))
        data[start : start + removed] = draw(st.binary(max_size=8) | extremes)
    return bytes(data)


def _decodes_or_says_why(data: bytes, declared_size: tuple[int, int] = (0, 0)) -> None:
    try:
        pixels = decode_image(data, max_pixels=MAX_PIXELS, declared_size=declared_size)
    except ImageError as error:
        message = str(error)
        assert 0 < len(message) < 300
        assert " at 0x" not in message, "an address would make equal runs write different tables"
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS


@pytest.mark.slow
@settings(max_examples=500)
@given(data=_mutated_files())
def test_mutated_files_never_raise_anything_but_an_image_error(data: bytes) -> None:
    _decodes_or_says_why(data)
    _decodes_or_says_why(data, (19, 23))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _decodes_or_says_why(data)


@settings(max_examples=200)
@given(signature=st.sampled_from([d[:12] for d in SMALL_FILES.values()]), rest=st.binary(max_size=200))
@example(signature=b"", rest=b"")
def test_random_bytes_after_a_signature_never_raise_anything_but_an_image_error(signature: bytes, rest: bytes) -> None:
    _decodes_or_says_why(signature + rest)


@settings(max_examples=50)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 99),
    file_format=st.sampled_from(["PNG", "BMP", "PPM", "TIFF"]),
)
def test_images_of_any_size_come_back_as_they_were(height: int, width: int, seed: int, file_format: str) -> None:
    pixels = _noise(height, width, 3, seed=seed)
    data = _encode(Image.fromarray(pixels), file_format)
    np.testing.assert_array_equal(decode_image(data, max_pixels=MAX_PIXELS), pixels)


def test_listed_suffixes_are_lower_case_and_name_every_readable_format() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
    assert {".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".bmp", ".webp", ".ppm"} <= IMAGE_SUFFIXES
