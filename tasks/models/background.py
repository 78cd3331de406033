"""The background of reference images as prototypes of what is not to be labeled: `references.background: auto`."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from refseg_core import images as image_files
from refseg_core.masks.rle import Masks, decode_mask
from refseg_core.models import preprocessing
from refseg_core.models.acceleration import pick_device
from refseg_core.models.registry import model_spec
from refseg_core.references import background
from refseg_core.references.background import (
    SeenReferences,
    background_prototypes,
    patches_outside,
    seen_references,
)
from refseg_core.references.clustering import Floats
from refseg_core.references.memory_bank import pool
from refseg_core.tables import Annotations, Images, MemoryBank, NegativePrototypes, References
from refseg_core.versions import combined
from tasks.datasets.reference_images import IN_STORE, ReferenceFolder, ReferenceImages
from tasks.models.image_features import frame_size, image_features, some_images
from tasks.runtime.progress import ProgressStep, report
from tasks.specs import Models
from tasks.store.store import Artifact, Store


@dataclass(frozen=True)
class BackgroundSource:
    """Where the background is looked for: in reference images, outside of all annotations of their dataset."""

    dataset: Artifact
    images_uri: str
    models: Models

    @property
    def settings(self) -> dict[str, Any]:
        """What decides it besides the references, the dataset and the encoder's weights."""
        spec = model_spec(self.models.encoder.model)
        version = combined(image_files.VERSION, preprocessing.VERSION, spec.version, background.VERSION)
        return {"version": version, "image_size": frame_size(self.models)}


@torch.inference_mode()
def find_background(
    store: Store, references: References, bank: MemoryBank, source: BackgroundSource
) -> NegativePrototypes:
    """Returns the background of at most 64 reference images, of which the store keeps what the encoder sees.

    `bank`: of what is labeled. Of pictures that were added to the store only one instance is known, so that they count
    only where there are no others.
    """
    folder = ReferenceFolder(source.images_uri, store)
    images = ReferenceImages(folder, store.load(source.dataset, Images), references)
    annotations = store.load(source.dataset, Annotations)
    is_added = np.array([name.startswith(IN_STORE) for name in references.file_name], dtype=bool)
    names = some_images(references if is_added.all() else references[~is_added])
    report(ProgressStep.FIND_BACKGROUND, total=len(names))
    patches: list[Floats] = []
    seen: list[SeenReferences] = []
    for name in names:
        image = _Image(references[references.file_name == name], annotations, bank)
        features_PC = image_features(store, images, name, source.models).to(pick_device(source.models.device))
        patches.append(patches_outside(features_PC, image.annotated))
        pooled = [pool(features_PC, torch.from_numpy(mask_HW)) for mask_HW in image.masks]
        seen.append(seen_references(pooled, bank, image.rows))
        report(ProgressStep.FIND_BACKGROUND, advanced=1)
    return background_prototypes(np.concatenate(patches), SeenReferences.joined(seen))


@dataclass(frozen=True)
class _Image:
    """The references in an image, by their order in the bank, and the annotations of it."""

    references: References
    annotations: Annotations
    bank: MemoryBank

    @cached_property
    def rows(self) -> list[int]:
        """The references' rows in the bank; without those that it left out."""
        return [row for row, _ in self._in_bank]

    @cached_property
    def masks(self) -> list[Masks]:
        """Their masks, bool [H, W]."""
        return [decode_mask(self.references.mask_rle[place]) for _, place in self._in_bank]

    @cached_property
    def annotated(self) -> Masks:
        """What any annotation covers of the image, bool [H, W]: its mask, or its box where it has none of that size."""
        height, width = self.references.mask_rle[0].size
        covered_HW = np.zeros((height, width), dtype=bool)
        own = self.annotations[self.annotations.image_id == self.references.image_id[0]]
        for mask, (left, top, wide, high) in zip(own.mask_rle, own.box_xywh.tolist(), strict=True):
            if mask is not None and mask.size == (height, width):
                covered_HW |= decode_mask(mask)
            else:
                bottom, right = int(np.ceil(top + high)), int(np.ceil(left + wide))
                covered_HW[max(0, int(top)) : bottom, max(0, int(left)) : right] = True
        for mask in self.references.mask_rle:
            covered_HW |= decode_mask(mask)
        return covered_HW

    @cached_property
    def _in_bank(self) -> list[tuple[int, int]]:
        """The rows in the bank of references, with their places here, in the order of the bank."""
        keys = zip(self.bank.category_id.tolist(), self.bank.shot.tolist(), strict=True)
        row_of = {key: row for row, key in enumerate(keys)}
        own = zip(self.references.category_id.tolist(), self.references.shot.tolist(), strict=True)
        return sorted((row_of[key], place) for place, key in enumerate(own) if key in row_of)
