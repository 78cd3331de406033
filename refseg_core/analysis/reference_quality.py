"""How good references are, by the references alone: whether the others of its category predict each, or another's do.

A reference is compared with the mean of the other references of its category (leave one out), as masks of images are
compared with prototypes. Not here: reading the bank and drawing sheets (`tasks/outputs/reference_sheets.py`).
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from refseg_core.references.validation import mask_doubts
from refseg_core.tables import Categories, MemoryBank, ReferenceQuality, References

VERSION = 3

_FEWEST_PATCHES = 4.0  # of the encoder's grid, of which a crop has hundreds
_FEWEST_COMPARED = 4  # references, to say what is usual among them
_DEVIATIONS, _LEAST_GAP = 2.5, 0.1  # below the category's median similarity
_NORMAL_MAD = 1.4826  # standard deviations of a normal distribution in a median absolute deviation

# Of the score of a typical instance. Of 159 instances in 32 images of COCO, by nine categories with up to 3 references,
# 0.7 gave an F1 of 0.58, 0.65 and 0.75 gave 0.53 and 0.56, and one threshold for all, the best of them, 0.53.
# On 8 more images with 56 instances it gave 0.43, and 0.5 for all gave 0.35.
_SHARE_OF_TYPICAL = 0.7

# The same where scores are similarities alone. Of 80 images of COCO, by 60 categories with up to 5 references and
# three seeds, 0.75 gave an F1 of 0.27 on the half of the images that it was chosen on; 0.65 and 0.85 gave 0.24 and
# 0.26, and one threshold for all, the best of them, 0.24. On the other half it gave 0.26, and 0.5 for all 0.23.
_SHARE_OF_SIMILARITY = 0.75

Floats = npt.NDArray[np.float64]


class Similarities(NamedTuple):
    """Cosines of R references with the mean of the others of their category [R], and the nearest other category's.

    NaN where there is no such mean. `other` [R] is the place of that category among the ascending ids of the bank.
    """

    own: Floats
    nearest: Floats
    other: npt.NDArray[np.int64]


def leave_one_out(bank: MemoryBank, annotation_ids: npt.NDArray[np.object_]) -> Similarities:
    """Compares each reference; copies of it, which have its annotation id, are left out with it."""
    ids, place_R = np.unique(bank.category_id, return_inverse=True)
    feature_RC = bank.feature.astype(np.float64)
    of_category_KR = (place_R[None] == np.arange(len(ids))[:, None]).astype(np.float64)
    unit_RC = _unit(feature_RC)
    similarity_RK = unit_RC @ _unit(of_category_KR @ feature_RC).T
    rows = np.arange(len(bank))
    similarity_RK[rows, place_R] = [
        _cosine(unit_RC[row], feature_RC[(place_R == place_R[row]) & (annotation_ids != annotation_ids[row])])
        for row in rows
    ]
    own = similarity_RK[rows, place_R].copy()
    similarity_RK[rows, place_R] = -np.inf
    other = similarity_RK.argmax(axis=1) if len(ids) else np.zeros(0, dtype=np.int64)
    nearest = similarity_RK[rows, other]
    return Similarities(own, np.where(np.isfinite(nearest), nearest, np.nan), other)


def guess_threshold(own: Floats, own_of_all: Floats, *, has_quality: bool) -> float | None:
    """Returns from which score on labels of a category may be worth keeping, by its references alone: a guess.

    How like references are to one another [R] stands for the similarity of a typical instance. Where a score has the
    quality of the mask in it, it is about the geometric mean of both, so that the root stands for it. With nothing to
    compare in the category that of all categories' references [A] counts; None where these have none. NaN: nothing to
    compare with.
    """
    known = own[np.isfinite(own)] if np.isfinite(own).any() else own_of_all[np.isfinite(own_of_all)]
    if len(known) == 0:
        return None
    similarity = max(float(known.mean()), 0.0)
    return round(_SHARE_OF_TYPICAL * similarity**0.5 if has_quality else _SHARE_OF_SIMILARITY * similarity, 2)


def assess_references(references: References, bank: MemoryBank, categories: Categories) -> ReferenceQuality:
    """Returns what is known of every reference, in their order, with advice in words."""
    name_of = dict(zip(categories.category_id.tolist(), map(str, categories.name), strict=True))
    row_of = {key: row for row, key in enumerate(zip(bank.category_id.tolist(), bank.shot.tolist(), strict=True))}
    keys = list(zip(references.category_id.tolist(), references.shot.tolist(), strict=True))
    annotation_of = dict(zip(keys, references.annotation_id, strict=True))
    compared = leave_one_out(bank, np.array([annotation_of[key] for key in row_of], dtype=object))
    ids, usual, same = np.unique(bank.category_id), _usual(bank, compared.own), told_twins(references, name_of)
    rows = [
        _Row(
            name=name_of[key[0]],
            num_patches=float(bank.foreground_weight[row]) if (row := row_of.get(key, -1)) >= 0 else 0.0,
            own=_known(compared.own, row),
            nearest=_known(compared.nearest, row),
            other_id=int(ids[compared.other[row]]) if _known(compared.nearest, row) is not None else None,
            doubts=(*doubts, *filter(None, [same.get(place)])),
            least_usual=usual.get(key[0]),
            names=name_of,
        )
        for place, (key, doubts) in enumerate(zip(keys, _doubts(references), strict=True))
    ]
    return _table(references, rows)


class _Row(NamedTuple):
    """What is known of a reference; `least_usual` is the similarity below which it is unlike its category.

    `doubts`: why its mask, which the segmenter made, may not be what was meant, and which other is the same instance.
    """

    name: str
    num_patches: float
    own: float | None
    nearest: float | None
    other_id: int | None
    doubts: tuple[str, ...]
    least_usual: float | None
    names: dict[int, str]

    @property
    def other_name(self) -> str | None:
        """The name of the nearest other category."""
        return None if self.other_id is None else self.names[self.other_id]

    @property
    def is_outlier(self) -> bool:
        """Whether another category predicts it better than its own, or it is unlike the others of its own."""
        if self.own is None:
            return False
        is_unusual = self.least_usual is not None and self.own < self.least_usual
        return is_unusual or (self.nearest is not None and self.own < self.nearest)

    def advice(self) -> Iterator[str]:
        """Yields what to look at."""
        if not self.num_patches:
            yield "left out of the bank, since its mask is lost on the patch grid: give a larger example"
        elif self.num_patches < _FEWEST_PATCHES:
            yield f"its mask covers {self.num_patches:.1f} patches only: give a larger example, or look at its mask"
        if self.own is not None and self.nearest is not None and self.own < self.nearest:
            yield f"looks like {self.other_name}: {self.nearest:.2f} against {self.own:.2f}"
        elif self.is_outlier:
            yield f"unlike the other examples of {self.name}: {self.own:.2f}"
        yield from self.doubts


def told_twins(references: References, names: Mapping[int, str]) -> dict[int, str]:
    """Returns, by their rows, what to tell of references that are the same instance of an image as another.

    `names`: of the categories, by id. Copies that sampling made of one annotation are meant.
    """
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    marks = zip(references.file_name, references.box_xyxy.tolist(), references.mask_rle, strict=True)
    for row, (name, box, mask) in enumerate(marks):
        rows_of[name, *box, mask].append(row)
    ids, told = references.annotation_id, dict[int, str]()
    for rows in rows_of.values():
        for row in rows:
            if others := [other for other in rows if ids[other] != ids[row]]:
                told[row] = _told_twin(references, row, others[0], names)
    return told


def _told_twin(references: References, row: int, other: int, names: Mapping[int, str]) -> str:
    is_same = references.category_id[row] == references.category_id[other]
    means = "it counts twice" if is_same else "one instance is of one category"
    of = "" if is_same else f" of {names[int(references.category_id[other])]}"
    return f"the same instance as {references.annotation_id[other]}{of}: {means}, so drop one of the two"


def _doubts(references: References) -> Iterator[tuple[str, ...]]:
    """Yields the doubts about each reference's mask; none about masks of the dataset."""
    for mask, source, score in zip(references.mask_rle, references.mask_source, references.mask_score, strict=True):
        is_made = source == "segmenter" and mask is not None
        yield tuple(mask_doubts(mask, None if score is None else float(score))) if is_made else ()


