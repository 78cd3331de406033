"""Text in pictures: one font, and how letters that it lacks are spelled.

Pillow's bundled font draws ASCII and a little punctuation. Other text is spelled with what the font has: accents
are left out, Greek, Cyrillic, kana and Hangul are transliterated, emoji are called by name, and anything else is
shown by its code point: still a name that differs from the others.
"""

import math
import re
import unicodedata
from bisect import bisect_right
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

_ELLIPSIS = "..."
_MISSING = "\uffff"  # not a character: every font draws its "missing" sign for it
_PROBE_SIZE = 32
_SYLLABLE = re.compile(r"(?:HIRAGANA|KATAKANA|HANGUL)(?: LETTER| SYLLABLE)(?: SMALL)? ([A-Z]+)")

# What Unicode's own decomposition leaves whole, each with its spelling.
_SPELLINGS = """
ß ss  ẞ SS  ø o  Ø O  ł l  Ł L  đ d  Đ D  ð d  Ð D  æ ae  Æ AE  œ oe  Œ OE  þ th  Þ Th  ı i  ħ h  ŧ t
− -  – -  — -  ‐ -  ‑ -  ー -  × x  ÷ /  · .  • *  → ->  ← <-  ≤ <=  ≥ >=  ≠ !=  ≈ ~
а a  б b  в v  г g  д d  е e  ж zh  з z  и i  й y  к k  л l  м m  н n  о o  п p  р r  с s  т t  у u  ф f
х kh  ц ts  ч ch  ш sh  щ shch  ъ '  ы y  ь '  э e  ю yu  я ya  є ye  і i  ґ g
α a  β b  γ g  δ d  ε e  ζ z  η i  θ th  ι i  κ k  λ l  μ m  ν n  ξ x  ο o  π p  ρ r  σ s  ς s  τ t
υ y  φ f  χ ch  ψ ps  ω o
"""  # noqa: RUF001
_SPELLED = dict(zip(_SPELLINGS.split()[::2], _SPELLINGS.split()[1::2], strict=True))


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Returns Pillow's font at `size` pixels."""
    loaded = ImageFont.load_default(size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise RuntimeError("pictures need a Pillow with FreeType; reinstall Pillow from its official wheel")
    return loaded


def readable(text: str) -> str:
    """Returns the text in one line of letters that the font has."""
    composed = " ".join(unicodedata.normalize("NFC", text).split())
    return " ".join("".join(map(_spelled, composed)).split())


def text_width(text: str, size: int) -> int:
    """Returns the pixels that the text takes, rounded up."""
    return math.ceil(font(size).getlength(text))


def fit(text: str, size: int, width: int, *, ending: str = "") -> str:
    """Returns the readable text with its ending, no wider than `width` pixels.

    Where it is wider an ellipsis takes the place of the text's last letters, before the ending; '' where not even one
    letter fits.
    """
    text, ending = readable(text), readable(ending)
    whole = f"{text} {ending}".strip()
    if text_width(whole, size) <= width:
        return whole
    cuts = [f"{text[:kept].rstrip()}{_ELLIPSIS} {ending}".strip() for kept in range(1, len(text))]
    num_fitting = bisect_right(cuts, width, key=lambda cut: text_width(cut, size))
    return cuts[num_fitting - 1] if num_fitting else ""


def write(
    canvas: Image.Image, text: str, place: tuple[int, int, int], *, size: int, color: tuple[int, int, int]
) -> None:
    """Writes one line centered in `place`: (left, top, width), cut to fit; it is 1.25 times `size` high."""
    left, top, width = place
    middle = (left + width / 2, top + size)
    ImageDraw.Draw(canvas).text(middle, fit(text, size, width), fill=color, font=font(size), anchor="ms")


@lru_cache(maxsize=4096)
def _spelled(character: str) -> str:
    spellings = (text for text in (character, *_spellings(character)) if text is not None)
    known = (text for text in spellings if _glyph(_MISSING) not in map(_glyph, text))
    return next(known, f"<{ord(character):X}>")


@lru_cache(maxsize=4096)
def _glyph(character: str) -> tuple[tuple[int, int], bytes]:
    mask = font(_PROBE_SIZE).getmask(character)
    return mask.size, bytes(mask)


def _spellings(character: str) -> list[str | None]:
    decomposed = unicodedata.normalize("NFKD", character)
    base = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    name = unicodedata.name(character, "")
    syllable = _SYLLABLE.match(name)
    return [
        _SPELLED.get(character) or _capital(character),
        base,
        _SPELLED.get(base) or _capital(base),
        syllable.group(1).lower() if syllable else None,
        f":{name.lower().replace(' ', '-')}:" if unicodedata.category(character) == "So" and name else None,
        "" if unicodedata.category(character) in ("Mn", "Cf", "Cc") else None,
    ]


def _capital(character: str) -> str | None:
    spelling = _SPELLED.get(character.lower())
    return None if spelling is None else spelling.capitalize()
