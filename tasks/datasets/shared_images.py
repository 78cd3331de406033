"""Which images are both references and targets: labels of these tell nothing about others.

Images are the same where their places are, or where files of the same name have the same content. Of references that
were added, the content says it, or the review that they came from.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from refseg_core.errors import listed
from refseg_core.tables import Images, References
from tasks.datasets.reference_images import IN_STORE
from tasks.storage.folder import Folder
from tasks.store.lineage import added_references, decision_of, reference_dataset, references_of, without_decision
from tasks.store.reviews import StoredReview
from tasks.store.steps import REVIEW
from tasks.store.store import Artifact, Store

_MOST_OF_ONE_SIZE = 50  # files with as many bytes as an added picture; of more, the size says nothing


def shared_image_ids(store: Store, prototypes: Artifact, dataset: Artifact, images: Images) -> list[str]:
    """Returns the ids of those of a dataset's images that references of the prototypes lie in, added ones too."""
    return image_ids_with(
        store, reference_dataset(store, prototypes), references_of(store, prototypes), dataset, images
    )


def image_ids_with(
    store: Store, source: Artifact, references: Artifact, dataset: Artifact, images: Images
) -> list[str]:
    """Returns the same of these references, which are of the dataset `source`."""
    names = store.load(references, References).file_name
    given = [name for name in names if not name.startswith(IN_STORE)]
    shared = same_images(Folder(_place(store, source)), given, Folder(_place(store, dataset)), images)
    return _in_order({*shared, *_with_added(store, source, names, dataset, images)}, images)


def added_image_ids(store: Store, prototypes: Artifact, dataset: Artifact, images: Images) -> list[str]:
    """Returns the ids of those of a dataset's images that added references of the prototypes lie in."""
    names = store.load(references_of(store, prototypes), References).file_name
    return _in_order(_with_added(store, reference_dataset(store, prototypes), names, dataset, images), images)


def _in_order(image_ids: Collection[str], images: Images) -> list[str]:
    return [str(image_id) for image_id in images.image_id if image_id in image_ids]


def _with_added(store: Store, source: Artifact, names: Iterable[str], dataset: Artifact, images: Images) -> set[str]:
    used = set(names)
    added = [one for one in added_references(store, source) if one["file_name"] in used]
    if not added:
        return set()
    place = _place(store, dataset)
    decisions = {decision_of(one["original_name"]) for one in added}
    return {*_reviewed(store, place, decisions, images), *_same_pictures(store, added, Folder(place), images)}


def _reviewed(store: Store, place: str, wanted: Collection[str | None], images: Images) -> Iterator[str]:
    """Yields the ids of images in a place that decisions took references from, and that have not changed since."""
    version_of = dict(zip(images.image_id, images.version, strict=True))
    for recipe in store.manifests(REVIEW.folder, "recipe.json"):
        if recipe["settings"]["images"] == place:
            decisions = StoredReview(store, recipe["key"]).read()
            named = decisions[np.array([one in wanted for one in decisions.decision_id], dtype=bool)]
            for image_id, version in zip(named.image_id, named.image_version, strict=True):
                if "" in (version, version_of.get(image_id)) or version == version_of.get(image_id):
                    yield str(image_id)


def _same_pictures(store: Store, added: Iterable[Mapping[str, Any]], targets: Folder, images: Images) -> Iterator[str]:
    """Yields the ids of images whose files are pictures that were added; read are those of the same name or size."""
    names = {str(one["file_name"]) for one in added}
    pictures = [
        data for data in store.folder.read_many(one.removeprefix(IN_STORE) for one in names) if data is not None
    ]
    known = {hashlib.sha256(data).hexdigest() for data in pictures}
    count = Counter(images.size.tolist())
    sizes = {len(data) for data in pictures if count[len(data)] <= _MOST_OF_ONE_SIZE}
    named = {PurePosixPath(without_decision(one["original_name"])).name for one in added}
    rows = [
        row
        for row, (file_name, size) in enumerate(zip(images.file_name, images.size.tolist(), strict=True))
        if size in sizes or PurePosixPath(file_name).name in named
    ]
    hashes = _hashes(targets, {str(images.file_name[row]) for row in rows})
    yield from (str(images.image_id[row]) for row in rows if hashes[str(images.file_name[row])] in known)


def _place(store: Store, dataset: Artifact) -> str:
    return str((store.manifest(dataset.name) or {})["settings"]["images"])


def describe(shared: Sequence[str], num_images: int, *, are_excluded: bool) -> str:
    """Returns in words that images are both references and targets, and what that means for an evaluation."""
    what = (
        "they are left out of the evaluation, as evaluation.exclude_references says."
        if are_excluded
        else "labels of these are better than of others, and count in an evaluation unless "
        "evaluation.exclude_references is true."
    )
    return f"Leakage: {len(shared)} of {num_images:,} targets are images of references, too ({listed(shared)}): {what}"


def same_images(references: Folder, reference_names: Iterable[str], targets: Folder, images: Images) -> list[str]:
    """Returns the ids of the images that are among the reference images, in their order."""
    names_of: dict[str, list[str]] = {}
    for name in sorted(set(reference_names)):
        names_of.setdefault(PurePosixPath(name).name, []).append(name)
    named = [
        (str(image_id), str(target), name)
        for image_id, target in zip(images.image_id, images.file_name, strict=True)
        for name in names_of.get(PurePosixPath(target).name, ())
    ]
    elsewhere = [one for one in named if targets.join(one[1]) != references.join(one[2])]
    of_targets = _hashes(targets, {target for _, target, _ in elsewhere})
    of_references = _hashes(references, {name for *_, name in elsewhere})
    different = {one for one in elsewhere if of_targets[one[1]] is None or of_targets[one[1]] != of_references[one[2]]}
    return list(dict.fromkeys(one[0] for one in named if one not in different))


def _hashes(folder: Folder, names: Collection[str]) -> dict[str, str | None]:
    """Returns the hashes of files' contents; None where there is no such file."""
    ordered = sorted(names)
    contents = folder.read_many(ordered)
    hashes = (None if data is None else hashlib.sha256(data).hexdigest() for data in contents)
    return dict(zip(ordered, hashes, strict=True))
