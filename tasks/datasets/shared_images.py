"""Which images are both references and targets: labels of these tell nothing about others.

Images are the same where their places are, or where files of the same name have the same content.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath

from refseg_core.errors import listed
from refseg_core.tables import Images, References
from tasks.datasets.reference_images import ReferenceFolder
from tasks.storage.folder import Folder
from tasks.store.lineage import reference_dataset, references_of
from tasks.store.store import Artifact, Store


def shared_image_ids(store: Store, prototypes: Artifact, dataset: Artifact, images: Images) -> list[str]:
    """Returns the ids of those of a dataset's images that references of the prototypes lie in."""
    names = store.load(references_of(store, prototypes), References).file_name
    references = ReferenceFolder(_place(store, reference_dataset(store, prototypes)), store)
    return same_images(references, names, Folder(_place(store, dataset)), images)


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
