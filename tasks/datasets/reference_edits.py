"""References that were added to a store or dropped, without an annotation file: what was done, and what it makes.

    STORE/reference_edits/<set>/0000.json    an edit: a reference added, dropped or taken back; none is ever changed
          added_references/<sha256>.jpg      the picture of an added one

The set is the references' images and annotations by their last names, so that edits stay when a project moves. Edits
count in their order, for every configuration of that store with these references.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from refseg_core.errors import DatasetError, did_you_mean, in_natural_order, listed, shortened
from refseg_core.images import WHITE
from refseg_core.masks.rle import Rle, mask_areas
from refseg_core.table_schema import Array, Table
from refseg_core.tables import Annotations, Categories, Images, References
from tasks.datasets.indexed import load_dataset
from tasks.datasets.reference_images import IN_STORE
from tasks.specs import DatasetSource
from tasks.storage.uris import last_name
from tasks.store.lineage import without_decision
from tasks.store.manifests import EDIT
from tasks.store.steps import ADD_REFERENCES, EDIT_REFERENCES
from tasks.store.store import Artifact, Recipe, Store, made_by, numbered_name, table_name

_VERSION = 1  # of what edits make
_PICTURES = "added_references"
_FIRST_CATEGORY = 1_000_000  # an id that no other category of references or targets is likely to have
_NAME_LENGTH = 16
_SHOWN = 36  # ids in a message

Kind = Literal["add", "drop", "restore"]


@dataclass(frozen=True)
class AddedReference:
    """A reference that was added: its picture, as people see it, and where the instance is in it.

    `file_name`: as `ReferenceFolder` reads it. `original_name`: of the file that was given. `box_xyxy`: pixels.
    `mask`: None where the box is all that was given. `mask_source` and `mask_score`: as in `References`.
    """

    id: str
    category: str
    file_name: str
    original_name: str
    height: int
    width: int
    box_xyxy: tuple[float, float, float, float]
    mask: Rle | None
    mask_source: str
    mask_score: float | None

    @property
    def picture_name(self) -> str:
        """The name of the picture alone, without the decision that made an instance of it a reference."""
        return without_decision(self.original_name)


@dataclass(frozen=True)
class EditedReferences:
    """What all edits of a set of references leave: those that were added and not dropped, and the ids dropped."""

    added: tuple[AddedReference, ...] = ()
    dropped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.dropped)


class ReferenceEdits:
    """The edits of one set of references in a store."""

    def __init__(self, store: Store, source: DatasetSource) -> None:
        self._store = store
        names = f"{last_name(source.images)}\n{last_name(str(source.annotations))}"
        self._folder = f"reference_edits/{hashlib.sha256(names.encode()).hexdigest()[:_NAME_LENGTH]}"

    def current(self) -> EditedReferences:
        """Returns what the edits leave."""
        added: dict[str, AddedReference] = {}
        dropped: dict[str, None] = {}
        for edit in self._edits():
            if edit["kind"] == "add":
                added[edit["id"]] = _added(edit)
            elif edit["kind"] == "drop":
                dropped[edit["id"]] = None
            else:
                dropped.pop(edit["id"], None)
        left = tuple(one for one in added.values() if one.id not in dropped)
        return EditedReferences(left, tuple(dropped))

    def original_names(self) -> list[tuple[str, str]]:
        """Returns the id and the original name of every reference that was ever added, dropped ones too."""
        return [(edit["id"], edit["original_name"]) for edit in self._edits() if edit["kind"] == "add"]

    def put_picture(self, name: str, data: bytes) -> str:
        """Keeps a picture in the store, named by its content; returns the file name of references in it."""
        suffix = PurePosixPath(name).suffix.lower()
        place = f"{_PICTURES}/{hashlib.sha256(data).hexdigest()[:_NAME_LENGTH]}{suffix}"
        self._store.folder.create(place, data)
        return f"{IN_STORE}{place}"

    def add(self, reference: AddedReference) -> AddedReference:
        """Adds a reference, under an id that no other has; returns it with its id."""
        while True:
            number = len(self._edits())
            numbered = replace(reference, id=f"added-{number}")
            mask = numbered.mask and numbered.mask.to_coco()
            values = {**vars(numbered), "box_xyxy": list(numbered.box_xyxy), "mask": mask}
            if self._note(number, {"kind": "add", **values}):
                return numbered

    def drop(self, reference_id: str) -> None:
        """Leaves a reference out from now on, whether it was added or sampled."""
        self._append("drop", reference_id)

    def restore(self, reference_id: str) -> None:
        """Takes a reference back that was dropped. Raises DatasetError where it was not."""
        dropped = self.current().dropped
        if reference_id not in dropped:
            raise DatasetError(
                f"--restore {shortened(reference_id)}: is not among the dropped references, which are "
                f"{listed(in_natural_order(dropped), _SHOWN) or 'none'}.{did_you_mean(reference_id, dropped)}"
            )
        self._append("restore", reference_id)

    def _append(self, kind: Kind, reference_id: str) -> None:
        while not self._note(len(self._edits()), {"kind": kind, "id": reference_id}):
            pass  # another process was first; the next number is ours

    def _note(self, number: int, edit: dict[str, Any]) -> bool:
        """Writes an edit down; returns whether it was this one that got the number."""
        noted = {**edit, **made_by()}
        return self._store.commit(numbered_name(self._folder, number), noted) is noted

    def _edits(self) -> list[dict[str, Any]]:
        return list(self._store.numbered(self._folder, EDIT))


def edit_references(
    store: Store, source: DatasetSource, dataset: Artifact, references: Artifact
) -> tuple[Artifact, Artifact]:
    """Returns dataset and references as the edits leave them; as they are where there is none.

    Raises DatasetError where no reference is left.
    """
    edits = ReferenceEdits(store, source).current()
    if not edits and references.num_rows[table_name(References)] == 0:
        raise DatasetError(
            "references.annotations is null, and no reference was added yet. Add some with `refseg bank CONFIG --add "
            "boat=boat.jpg --box 10,20,200,180`."
        )
    if not edits:
        return dataset, references
    if edits.added:
        dataset = _with_added(store, dataset, edits.added)
    recipe = Recipe(
        *EDIT_REFERENCES,
        version=_VERSION,
        settings={"added": [one.id for one in edits.added], "dropped": sorted(edits.dropped)},
        inputs={"dataset": dataset.name, "references": references.name},
    )
    return dataset, store.make(recipe, lambda: [_edited(store, dataset, references, edits)])


def _added(edit: dict[str, Any]) -> AddedReference:
    values = {name: edit[name] for name in AddedReference.__dataclass_fields__}
    mask = values["mask"] and Rle((values["mask"]["size"][0], values["mask"]["size"][1]), values["mask"]["counts"])
    return AddedReference(**values | {"box_xyxy": tuple(values["box_xyxy"]), "mask": mask})


def _with_added(store: Store, dataset: Artifact, added: Sequence[AddedReference]) -> Artifact:
    """Returns the dataset with the pictures, instances and categories that were added."""
    manifest = store.manifest(dataset.name) or {}
    recipe = Recipe(
        *ADD_REFERENCES,
        version=_VERSION,
        settings={
            **{"images": manifest["settings"]["images"], "annotations": None, "image_ids": None},
            "added": [{**vars(one), "mask": one.mask and one.mask.to_coco()} for one in added],
        },
        inputs={"dataset": dataset.name},
    )

    def tables() -> Iterator[Table]:
        whole = load_dataset(store, dataset)
        categories = _with_new(whole.categories, [one.category for one in added])
        yield Images.concatenate([whole.images, *(_image(one) for one in _by_file(added))])
        yield Annotations.concatenate([whole.annotations, *(_annotation(one, categories) for one in added)])
        yield categories
        if whole.federated_labels is not None:
            yield whole.federated_labels

    return store.make(recipe, lambda: list(tables()))


def _by_file(added: Sequence[AddedReference]) -> list[AddedReference]:
    """Returns one reference of each picture."""
    return list({one.file_name: one for one in added}.values())


def _with_new(categories: Categories, names: Sequence[str]) -> Categories:
    new = [name for name in dict.fromkeys(names) if name not in categories.name]
    first = max([_FIRST_CATEGORY - 1, *categories.category_id.tolist()]) + 1
    rows = [
        Categories.row(category_id=first + number, class_index=len(categories) + number, name=name, frequency=None)
        for number, name in enumerate(new)
    ]
    return Categories.concatenate([categories, *rows])


def _image(added: AddedReference) -> Images:
    return Images.row(
        image_id=added.file_name,
        has_integer_id=False,
        file_name=added.file_name,
        height=added.height,
        width=added.width,
        size=-1,
        version="",
        frame="upright",
        white=WHITE,
    )


def _annotation(added: AddedReference, categories: Categories) -> Annotations:
    x1, y1, x2, y2 = added.box_xyxy
    return Annotations.row(
        annotation_id=added.id,
        image_id=added.file_name,
        category_id=_id_of(added.category, categories),
        box_xywh=[x1, y1, x2 - x1, y2 - y1],
        area=(x2 - x1) * (y2 - y1) if added.mask is None else float(mask_areas([added.mask])[0]),
        mask_rle=added.mask,
        is_crowd=False,
        is_impossible=False,
    )


def _id_of(category: str, categories: Categories) -> int:
    return int(categories.category_id[categories.name == category][0])


def _edited(store: Store, dataset: Artifact, references: Artifact, edits: EditedReferences) -> References:
    given, categories = store.load(references, References), store.load(dataset, Categories)
    for one in edits.added:
        given = References.concatenate([given, _reference(one, given, categories)])
    left = given[~_is_among(given.annotation_id, edits.dropped)]
    if len(left) == 0:
        raise DatasetError(
            "Every reference was dropped. Add one with `refseg bank CONFIG --add`, or take one back with --restore."
        )
    return left


def _reference(added: AddedReference, others: References, categories: Categories) -> References:
    category_id = _id_of(added.category, categories)
    shots = others.shot[others.category_id == category_id].tolist()
    return References.row(
        category_id=category_id,
        shot=max([-1, *shots]) + 1,
        image_id=added.file_name,
        annotation_id=added.id,
        file_name=added.file_name,
        box_xyxy=list(added.box_xyxy),
        mask_rle=added.mask,
        mask_source=added.mask_source,
        mask_score=added.mask_score,
    )


def _is_among(ids: Array, wanted: Sequence[str]) -> Array:
    return np.isin(ids.astype(str), list(wanted))
