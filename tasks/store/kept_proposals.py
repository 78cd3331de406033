"""What the models made of images, kept in a store so that other references need no model; on `labeling.keep_proposals`.

    STORE/proposals/<key>/image_proposals.parquet    one image: its features, points that were asked, and their masks
                         /manifest.json

Keyed by the models, the grid, the parts of the method that shape proposals, the image in its version, and a number: 0
is what the first labeling of the image made, 1 what a later one had to add, and so on. What is found does not depend on
what is kept, so a part that is lost to a kill, to a faster writer or to a full disk costs time only.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from refseg_core.errors import NoSpaceError, StoreError
from refseg_core.labeling.kept.kept_image import KeptImage
from refseg_core.labeling.kept.kept_table import from_row, to_row
from refseg_core.tables import ImageProposals, Images
from tasks.storage.uris import redact
from tasks.store.steps import KEEP_PROPOSALS
from tasks.store.store import Recipe, Store, size_of

log = logging.getLogger(__name__)


class KeptProposals:
    """What is kept of the images of one folder, by one grid of the same models."""

    def __init__(self, store: Store, *, version: int, settings: Mapping[str, Any], weights: Mapping[str, str]) -> None:
        """`version`: of what the models answer. `settings`: what shapes proposals, and the images' folder."""
        self._store, self._version, self._settings, self._weights = store, version, settings, weights
        self._is_full = False

    def read(self, image: Images) -> tuple[KeptImage | None, int | None]:
        """Returns what is kept of an image, a table of one row, and the number of the part that may be added.

        Where a part is damaged, nothing is known and nothing can be added: labels only take as long as without.
        """
        kept: KeptImage | None = None
        number = 0
        try:
            while (part := self._part(image, number)) is not None:
                kept = part if kept is None else kept.plus(part)
                number += 1
        except StoreError as error:
            log.warning("%s What is kept of this image is not used; `refseg gc --proposals` removes all.", error)
            return None, None
        return kept, number

    def add(self, image: Images, added: KeptImage, number: int) -> None:
        """Keeps what is new of an image as the part of that number, unless another writer put one there.

        Where there is no space left, that is told once, and labels are made without.
        """
        if self._is_full:
            return
        try:
            self._store.save(self._recipe(image, number), [to_row(added)])
        except NoSpaceError:
            self._is_full = True
            _warn_of_full(redact(self._store.uri))

    def _part(self, image: Images, number: int) -> KeptImage | None:
        name = f"{KEEP_PROPOSALS.folder}/{self._recipe(image, number).key}"
        manifest = self._store.manifest(name)
        if manifest is None:
            return None
        return from_row(self._store.read_part(name, manifest["tables"][0], ImageProposals))

    def _recipe(self, image: Images, number: int) -> Recipe:
        """All counts that an image is opened by, since it may be turned, brightened or refused by it."""
        (of_image,) = image.to_arrow().drop_columns(["has_integer_id", "size"]).to_pylist()
        settings = {**self._settings, "image": of_image, "part": number}
        return Recipe(*KEEP_PROPOSALS, version=self._version, settings=settings, weights=self._weights)


@cache
def _warn_of_full(uri: str) -> None:
    """Warns once in a process, and not for each of its shards."""
    log.warning(
        "%s: no space left to keep proposals (labeling.keep_proposals). Labels are made all the same; make room, or "
        "`refseg gc --proposals` removes what is kept.",
        uri,
    )


@dataclass(frozen=True)
class KeptStatus:
    """What is kept of the images of a folder by one grid; `size` in bytes."""

    images: str
    points_per_side: int
    all_masks: bool
    num_images: int
    num_parts: int
    size: int


def kept_status(store: Store) -> list[KeptStatus]:
    """Looks at every manifest of what is kept; those of equal models and grids are one entry."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for manifest in store.manifests(KEEP_PROPOSALS.folder):
        settings = manifest["settings"]
        alike = [settings[name] for name in ("images", "points_per_side", "pred_iou_thresh", "all_masks")]
        groups.setdefault((*alike, *manifest["weights"].values()), []).append(manifest)
    return [_status(manifests) for manifests in groups.values()]


def _status(manifests: Sequence[Mapping[str, Any]]) -> KeptStatus:
    settings = manifests[0]["settings"]
    return KeptStatus(
        settings["images"],
        settings["points_per_side"],
        settings["all_masks"],
        num_images=len({str(manifest["settings"]["image"]) for manifest in manifests}),
        num_parts=len(manifests),
        size=sum(map(size_of, manifests)),
    )


def of_requested_images(
    store: Store, manifests: Mapping[str, Mapping[str, Any]], requested: Iterable[tuple[Mapping[str, Any], str]]
) -> set[str]:
    """Returns the names of artifacts that labels may still be made by: of the same models, and of requested images.

    `requested`: the recipes of labels, each with a dataset that they were requested for.
    """
    kept = {name: manifest for name, manifest in manifests.items() if manifest["folder"] == KEEP_PROPOSALS.folder}
    known: dict[Any, set[tuple[str, str]]] = {}
    for recipe, dataset in requested if kept else ():
        images = store.load(store.named(dataset), Images)
        known.setdefault(_source(recipe), set()).update(zip(images.image_id, images.version, strict=True))
    return {name for name, manifest in kept.items() if _identity(manifest) in known.get(_source(manifest), ())}


def _source(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    return (recipe["settings"]["images"], *recipe["weights"].values())


def _identity(manifest: Mapping[str, Any]) -> tuple[str, str]:
    image = manifest["settings"]["image"]
    return image["image_id"], image["version"]
