"""Step 1: samples reference instances from annotations, or takes all or the named ones. Method, section 1.

The published samples are reproduced exactly: the shuffles run on Python's own Mersenne Twister, over each category's
complete list, in the order in which categories first appear in the file. So a k-shot set is a prefix of every
larger one with the same seed and split.
"""

import random
from collections.abc import Sequence

import numpy as np

from refseg_core.errors import ConfigurationError, DatasetError, brief, counted, did_you_mean, listed
from refseg_core.references.validation import VALID, fitness_of
from refseg_core.settings import Conventions, SamplingSettings
from refseg_core.settings.splits import LVIS_FREQUENCIES, SPLIT_NAMES, split_categories
from refseg_core.table_schema import Array
from refseg_core.tables import Annotations, Categories, Images, References

VERSION = 1  # of which references are chosen

_PADDING_SEED = 42  # of the published conversion, whatever the sampling's seed
_NAMES_SHOWN = 12


def sample_references(
    images: Images,
    annotations: Annotations,
    categories: Categories,
    settings: SamplingSettings,
    *,
    conventions: Conventions = "corrected",
) -> References:
    """Chooses the references of every wanted category, as `selection` says.

    "sampled": `num_shots` valid annotations, at most one per image and category. "all": every annotation but crowds,
    in file order; there, and only there, `conventions` "original" repeats what the published code makes of such
    files, where every category has `num_shots` references, some of them copies (see `_take_all_as_published`).

    Raises ConfigurationError for an unknown split or category, DatasetError where a category has too few annotations
    (unless `on_shortage` says otherwise) or too many, or where there is nothing to sample from.
    """
    wanted = wanted_categories(categories, settings)
    if settings.selection == "sampled":
        drawn_from = categories if settings.split in LVIS_FREQUENCIES else wanted
        taken = _only(wanted, _sample(images, annotations, drawn_from, settings))
        _check_shortage(taken, wanted, settings)
    elif conventions == "corrected":
        taken = _only(wanted, _take_all(annotations))
        _check_presence(taken, wanted, settings)
    else:
        taken = _only(wanted, _take_all_as_published(annotations, settings.num_shots))
        _check_presence(taken, wanted, settings)
        _check_excess(taken, wanted, settings.num_shots)
    return _references(images, annotations, [row for rows in taken.values() for row in rows])


def select_references(images: Images, annotations: Annotations, annotation_ids: Sequence[str]) -> References:
    """Takes exactly the named annotations, in their order; shots count up within each category.

    Raises DatasetError naming every id that is absent or given twice.
    """
    row_of = {annotation_id: row for row, annotation_id in enumerate(annotations.annotation_id)}
    absent = [wanted for wanted in annotation_ids if wanted not in row_of]
    twice = sorted({wanted for wanted in annotation_ids if annotation_ids.count(wanted) > 1})
    if absent or twice:
        raise DatasetError(
            f"references.annotation_ids: not in the annotations: {absent or 'none'}; given twice: "
            f"{twice or 'none'}. Use ids of annotations in the reference file, each once."
        )
    return _references(images, annotations, [row_of[wanted] for wanted in annotation_ids])


def check_named(
    annotations: Annotations, categories: Categories, annotation_ids: Sequence[str], names: Sequence[str]
) -> None:
    """Raises ConfigurationError where the named annotations are not of exactly the named categories."""
    name_of = dict(zip(categories.category_id.tolist(), categories.name, strict=True))
    is_named = np.isin(annotations.annotation_id, annotation_ids)
    named = zip(annotations.annotation_id[is_named], annotations.category_id[is_named].tolist(), strict=True)
    category_of = {annotation_id: name_of[category_id] for annotation_id, category_id in named}
    others = [f"{annotation_id} ({name})" for annotation_id, name in category_of.items() if name not in names]
    without = [name for name in names if name not in category_of.values()]
    if others or without:
        raise ConfigurationError(
            "references.annotation_ids and references.sampling.categories contradict each other: annotations of other "
            f"categories: {listed(others, _NAMES_SHOWN) or 'none'}; categories without any of the annotations: "
            f"{listed(without, _NAMES_SHOWN) or 'none'}. Correct them, or set one of them to null."
        )


