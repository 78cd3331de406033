"""The references of a store to look at: how good each is, as a table, and a sheet for each category.

A sheet shows each reference as the encoder sees it: the crop, stretched to a square, all but the mask dimmed.
"""

import re
from collections.abc import Collection, Iterator

import numpy as np

from refseg_core.analysis import reference_quality
from refseg_core.analysis.reference_quality import assess_references, told_twins
from refseg_core.errors import ImageError, RefsegError, StoreError, counted, listed
from refseg_core.masks.rle import Rle, decode_mask, encode_masks
from refseg_core.references.memory_bank import Crop, crop_reference
from refseg_core.tables import Images, MemoryBank, ReferenceQuality, References
from refseg_core.visualization import Picture, contact_sheet, instance_panel, to_jpeg
from tasks.datasets.reference_images import ReferenceFolder, ReferenceImages
from tasks.outputs.pictures import Palette, check_apart
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.lineage import (
    memory_bank_of,
    negatives_of,
    reference_dataset,
    referenced_categories,
    references_of,
    shown_names,
)
from tasks.store.steps import ASSESS_REFERENCES, POSTPROCESS_MEMORY_BANK
from tasks.store.store import Artifact, Recipe, Store

_CROP_SIDE = 518  # px; as DINOv2 gets it
_PANEL_SIDE = 288
_INSIDE = 0.5  # of the soft mask
_GRAY = 128
_LONGEST_NAME = 80
NEGATIVE = " (negative)"
"""What is put behind the name of a category that is not to be labeled."""


def assess(store: Store, prototypes: Artifact) -> Artifact:
    """Returns the table of how good the references of prototypes are, made unless the store has it."""
    references, bank = references_of(store, prototypes), memory_bank_of(store, prototypes)
    recipe = Recipe(
        *ASSESS_REFERENCES,
        version=reference_quality.VERSION,
        settings={"twins": "told"} if twins_of(store, prototypes) else {},  # all others keep the keys they have
        inputs={"references": references.name, "memory_bank": bank.name, "prototypes": prototypes.name},
    )
    return store.make(recipe, lambda: [quality_of(store, prototypes)])


def twins_of(store: Store, prototypes: Artifact) -> dict[str, str]:
    """Returns what to tell of references, by annotation id, that are the same instance of an image as another."""
    categories = referenced_categories(store, prototypes)
    names = dict(zip(categories.category_id.tolist(), map(str, categories.name), strict=True))
    references = store.load(references_of(store, prototypes), References)
    return {str(references.annotation_id[row]): what for row, what in told_twins(references, names).items()}


def quality_of(store: Store, prototypes: Artifact) -> ReferenceQuality:
    """Returns how good the references of prototypes are, without writing to a store that may only be read."""
    references, bank = references_of(store, prototypes), memory_bank_of(store, prototypes)
    categories = referenced_categories(store, prototypes)
    return assess_references(store.load(references, References), store.load(bank, MemoryBank), categories)


def newest_prototypes(store: Store) -> Artifact:
    """Returns the prototypes that were made last. Raises StoreError where there are none."""
    made = store.manifests(POSTPROCESS_MEMORY_BANK.folder)
    if not made:
        raise StoreError(
            f"{redact(store.uri)}: holds no labels, nor references. `refseg bank` makes references, `refseg run` makes "
            "labels, too; check the store's path."
        )
    return store.named(f"{POSTPROCESS_MEMORY_BANK.folder}/{made[-1]['key']}")


def draw_sheets(store: Store, prototypes: Artifact, out: Folder, only: Collection[int] | None = None) -> int:
    """Writes a sheet for each category; returns how many. Raises ConfigurationError for a folder of references.

    `only`: ids of the categories that are drawn; None: all.
    """
    check_apart(out, str((store.manifest(reference_dataset(store, prototypes).name) or {})["settings"]["images"]))
    quality = quality_of(store, prototypes)
    negative_ids = negatives_of(store, prototypes).category_id
    panels = _Panels(store, prototypes)
    drawn = [one for one in dict.fromkeys(quality.category_id.tolist()) if only is None or one in only]
    report(ProgressStep.DRAW_REFERENCES, total=int(np.isin(quality.category_id, drawn).sum()))
    for category_id in drawn:
        rows = np.flatnonzero(quality.category_id == category_id)
        sheet = contact_sheet(
            [panels.draw(int(row), quality) for row in rows],
            titles=[str(quality.advice[row]).partition(":")[0] or " " for row in rows],  # the numbers are in the tile
            heading=f"{quality.category_name[rows[0]]}{NEGATIVE if category_id in negative_ids else ''}: "
            f"{counted(len(rows), 'reference')}, {'each ' if len(rows) > 1 else ''}as the encoder sees it",
            tile_side=_PANEL_SIDE,
        )
        out.replace(f"{_file_name(str(quality.category_name[rows[0]]), category_id)}.jpg", to_jpeg(sheet))
    return len(drawn)