def _table(references: References, rows: list[_Row]) -> ReferenceQuality:
    def column(name: str) -> npt.NDArray[np.object_]:
        return np.array([getattr(row, name) for row in rows], dtype=object)

    return ReferenceQuality(
        category_id=references.category_id,
        category_name=column("name"),
        shot=references.shot,
        annotation_id=references.annotation_id,
        file_name=references.file_name,
        mask_source=references.mask_source,
        mask_score=references.mask_score,
        num_patches=column("num_patches"),
        own_similarity=column("own"),
        other_similarity=column("nearest"),
        other_category_id=column("other_id"),
        other_category_name=column("other_name"),
        is_outlier=column("is_outlier"),
        advice=np.array(["; ".join(row.advice()) for row in rows], dtype=object),
    )


def _usual(bank: MemoryBank, own: Floats) -> dict[int, float]:
    """Returns from which similarity on a reference is like the others of its category.

    With few of these, like those of all categories to theirs; nothing where these are few, too.
    """
    known, ids = own[np.isfinite(own)], bank.category_id[np.isfinite(own)]
    groups = {category_id: known[ids == category_id] for category_id in np.unique(ids).tolist()}
    enough = {key: group if len(group) >= _FEWEST_COMPARED else known for key, group in groups.items()}
    return {key: _least(group) for key, group in enough.items() if len(group) >= _FEWEST_COMPARED}


def _least(similarities: Floats) -> float:
    middle = float(np.median(similarities))
    spread = _NORMAL_MAD * float(np.median(np.abs(similarities - middle)))
    return middle - max(_DEVIATIONS * spread, _LEAST_GAP)


def _known(values: Floats, row: int) -> float | None:
    return float(values[row]) if row >= 0 and np.isfinite(values[row]) else None


def _unit(vectors_NC: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(vectors_NC, axis=1, keepdims=True)
    return vectors_NC / np.maximum(lengths, 1e-12)


def _cosine(unit_C: Floats, features_NC: Floats) -> float:
    """Returns the cosine with the mean of features; NaN of none."""
    return float(unit_C @ _unit(features_NC.mean(axis=0, keepdims=True))[0]) if len(features_NC) else float("nan")