def wanted_categories(categories: Categories, settings: SamplingSettings) -> Categories:
    """Returns the categories to sample: those of the split, narrowed to the named ones; in the order of their ids.

    Raises ConfigurationError naming what the dataset does not have.
    """
    if settings.split is not None and settings.split not in SPLIT_NAMES:
        raise ConfigurationError(
            f"references.sampling.split: {brief(settings.split)} is not known; expected one of "
            f"{', '.join(SPLIT_NAMES)}."
        )
    keep = np.ones(len(categories), dtype=bool)
    if settings.split in LVIS_FREQUENCIES:
        frequency = LVIS_FREQUENCIES[settings.split]
        keep &= np.array([frequency in (None, own) for own in categories.frequency], dtype=bool)
    elif settings.split is not None:
        keep &= np.isin(categories.name, split_categories(settings.split))
    if settings.categories is not None:
        absent = [name for name in settings.categories if name not in set(categories.name)]
        if absent:
            raise ConfigurationError(
                f"references.sampling.categories: {listed(absent, _NAMES_SHOWN)} not in the annotations, whose "
                f"categories are {listed(categories.name, _NAMES_SHOWN)}.{did_you_mean(absent[0], categories.name)}"
            )
        keep &= np.isin(categories.name, settings.categories)
    if not keep.any():
        raise ConfigurationError(
            f"references.sampling: split {settings.split!r} and categories {settings.categories} leave no category "
            f"of the annotations, which have {listed(categories.name, _NAMES_SHOWN)}."
        )
    return categories[keep]


def absent_of_split(categories: Categories, split: str) -> list[str]:
    """Returns the names of a split's categories that the annotations lack; LVIS's own file defines LVIS's splits."""
    return (
        [] if split in LVIS_FREQUENCIES else [name for name in split_categories(split) if name not in categories.name]
    )


def _only(wanted: Categories, taken: dict[int, list[int]]) -> dict[int, list[int]]:
    wanted_ids = set(wanted.category_id.tolist())
    return {category_id: rows for category_id, rows in taken.items() if category_id in wanted_ids}


def _sample(
    images: Images, annotations: Annotations, drawn_from: Categories, settings: SamplingSettings
) -> dict[int, list[int]]:
    """Returns the sampled rows of each category that is drawn from, in the order of their first appearance."""
    usable = ~annotations.is_impossible & np.isin(annotations.category_id, drawn_from.category_id)
    valid = fitness_of(images, annotations).is_valid
    generator = random.Random(settings.seed)
    taken: dict[int, list[int]] = {}
    for category_id, rows in _rows_by_category(annotations, usable).items():
        generator.shuffle(rows)
        taken[category_id] = _take(rows, valid, annotations.image_id, settings)
    return taken


def _take_all(annotations: Annotations) -> dict[int, list[int]]:
    """Returns every category's rows, in file order, except crowds and impossible boxes."""
    return _rows_by_category(annotations, ~annotations.is_impossible & ~annotations.is_crowd)


def _take_all_as_published(annotations: Annotations, num_shots: int) -> dict[int, list[int]]:
    """Returns the rows as published: m instances in one image become m copies of the first of them.

    A category with fewer than `num_shots` is filled up by drawing from its own with replacement. The published
    generator is known by its seed only; here it is Python's Mersenne Twister, one draw of `choice` a copy. It runs
    over all categories of the file, so that leaving some out changes nothing for the others.
    """
    generator = random.Random(_PADDING_SEED)
    taken: dict[int, list[int]] = {}
    for category_id, rows in _take_all(annotations).items():
        by_image: dict[str, list[int]] = {}
        for row in rows:
            by_image.setdefault(annotations.image_id[row], []).append(row)
        copies = [in_image[0] for in_image in by_image.values() for _ in in_image]
        taken[category_id] = copies + [generator.choice(copies) for _ in range(num_shots - len(copies))]
    return taken


def _rows_by_category(annotations: Annotations, usable: Array) -> dict[int, list[int]]:
    rows_by_category: dict[int, list[int]] = {}
    for row in np.flatnonzero(usable).tolist():
        rows_by_category.setdefault(int(annotations.category_id[row]), []).append(row)
    return rows_by_category


