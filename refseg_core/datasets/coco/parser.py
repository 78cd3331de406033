"""COCO json into tables: images, annotations and categories, checked.

Here: which lists a dataset file has, and what becomes of them. What an image and a category may look like in the wild
is in `columns.py`, an annotation in `annotations.py`. Not here: opening files (a document is bytes), choosing
references, writing COCO json (`refseg_core/datasets/coco/writer.py`).

The document is read through a sliding window, one image or annotation at a time, and straight into columns:
train2017's 860,000 annotations as Python objects would need several gigabytes.
"""

from collections.abc import Mapping

from refseg_core.datasets.coco.annotations import AnnotationColumns
from refseg_core.datasets.coco.columns import CategoryColumns, ImageColumns
from refseg_core.datasets.coco.items import Columns
from refseg_core.datasets.coco.json_stream import JsonError, JsonReader
from refseg_core.datasets.coco.mask_source import BorrowedMasks, MaskFile
from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.image_files.folder import ImageFolder
from refseg_core.datasets.image_files.names import OTHERWISE
from refseg_core.datasets.image_files.turned import TURNED, upright_sizes
from refseg_core.errors import DatasetError, Problems

_NOT_A_DATASET = "the file is not a COCO dataset: expected an object with the lists images, annotations and categories"
_NO_SECTION = "a list is missing from the file: add it"
_NOT_A_LIST = "an entry of the file is not a list: write images, annotations and categories as lists"
_OTHER_CASE = "a list's name is written otherwise, so that it would be passed over: write it in lower case"
_NEGATIVE_ANNOTATED = "annotations of categories that their image's neg_category_ids say are not there: correct one"
_REPEATED_SECTION = "a list appears twice in the file: merge the two"


def parse_coco(
    document: bytes, *, source: str, masks_from: MaskFile | None = None, folder: ImageFolder | None = None
) -> Dataset:
    """Reads a COCO dataset file; `source` is its name in messages. `masks_from` has the masks that it lacks.

    `folder` is asked about images whose boxes fit only if height and width are swapped, as some exporters declare the
    stored size, though people annotated the picture turned upright; and about names with Windows' backslashes.

    Accepted besides the standard form: ids that are strings (digit strings stay strings, `has_integer_id` is
    False for them) or whole floats; category ids that are digit strings; no `annotations` (the official test
    files), and then no `categories`; no image sizes as long as no polygon needs them; no `file_name` next to a
    `coco_url` (LVIS); one flat list of coordinates as a polygon; a missing or null `bbox`, `area`, `iscrowd` or
    `segmentation`. Masks may be polygons (those with fewer than three points are left out) or run lengths,
    compressed or not. Boxes may reach beyond the image and may have no width or height (train2017 has such).
    A category 0 without annotations is left out where it has another's name, or that of all others' supercategory
    (Roboflow writes it).

    Anything else raises one DatasetError with every kind of problem, its count and the first few offenders.
    """
    columns = _DatasetColumns(document, source, {}, folder)
    turned = {} if folder is None else upright_sizes(folder, columns.annotations.fitting_only_turned())
    if turned:
        columns = _DatasetColumns(document, source, turned, folder)
    return columns.dataset(masks_from)


class _DatasetColumns:
    """The lists of one document, filled; `turned`: sizes of images by name that count instead of those in the file."""

    def __init__(
        self, document: bytes, source: str, turned: Mapping[str, tuple[int, int]], folder: ImageFolder | None
    ) -> None:
        self._source = source
        self._turned = turned
        self.problems = Problems()
        self.images, self.categories = ImageColumns(self.problems, turned, folder), CategoryColumns(self.problems)
        self.annotations = AnnotationColumns(self.problems, self.images)
        sections = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        if _fill(document, sections, self.problems, source):
            _fill(document, {"annotations": self.annotations}, self.problems, source)

    def dataset(self, masks_from: MaskFile | None) -> Dataset:
        """Returns the tables, after checks of whole columns. Raises DatasetError with everything that is wrong."""
        images, annotations, categories, problems = self.images, self.annotations, self.categories, self.problems
        if masks_from is not None:
            problems.raise_if_any(self._source)
            _borrow_masks(masks_from, annotations)
        annotations.check(categories)
        images.federated.check(images, categories)
        categories.drop_placeholder(annotations.category_ids)
        categories.check_names()
        problems.raise_if_any(self._source)
        annotations.oddities.add_all(TURNED, self._turned)
        annotations.oddities.add_all(_NEGATIVE_ANNOTATED, images.federated.contradicted(annotations))
        annotations.oddities.add_all(OTHERWISE, [f"{name!r} for {found!r}" for name, found in images.renamed.items()])
        return Dataset(
            images.table(),
            annotations.table(),
            categories.table(),
            images.federated.table(),
            oddities=annotations.oddities.found(),
            readings=tuple(sorted(annotations.readings)),
            reframed={name: f"{height} x {width}" for name, (height, width) in self._turned.items()},
        )


def _borrow_masks(file: MaskFile, annotations: AnnotationColumns) -> None:
    problems = Problems()
    masks = BorrowedMasks(problems, annotations, file.conventions)
    _fill(file.document, {"annotations": masks}, problems, file.source)
    masks.check()
    problems.raise_if_any(file.source)


def _fill(document: bytes, sections: Mapping[str, Columns], problems: Problems, source: str) -> bool:
    """Adds the items of the document's lists to their columns; see `_read`. Raises DatasetError if it is no json."""
    try:
        return _read(JsonReader(document), sections, problems)
    except (JsonError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{source} is not valid json: {error}. Expected a COCO dataset file; was it cut off, or is it "
            "another kind of file?"
        ) from error


def _read(reader: JsonReader, sections: Mapping[str, Columns], problems: Problems) -> bool:
    """Adds the items of the document's lists to their columns.

    Returns whether annotations were passed over because the images come after them: polygons cannot be
    rasterized before the size of their image is known.
    """
    if reader.peek() != "{":
        kind = type(reader.value()).__name__
        reader.end()
        problems.add(_NOT_A_DATASET, f"a {kind}")
        return False
    seen: list[str] = []
    late = False
    for key in reader.members():
        columns = sections.get(key)
        if columns is not None and key in seen:
            problems.add(_REPEATED_SECTION, key)
        seen.append(key)
        if columns is not None and reader.peek() != "[":
            problems.add(_NOT_A_LIST, f"{key} is a {type(reader.value()).__name__}")
        elif columns is None:
            reader.value()
        else:
            too_early = key == "annotations" and "images" in sections and "images" not in seen
            late = late or too_early
            for item in reader.items():
                if not too_early:
                    columns.add(item)
    reader.end()
    required = ["images", "categories"] if "annotations" in seen else ["images"]
    problems.add_all(_NO_SECTION, [key for key in required if key in sections and key not in seen])
    problems.add_all(_OTHER_CASE, [key for key in seen if key.lower() in sections and key.lower() not in seen])
    return late and "images" in seen
