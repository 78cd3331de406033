"""What a dataset holds, in numbers, and what is odd about it, with examples: for people, before hours are spent.

Nothing here is wrong enough to be refused (that is found when annotations are read). Not here: drawing and printing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from refseg_core.datasets.checks.boxes import contradicting_boxes
from refseg_core.datasets.checks.frames import image_rows
from refseg_core.datasets.dataset import Dataset, is_among
from refseg_core.datasets.oddities import EXAMPLES, Oddity
from refseg_core.errors import counted
from refseg_core.masks.rle import mask_areas
from refseg_core.references.validation import VALID, fitness_of
from refseg_core.table_schema import Array
from refseg_core.tables import Annotations, Categories, Images

_TINY = 8  # px
_SLACK = 1  # px that tools draw beyond the edge
_ONE_RUN = 8  # characters that a single run length takes at most


@dataclass(frozen=True)
class CategoryCount:
    """The annotations of a category; `median_size` is (width, height) of its boxes in pixels, None without any.

    `num_valid` may be sampled as references; of the others, crowds left out, `num_small` are too small and
    `num_at_border` too near to a border, or both.
    """

    category_id: int
    name: str
    num_instances: int
    num_images: int
    num_masks: int
    median_size: tuple[float, float] | None
    num_valid: int
    num_small: int
    num_at_border: int


@dataclass(frozen=True)
class Overview:
    """A dataset in numbers.

    `sizes`: (width, height) of the smallest, middle and largest image by area; empty where nothing declares any.
    """

    num_images: int
    num_masks: int
    num_boxes_only: int
    num_crowds: int
    sizes: tuple[tuple[int, int], ...]
    categories: tuple[CategoryCount, ...]
    oddities: tuple[Oddity, ...]


def overview(dataset: Dataset, *, num_shots: int | None = None) -> Overview:
    """Counts a dataset and finds what is odd. `num_shots`: references wanted of each category, None for none."""
    images, annotations = dataset.images, dataset.annotations
    has_mask = annotations.has_mask
    return Overview(
        num_images=len(images),
        num_masks=int((has_mask & ~annotations.is_crowd).sum()),
        num_boxes_only=int((~has_mask & ~annotations.is_crowd).sum()),
        num_crowds=int(annotations.is_crowd.sum()),
        sizes=_sizes(images),
        categories=tuple(_count(dataset, has_mask)),
        oddities=tuple(find_oddities(dataset, num_shots=num_shots)),
    )


def find_oddities(dataset: Dataset, *, num_shots: int | None = None) -> list[Oddity]:
    """Returns what is odd about a dataset: what was found when it was read, then what its tables show."""
    return [*dataset.oddities, *_in_tables(dataset, num_shots)]


def _in_tables(dataset: Dataset, num_shots: int | None) -> list[Oddity]:
    """Returns what the tables show, the most serious first; nothing without annotations."""
    images, annotations, categories = dataset.images, dataset.annotations, dataset.categories
    if not len(annotations):
        return []
    width, height = annotations.box_xywh[:, 2:].T
    found = [
        *contradicting_boxes(dataset),
        *_few(categories, annotations, num_shots),
        *_few_valid(dataset, num_shots),
        _oddity("images without annotations", images.file_name[~is_among(images.image_id, set(annotations.image_id))]),
        _oddity("images whose size nothing declares", images.file_name[images.height * images.width == 0]),
        _of_rows("boxes that reach outside their image", annotations, _reaches_outside(images, annotations)),
        _of_rows(f"boxes with a side under {_TINY} px", annotations, np.minimum(width, height) < _TINY),
        _of_rows(
            "boxes that an image has twice in one category",
            annotations,
            _is_repeated(annotations, image_rows(images, annotations)),
        ),
        _of_rows("masks without a pixel", annotations, _is_empty(annotations)),
        _oddity("categories whose names differ only by case, spaces or hyphens", _similar(categories.name)),
    ]
    return [oddity for oddity in found if oddity.count]


def pick_images(dataset: Dataset, number: int) -> Images:
    """Returns some annotated images, in order: first those that show a category that no earlier one shows."""
    wanted: dict[str, set[int]] = {}
    for image_id, category_id in zip(
        dataset.annotations.image_id, dataset.annotations.category_id.tolist(), strict=True
    ):
        wanted.setdefault(image_id, set()).add(category_id)
    seen: set[int] = set()
    new, others = [], []
    for row, image_id in enumerate(dataset.images.image_id):
        shown = wanted.get(image_id, set())
        if shown - seen:
            new.append(row)
        elif shown:
            others.append(row)
        seen |= shown
    return dataset.images[np.array(sorted([*new, *others][:number]), dtype=np.int64)]


def _sizes(images: Images) -> tuple[tuple[int, int], ...]:
    known = images[images.height * images.width > 0]
    if not len(known):
        return ()
    order = np.argsort(known.height.astype(np.int64) * known.width, kind="stable")
    return tuple((int(known.width[row]), int(known.height[row])) for row in order[[0, len(order) // 2, -1]].tolist())


def _count(dataset: Dataset, has_mask: npt.NDArray[np.bool_]) -> list[CategoryCount]:
    categories, annotations = dataset.categories, dataset.annotations
    fitness = fitness_of(dataset.images, annotations)
    order = np.argsort(annotations.category_id, kind="stable")
    ordered = annotations.category_id[order]
    counts = []
    for category_id, name in zip(categories.category_id.tolist(), categories.name, strict=True):
        first, last = np.searchsorted(ordered, [category_id, category_id + 1])
        rows = order[first:last]
        median = np.median(annotations.box_xywh[rows, 2:], axis=0) if len(rows) else None
        counts.append(
            CategoryCount(
                category_id=category_id,
                name=str(name),
                num_instances=len(rows),
                num_images=len(set(annotations.image_id[rows])),
                num_masks=int(has_mask[rows].sum()),
                median_size=None if median is None else (float(median[0]), float(median[1])),
                num_valid=int(fitness.is_valid[rows].sum()),
                num_small=int((fitness.is_small & ~fitness.is_crowd)[rows].sum()),
                num_at_border=int((fitness.is_at_border & ~fitness.is_crowd)[rows].sum()),
            )
        )
    return counts


def _few(categories: Categories, annotations: Annotations, num_shots: int | None) -> list[Oddity]:
    """Categories without annotations, and those with fewer than are wanted; crowds do not count there."""
    ids, counts = np.unique(annotations.category_id[~annotations.is_crowd], return_counts=True)
    count_of = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    num_usable = np.array([count_of.get(category_id, 0) for category_id in categories.category_id.tolist()], dtype=int)
    is_absent = np.isin(categories.category_id, annotations.category_id, invert=True)
    is_short = ~is_absent & (num_usable < (num_shots or 0))
    short = [f"{categories.name[row]} ({num_usable[row]})" for row in np.flatnonzero(is_short).tolist()]
    return [
        _oddity("categories without annotations", categories.name[is_absent]),
        _oddity(f"categories with fewer annotations than num_shots ({num_shots})", short),
    ]


def _few_valid(dataset: Dataset, num_shots: int | None) -> Iterator[Oddity]:
    """Yields the categories with annotations enough, but too few that may be sampled, of one in an image."""
    if num_shots is None:
        return
    annotations, fitness = dataset.annotations, fitness_of(dataset.images, dataset.annotations)
    ids = annotations.category_id
    total, small, at_border = (
        Counter(ids[rows & ~annotations.is_crowd].tolist()) for rows in (True, fitness.is_small, fitness.is_at_border)
    )
    in_images = set(zip(ids[fitness.is_valid].tolist(), annotations.image_id[fitness.is_valid], strict=True))
    num_valid = Counter(category_id for category_id, _ in in_images)
    named = zip(dataset.categories.category_id.tolist(), dataset.categories.name, strict=True)
    short = [
        f"{name}: {counted(num_valid[one], 'image')} with valid ones; of "
        f"{counted(total[one], 'annotation')} too small: {small[one]}, too near to a border: {at_border[one]}"
        for one, name in named
        if num_valid[one] < num_shots <= total[one]
    ]
    yield _oddity(f"categories with fewer images of valid annotations ({VALID}) than num_shots ({num_shots})", short)


def _reaches_outside(images: Images, annotations: Annotations) -> npt.NDArray[np.bool_]:
    sides = np.stack([images.width, images.height], axis=1)[image_rows(images, annotations)]
    beyond = (annotations.box_xyxy[:, :2] < -_SLACK) | (annotations.box_xyxy[:, 2:] > sides + _SLACK)
    return np.asarray((beyond & (sides > 0)).any(axis=1))


def _is_repeated(annotations: Annotations, rows_of_images: Array) -> npt.NDArray[np.bool_]:
    """Returns which boxes an earlier annotation of the same image and category has."""
    columns = [*annotations.box_xywh.T, annotations.category_id, rows_of_images]
    order = np.lexsort(columns)  # equal ones stay in their order
    is_same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    repeated = np.zeros(len(annotations), dtype=bool)
    repeated[order[1:][is_same]] = True
    return repeated


def _is_empty(annotations: Annotations) -> npt.NDArray[np.bool_]:
    """Returns which masks have no pixel: only those of so few runs can be such, and others need no decoding."""
    counts = (None if mask is None else len(mask.counts) for mask in annotations.mask_rle)
    empty = np.array([number is not None and number <= _ONE_RUN for number in counts], dtype=bool)
    empty[empty] = mask_areas(list(annotations.mask_rle[empty])) == 0
    return empty


def _similar(names: Iterable[str]) -> list[str]:
    """Groups of names that are the same but for case, spaces, hyphens and underscores."""
    groups: dict[str, list[str]] = {}
    for name in names:
        key = "".join(character for character in name.casefold() if not character.isspace() and character not in "-_")
        groups.setdefault(key, []).append(repr(name))
    return [" and ".join(group) for group in groups.values() if len(group) > 1]


def _of_rows(what: str, annotations: Annotations, is_odd: npt.NDArray[np.bool_]) -> Oddity:
    rows = np.flatnonzero(is_odd)
    shown = annotations[rows[:EXAMPLES]]
    examples = [
        f"annotation {annotation_id} in image {image_id}, [x, y, width, height] {np.round(box, 1).tolist()}"
        for annotation_id, image_id, box in zip(shown.annotation_id, shown.image_id, shown.box_xywh, strict=True)
    ]
    return Oddity(what, len(rows), tuple(examples))


def _oddity(what: str, found: Sequence[str] | Array) -> Oddity:
    return Oddity(what, len(found), tuple(map(str, found[:EXAMPLES])))
