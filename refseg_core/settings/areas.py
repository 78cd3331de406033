"""Areas of masks as people write them, in pixels or as a share of the image, and limits of them for categories.

A bound is written as `100`, `0.5%` or `auto`, for all categories, for some, or for both: `100,window=0.5%`. Which
category a name stands for, and what the references say for `auto`, is decided here by what is given.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from refseg_core.errors import ConfigurationError, brief, listed
from refseg_core.settings.numbers import to_float

if TYPE_CHECKING:  # settings are read where numpy would be slow to import
    import numpy as np
    import numpy.typing as npt

VERSION = 1  # of which masks are within limits

OTHERS = "*"
"""The name that stands for all categories that are not named."""
AUTO = "auto"
_WHOLE_PERCENT = 100
_STEPS = 10_000  # of a percent, to which limits that references set are rounded, outwards


class Area(NamedTuple):
    """An area: pixels of the image, or a share of it in [0, 1]."""

    amount: float
    is_share: bool = False

    def pixels(self, image_pixels: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
        """Returns the area in pixels, in images of so many pixels each [N]."""
        return self.amount * image_pixels if self.is_share else 0 * image_pixels + self.amount

    def pixels_of(self, image_pixels: int) -> float:
        """Returns the area in pixels, in an image of so many."""
        return self.amount * image_pixels if self.is_share else self.amount

    def __str__(self) -> str:
        return f"{100 * self.amount:g} % of the image" if self.is_share else f"{self.amount:g} px"


Bound = Mapping[str, str]
"""An area as it is written, or 'auto', by the name of its category; that of the others by `OTHERS`."""


@dataclass(frozen=True)
class AreaLimits:
    """The least and the most area of instances of K categories, both included."""

    least_K: Sequence[Area]
    most_K: Sequence[Area]

    @classmethod
    def of(cls, least: str | None, most: str | None, names_K: Sequence[str]) -> Self:
        """Returns the limits of categories. Raises ConfigurationError for others, and for what is not decided yet."""
        return cls(_areas(least, Area(0.0), names_K), _areas(most, Area(math.inf), names_K))

    def fit(
        self, area_N: "npt.NDArray[np.float64]", class_index_N: "npt.NDArray[np.int64]", *, image_pixels: int
    ) -> "npt.NDArray[np.bool_]":
        """Returns whether masks [N] of one image are within the limits of their categories.

        `area_N` in pixels of that image. Class indices beyond the categories have no limits.
        """
        fits = area_N >= 0
        for index, (least, most) in enumerate(zip(self.least_K, self.most_K, strict=True)):
            low, high = least.pixels_of(image_pixels), most.pixels_of(image_pixels)
            fits &= (class_index_N != index) | ((area_N >= low) & (area_N <= high))
        return fits


def parse_area(text: str) -> Area:
    """Returns an area that is written as `100`, in pixels, or `0.5%`, of the image. Raises ConfigurationError."""
    number = text.strip().removesuffix("%")
    is_share = number != text.strip()
    amount = _number(number)
    if amount is None or not 0 <= amount < math.inf or (is_share and amount > _WHOLE_PERCENT):
        raise ConfigurationError(
            f"{brief(text)} is no area: expected pixels, as 100, or a share of the image, as 0.5%."
        )
    return Area(amount / _WHOLE_PERCENT, is_share=True) if is_share else Area(amount)


def parse_bound(text: str) -> Bound:
    """Returns the bound that is written in a line: `100`, `auto`, `window=0.5%`, or several.

    Raises ConfigurationError.
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        name, is_named, area = part.rpartition("=")
        name, area = (name.strip() if is_named else OTHERS), area.strip()
        if name in given:
            raise ConfigurationError(f"{brief(text)} gives {'the others' if name == OTHERS else repr(name)} twice.")
        given[name] = area if area == AUTO else _shortest(area)
    return given


def write_bound(bound: Bound) -> str | None:
    """Returns the line of a bound, the same for the same bound; None where there is none."""
    own = [f"{name}={area}" for name, area in sorted(bound.items()) if name != OTHERS]
    return ",".join([*([bound[OTHERS]] if OTHERS in bound else []), *own]) or None