def _take(shuffled: list[int], valid: Array, image_ids: Array, settings: SamplingSettings) -> list[int]:
    taken: list[int] = []
    images_taken: set[str] = set()
    for row in shuffled:
        if valid[row] and image_ids[row] not in images_taken:
            taken.append(row)
            images_taken.add(image_ids[row])
            if len(taken) == settings.num_shots:
                return taken
    if settings.on_shortage == "repeat":
        taken = taken or shuffled[: settings.num_shots]
        return [taken[shot % len(taken)] for shot in range(settings.num_shots)]
    return taken


def _check_shortage(taken: dict[int, list[int]], wanted: Categories, settings: SamplingSettings) -> None:
    counts = _counts(taken, wanted)
    short = [f"{name} ({count})" for name, count in counts.items() if count < settings.num_shots]
    if settings.on_shortage == "error" and short:
        raise DatasetError(
            f"references.sampling: {len(short)} of {counted(len(counts), 'category')} with fewer than "
            f"{settings.num_shots} valid annotations ({VALID}): {listed(short, _NAMES_SHOWN)}. Annotate more, lower "
            "num_shots, leave the categories out, or set on_shortage to 'fewer' or 'repeat'."
        )
    if not any(counts.values()):
        raise DatasetError(
            f"references.sampling: none of {counted(len(counts), 'wanted category', 'wanted categories')} has a valid "
            f"annotation ({VALID})."
        )


def _check_presence(taken: dict[int, list[int]], wanted: Categories, settings: SamplingSettings) -> None:
    counts = _counts(taken, wanted)
    absent = [name for name, count in counts.items() if not count]
    if len(absent) == len(counts):
        raise DatasetError(
            f"references.sampling: none of {counted(len(counts), 'wanted category', 'wanted categories')} has an "
            "annotation that is not a crowd."
        )
    if settings.on_shortage == "error" and absent:
        raise DatasetError(
            f"references.sampling: {len(absent)} of {counted(len(counts), 'category')} without an annotation that is "
            f"not a crowd: {listed(absent, _NAMES_SHOWN)}. Annotate them, leave them out, or set on_shortage to "
            "'fewer'."
        )


def _check_excess(taken: dict[int, list[int]], wanted: Categories, num_shots: int) -> None:
    counts = _counts(taken, wanted)
    excess = [f"{name} ({count})" for name, count in counts.items() if count > num_shots]
    if excess:
        raise DatasetError(
            f"references.sampling: {len(excess)} of {counted(len(counts), 'category')} with more than "
            f"{counted(num_shots, 'annotation')}: {listed(excess, _NAMES_SHOWN)}. With selection 'all', conventions "
            "'original' expects num_shots of each category at most. Set num_shots to the number that the file was "
            "made for, or conventions to 'corrected'."
        )


def _counts(taken: dict[int, list[int]], wanted: Categories) -> dict[str, int]:
    """Returns how many were taken of each wanted category, by name."""
    named = zip(wanted.category_id.tolist(), wanted.name, strict=True)
    return {str(name): len(taken.get(category_id, [])) for category_id, name in named}


def _references(images: Images, annotations: Annotations, rows: list[int]) -> References:
    file_name_of = dict(zip(images.image_id, images.file_name, strict=True))
    chosen = annotations[np.array(rows, dtype=np.int64)]
    seen: dict[int, int] = {}
    shots = []
    for category_id in chosen.category_id.tolist():
        shots.append(seen.get(category_id, 0))
        seen[category_id] = shots[-1] + 1
    return References(
        category_id=chosen.category_id,
        shot=np.array(shots, dtype=np.int32),
        image_id=chosen.image_id,
        annotation_id=chosen.annotation_id,
        file_name=np.array([file_name_of[image_id] for image_id in chosen.image_id], dtype=object),
        box_xyxy=chosen.box_xyxy,
        mask_rle=chosen.mask_rle,
        mask_source=np.where(chosen.has_mask, "dataset", "none").astype(object),
        mask_score=np.full(len(chosen), None, dtype=object),
    )
