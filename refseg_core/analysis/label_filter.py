"""Which labels are kept: those of a score, of some categories and of a size. Exports, pictures, reports and evaluations
ask this filter and no other.

Categories are told by their names, as a person writes them. Not here: where thresholds are saved and read from
(`tasks/store/thresholds.py`), and the options of commands (`flows/cli/options/kept_labels.py`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refseg_core.errors import ConfigurationError, did_you_mean, listed, shortened
from refseg_core.masks.rle import mask_areas
from refseg_core.settings.areas import OTHERS, Area
from refseg_core.settings.numbers import to_float
from refseg_core.tables import Categories, Detections

_QUOTED = 32  # characters of what is no score, or of its name


@dataclass(frozen=True)
class ScoreThresholds:
    """From which score on labels are kept: of each category that is named, and of the others.

    `source` says where they come from, in a few words; '' where they were given.
    """

    others: float = 0.0
    by_name: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    def of(self, name: str) -> float:
        """Returns the threshold of a category."""
        return self.by_name.get(name, self.others)

    @property
    def is_zero(self) -> bool:
        """Whether labels of every score are kept."""
        return max([self.others, *self.by_name.values()]) == 0

    @property
    def in_short(self) -> str:
        """A title: 'score at least 0.5', or 'by the thresholds of categories'."""
        return "by the thresholds of categories" if self.by_name else f"score at least {self.others:g}"

    def describe(self) -> str:
        """Returns the thresholds in words: 'a score of at least 0.39 (car), 0.26 (window), 0.5 (others)'."""
        own = [f"{thresh:g} ({name})" for name, thresh in self.by_name.items()]
        of_others = f"{self.others:g} (others)" if own else f"{self.others:g}"
        source = f", {self.source}" if self.source else ""
        return f"a score of at least {listed([*own, of_others], 12)}{source}"


@dataclass(frozen=True)
class LabelFilter:
    """What is kept: labels that reach the threshold of their category, and are of a wanted category and size.

    `categories`: names; None keeps all. The areas are those of masks, both ends included.
    """

    thresholds: ScoreThresholds = ScoreThresholds()
    categories: tuple[str, ...] | None = None
    min_area: Area | None = None
    max_area: Area | None = None

    def keep(self, detections: Detections, categories: Categories) -> npt.NDArray[np.bool_]:
        """Returns which detections [N] are kept. `categories` are the referenced ones, with names for their ids."""
        name_of = dict(zip(categories.category_id.tolist(), map(str, categories.name), strict=True))
        ids, index_N = np.unique(detections.category_id, return_inverse=True)
        names = [name_of.get(category_id, "") for category_id in ids.tolist()]
        # As scores are stored, so that a threshold that is a score keeps the label that has it.
        thresh_K = np.array([self.thresholds.of(name) for name in names], dtype=np.float32)
        is_wanted_K = np.array([self.categories is None or name in self.categories for name in names], dtype=bool)
        kept: npt.NDArray[np.bool_] = (detections.score >= thresh_K[index_N]) & is_wanted_K[index_N]
        if self.min_area or self.max_area:
            rows = np.flatnonzero(kept)
            kept[rows] = self._fits(detections[rows])
        return kept

    def apply(self, detections: Detections, categories: Categories) -> Detections:
        """Returns the detections that are kept, in their order."""
        return detections[self.keep(detections, categories)]

    def check(self, categories: Categories) -> None:
        """Raises ConfigurationError where it names categories that the references have not."""
        named = {*self.thresholds.by_name, *(self.categories or ())}
        if unknown := sorted(named - set(map(str, categories.name))):
            raise ConfigurationError(
                f"{listed(repr(shortened(name)) for name in unknown)}: no such category; the references have "
                f"{listed(categories.name, 12)}.{did_you_mean(unknown[0], map(str, categories.name))}"
            )

    def describe(self) -> str:
        """Returns in words what is kept: 'a score of at least 0.5; only car, window; an area of at least 100 px'."""
        return "; ".join(self._descriptions()) or "all labels"

    def _descriptions(self) -> Iterator[str]:
        if not self.thresholds.is_zero:
            yield self.thresholds.describe()
        if self.categories is not None:
            yield f"only {listed(self.categories, 12)}"
        if self.min_area or self.max_area:
            limits = [("at least", self.min_area), ("at most", self.max_area)]
            yield "an area of " + " and ".join(f"{how} {area}" for how, area in limits if area)

    def _fits(self, detections: Detections) -> npt.NDArray[np.bool_]:
        """Returns whether the areas [N] of the masks are within the limits."""
        area_N = mask_areas(detections.mask_rle.tolist())
        image_N = np.array([math.prod(mask.size) for mask in detections.mask_rle], dtype=np.float64)
        fits = np.ones(len(detections), dtype=bool)
        if self.min_area:
            fits &= area_N >= self.min_area.pixels(image_N)
        if self.max_area:
            fits &= area_N <= self.max_area.pixels(image_N)
        return fits


def parse_thresholds(text: str, others: float) -> ScoreThresholds:
    """Returns thresholds that are written as `0.4`, `car=0.39,window=0.26`, or both: `0.4,car=0.39`.

    `others` holds for categories that are not named, where the text gives no number for them.
    Raises ConfigurationError.
    """
    given: dict[str, Any] = {}
    for part in map(str.strip, text.split(",")):
        name, is_named, score = part.rpartition("=")
        name = name.strip() if is_named else OTHERS
        if name in given:
            raise ConfigurationError(
                f"--thresholds {shortened(text)!r}: gives {shortened(name)!r} twice; give each once."
            )
        given[name] = score
    return thresholds_from(given, f"--thresholds {shortened(text)!r}", others)


def thresholds_from(given: Mapping[Any, Any], place: str, others: float) -> ScoreThresholds:
    """Returns the thresholds of a mapping of names to scores, in which '*' stands for the rest.

    A score may be a number or a text that is one. `place` says in messages where they were given. Raises
    ConfigurationError.
    """
    given = {name: _number(score) if isinstance(score, str) else score for name, score in given.items()}
    wrong = [
        f"{shortened(str(name), _QUOTED)}={shortened(str(score), _QUOTED)}"
        for name, score in given.items()
        if not _is_score(score)
    ]
    if wrong or not given:
        raise ConfigurationError(
            f"{place}: expected scores from 0 to 1, as 0.4 or car=0.39,window=0.26; got {listed(wrong, 4) or 'none'}."
        )
    named = {str(name): float(score) for name, score in given.items()}
    return ScoreThresholds(named.pop(OTHERS, others), named)


def _number(text: str) -> float | str:
    """Returns the number, or the text where it is none, to be named in a message."""
    try:
        return to_float(text)
    except ValueError:
        return text


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
