"""Text in pictures: one font, and what becomes of the letters it lacks.

Pillow's bundled font draws ASCII and a little punctuation. Other text is spelled with what the font has: accents
are left out, Greek, Cyrillic, kana and Hangul are transliterated, emoji are called by name, and anything else is
shown by its code point: still a name that differs from the others. A caller with names in such a script brings a
font file for it.
"""

import io
import re
import unicodedata
from bisect import bisect_right
from functools import cached_property, lru_cache

from PIL import Image, ImageDraw, ImageFont

from refseg_core.errors import ConfigurationError

Font = ImageFont.FreeTypeFont

_ELLIPSIS = "..."
_MISSING = "\uffff"  # not a character: every font draws its "missing" sign for it
_PROBE_SIZE = 32
_SYLLABLE = re.compile(r"(?:HIRAGANA|KATAKANA|HANGUL)(?: LETTER| SYLLABLE)(?: SMALL)? ([A-Z]+)")

# What Unicode's own decomposition leaves whole, each beside its spelling.
_SPELLINGS = """
ß ss  ẞ SS  ø o  Ø O  ł l  Ł L  đ d  Đ D  ð d  Ð D  æ ae  Æ AE  œ oe  Œ OE  þ th  Þ Th  ı i  ħ h  ŧ t
− -  – -  — -  ‐ -  ‑ -  ー -  × x  ÷ /  · .  • *  → ->  ← <-  ≤ <=  ≥ >=  ≠ !=  ≈ ~
а a  б b  в v  г g  д d  е e  ж zh  з z  и i  й y  к k  л l  м m  н n  о o  п p  р r  с s  т t  у u  ф f
х kh  ц ts  ч ch  ш sh  щ shch  ъ '  ы y  ь '  э e  ю yu  я ya  є ye  і i  ґ g
α a  β b  γ g  δ d  ε e  ζ z  η i  θ th  ι i  κ k  λ l  μ m  ν n  ξ x  ο o  π p  ρ r  σ s  ς s  τ t
υ y  φ f  χ ch  ψ ps  ω o
"""  # noqa: RUF001
_SPELLED = dict(zip(_SPELLINGS.split()[::2], _SPELLINGS.split()[1::2], strict=True))


class Typeface:
    """A font in any size, with a spelling for every text.

    `font_file`: the bytes of a TrueType or OpenType font, or None for Pillow's own. Raises ConfigurationError when
    they are no font.
    """

    def __init__(self, font_file: bytes | None = None) -> None:
        self._font_file = font_file
        self._fonts: dict[int, Font] = {}
        self._spellings: dict[str, str] = {}
        if font_file is not None:
            self.at(_PROBE_SIZE)

    def at(self, size: int) -> Font:
        """The font at `size` pixels."""
        if size not in self._fonts:
            self._fonts[size] = _bundled(size) if self._font_file is None else self._loaded(size)
        return self._fonts[size]

    def readable(self, text: str) -> str:
        """The text in one line of letters that the font has."""
        composed = " ".join(unicodedata.normalize("NFC", text).split())
        for character in set(composed) - self._spellings.keys():
            self._spellings[character] = self._spelled(character)
        return " ".join("".join(self._spellings[character] for character in composed).split())

    def width(self, text: str, size: int) -> int:
        """Pixels that the text takes, rounded up."""
        return int(-(-self.at(size).getlength(text) // 1))

    def fit(self, text: str, size: int, width: int, *, ending: str = "") -> str:
        """The readable text with its ending, no wider than `width` pixels.

        Where it is wider an ellipsis takes the place of the text's last letters, before the ending; '' where not
        even one letter fits.
        """
        text, ending = self.readable(text), self.readable(ending)
        whole = f"{text} {ending}".strip()
        if self.width(whole, size) <= width:
            return whole
        cuts = [f"{text[:kept].rstrip()}{_ELLIPSIS} {ending}".strip() for kept in range(1, len(text))]
        num_fitting = bisect_right(cuts, width, key=lambda cut: self.width(cut, size))
        return cuts[num_fitting - 1] if num_fitting else ""

    def _loaded(self, size: int) -> Font:
        try:
            return ImageFont.truetype(io.BytesIO(self._font_file or b""), size)
        except OSError as error:
            raise ConfigurationError(
                f"the font file for pictures cannot be read ({error}): expected a TrueType or OpenType font (.ttf, "
                ".otf, .ttc); give another file, or none for the built-in font"
            ) from error

    @cached_property
    def _missing_sign(self) -> tuple[tuple[int, int], bytes]:
        return self._glyph(_MISSING)

    def _glyph(self, character: str) -> tuple[tuple[int, int], bytes]:
        mask = self.at(_PROBE_SIZE).getmask(character)
        return mask.size, bytes(mask)

    def _draws(self, character: str) -> bool:
        return self._glyph(character) != self._missing_sign

    def _spelled(self, character: str) -> str:
        if self._draws(character):
            return character
        for spelling in _spellings(character):
            if spelling is not None and all(self._draws(letter) for letter in spelling):
                return spelling
        return f"<{ord(character):X}>"


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


@lru_cache(maxsize=64)
def _bundled(size: int) -> Font:
    font = ImageFont.load_default(size)
    if not isinstance(font, Font):
        raise RuntimeError("pictures need a Pillow with FreeType; reinstall Pillow from its official wheel")
    return font


BUNDLED = Typeface()


def write(
    canvas: Image.Image,
    text: str,
    place: tuple[int, int, int],
    *,
    size: int,
    color: tuple[int, int, int],
    face: Typeface,
) -> None:
    """Writes one line centered in `place`: (left, top, width), cut to fit; it is 1.25 times `size` high."""
    left, top, width = place
    line = face.fit(text, size, width)
    middle = left + width / 2
    ImageDraw.Draw(canvas).text((middle, top + size), line, fill=color, font=face.at(size), anchor="ms")