def describe_negatives(store: Store, prototypes: Artifact) -> str:
    """Returns what is not to be labeled: 'negatives: mast, buoy; 12 background prototypes', or '' where nothing is."""
    negatives, categories = negatives_of(store, prototypes), referenced_categories(store, prototypes)
    names = categories.name[np.isin(categories.category_id, negatives.category_id)]
    has_background = "background" in (store.manifest(prototypes.name) or {}).get("settings", {})
    background = counted(int(negatives.is_background.sum()), "background prototype") if has_background else ""
    return "; ".join(filter(None, [f"negatives: {listed(names)}" if len(names) else "", background]))


def _file_name(name: str, category_id: int) -> str:
    """Returns a name for a category's file: that of the category where it can be one."""
    plain = re.sub(r"[^\w .-]", "_", name).strip(" .")[:_LONGEST_NAME]
    return plain if plain == name else f"{plain}-{category_id}"


class _Panels:
    """Draws the references of prototypes."""

    def __init__(self, store: Store, prototypes: Artifact) -> None:
        dataset, bank = reference_dataset(store, prototypes), memory_bank_of(store, prototypes)
        self._references = store.load(references_of(store, prototypes), References)
        folder = ReferenceFolder((store.manifest(dataset.name) or {})["settings"]["images"], store)
        self._images = ReferenceImages(folder, store.load(dataset, Images), self._references)
        self._context_ratio = float((store.manifest(bank.name) or {})["settings"]["context_ratio"])
        self._palette = Palette(store, prototypes)
        self._shown_names = shown_names(store, dataset)

    def draw(self, row: int, quality: ReferenceQuality) -> Picture:
        """Returns a reference with what is known of it; gray where its image cannot be read any more."""
        report(ProgressStep.DRAW_REFERENCES, advanced=1)
        picture, mask = self._crop(row)
        file_name = str(quality.file_name[row])
        return instance_panel(
            picture,
            (0, 0, picture.shape[1], picture.shape[0]),
            mask,
            name=f"{quality.annotation_id[row]}, {self._shown_names.get(file_name, file_name)}",
            details=", ".join(_details(quality, row)),
            color_index=self._palette.colors(quality.category_id[row : row + 1])[0],
            side=_PANEL_SIDE,
        )

    def _crop(self, row: int) -> tuple[Picture, Rle | None]:
        """Returns the crop, uint8 RGB [518, 518, 3], and its mask."""
        references = self._references
        try:
            crop = crop_reference(
                self._images.read(str(references.file_name[row])),
                decode_mask(references.mask_rle[row]),
                references.box_xyxy[row],
                context_ratio=self._context_ratio,
                size=_CROP_SIDE,
            )
        except (ImageError, RefsegError):
            return np.full((_CROP_SIDE, _CROP_SIDE, 3), _GRAY, dtype=np.uint8), None
        return _pixels(crop), encode_masks((crop.mask_EE.numpy() >= _INSIDE)[None])[0]


def _pixels(crop: Crop) -> Picture:
    """Returns the crop's image, uint8 RGB [E, E, 3]."""
    return (crop.image_3EE.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def _details(quality: ReferenceQuality, row: int) -> Iterator[str]:
    source, score = quality.mask_source[row], quality.mask_score[row]
    yield f"mask: {source}" if score is None else f"mask: {source} {score:.2f}"
    if quality.own_similarity[row] is not None:
        yield f"own {quality.own_similarity[row]:.2f}"
    if quality.other_similarity[row] is not None:
        yield f"{quality.other_category_name[row]} {quality.other_similarity[row]:.2f}"