def as_bound(given: Any) -> str | None:
    """Returns the line of a bound that is given as such, as a number, or as a mapping of names to both.

    Raises ValueError.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        parts = {str(name): str(area) for name, area in given.items()}
        if unfit := [name for name in parts if "," in name]:
            raise ValueError(f"{listed(map(repr, unfit))}: names with a comma cannot have an area of their own")
        if not parts:
            return None
        given = write_bound(parts)
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise ValueError(f"expected an area as 100, 0.5% or auto, or names with areas, got {brief(given)}")
    try:
        return write_bound(parse_bound(str(given)))
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def why_none_fits(least: str | None, most: str | None) -> str | None:
    """Returns why no mask of some categories can be within two bounds; None where all may have some."""
    if wrong := _contradictions(least, most):
        return f"min is more than max for {_whose(wrong)}; got min {least}, max {most}"
    high = {} if most is None else parse_bound(most)
    empty = [name for name, area in high.items() if area != AUTO and parse_area(area).amount == 0]
    return f"max is 0 for {_whose(empty)}, and every mask has more; leave it out for any area" if empty else None


def _whose(names: Sequence[str]) -> str:
    return ", ".join("all others" if name == OTHERS else repr(name) for name in names)


def _contradictions(least: str | None, most: str | None) -> list[str]:
    """Returns the categories, or `OTHERS`, whose least area is more than their most, both in one unit."""
    low, high = ({} if bound is None else parse_bound(bound) for bound in (least, most))
    pairs = [(name, low.get(name, low.get(OTHERS)), high.get(name, high.get(OTHERS))) for name in {**low, **high}]
    known = [(name, parse_area(a), parse_area(b)) for name, a, b in pairs if a and b and AUTO not in (a, b)]
    return [name for name, a, b in known if a.is_share == b.is_share and a > b]


def least_of_references(shares: Sequence[float], margin: float) -> str:
    """Returns an area that is `margin` times smaller than the smallest reference's share of its image, as written."""
    return f"{math.floor(_WHOLE_PERCENT * min(shares) / margin * _STEPS) / _STEPS:.10g}%"


def most_of_references(shares: Sequence[float], margin: float) -> str:
    """Returns an area that is `margin` times larger than the largest reference's share of its image, as written."""
    return f"{min(math.ceil(_WHOLE_PERCENT * max(shares) * margin * _STEPS) / _STEPS, _WHOLE_PERCENT):.10g}%"


def decide(bound: str | None, key_of: Mapping[str, str], auto_of: Mapping[str, str]) -> str | None:
    """Returns a bound with keys in the place of names, and areas in the place of 'auto'.

    `key_of`: the categories' keys by name. `auto_of`: the areas that the references set, by name.
    Raises ConfigurationError for names that are not among them.
    """
    given = {} if bound is None else parse_bound(bound)
    if unknown := sorted(given.keys() - key_of.keys() - {OTHERS}):
        raise ConfigurationError(
            f"labeling.area: {listed(map(repr, unknown))}: no such category; the references have {listed(key_of, 12)}."
        )
    if given.get(OTHERS) == AUTO:
        given = {**dict.fromkeys(key_of, AUTO), **{name: area for name, area in given.items() if name != OTHERS}}
    of_key = {key_of.get(name, name): auto_of[name] if area == AUTO else area for name, area in given.items()}
    return write_bound(of_key)


def _areas(bound: str | None, without: Area, names_K: Sequence[str]) -> list[Area]:
    given = {} if bound is None else parse_bound(bound)
    if unknown := sorted(given.keys() - {*names_K, OTHERS}):
        raise ConfigurationError(f"labeling.area: {listed(map(repr, unknown))}: no such category.")
    if AUTO in given.values():
        raise ConfigurationError("labeling.area: 'auto' needs references whose areas are known. Give areas instead.")
    area_of = {name: parse_area(area) for name, area in given.items()}
    return [area_of.get(name, area_of.get(OTHERS, without)) for name in names_K]


def _shortest(text: str) -> str:
    """Returns an area as it is written shortest, so that 100, 100.0 and 1e2 are one. Raises ConfigurationError."""
    is_share = parse_area(text).is_share
    number = Decimal(repr(float(text.removesuffix("%")))).normalize()
    return f"{number:f}{'%' if is_share else ''}"


def _number(text: str) -> float | None:
    try:
        return to_float(text)
    except ValueError:
        return None
