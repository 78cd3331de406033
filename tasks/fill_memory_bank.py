"""Step 3: encodes every reference into the memory bank."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from refseg_core import images
from refseg_core.errors import UnusableReferenceError
from refseg_core.masks.rle import decode_mask
from refseg_core.models import preprocessing
from refseg_core.models.protocols import Encoder
from refseg_core.models.registry import model_spec
from refseg_core.references import memory_bank
from refseg_core.references.memory_bank import (
    Crop,
    EncodedReference,
    crop_reference,
    encode_image,
    encode_references,
    encode_views,
    pool,
)
from refseg_core.settings import ReferenceSettings
from refseg_core.table_schema import Table
from refseg_core.tables import Images, MemoryBank, References
from refseg_core.versions import combined
from tasks.datasets.reference_images import ReferenceImages
from tasks.models.loading import load_encoder
from tasks.models.weights import weights_sha256
from tasks.runtime.progress import ProgressStep, report
from tasks.runtime.retried_task import retried_task
from tasks.specs import Models
from tasks.storage.folder import Folder
from tasks.store.steps import FILL_MEMORY_BANK
from tasks.store.store import Artifact, Recipe, Store

log = logging.getLogger(__name__)
_CROPS_PER_BATCH = 8


@retried_task("fill memory bank")
def fill_memory_bank(
    store: Store,
    *,
    dataset: Artifact,
    references: Artifact,
    images_uri: str,
    settings: ReferenceSettings,
    models: Models,
    all_views: bool = False,
) -> Artifact:
    """Encodes the references, each into one vector; `all_views`: the mean of three, as `encode_views` says."""
    table = store.load(references, References)
    reference_images = ReferenceImages(Folder(images_uri), store.load(dataset, Images), table)
    encoder_version = model_spec(models.encoder.model).version
    recipe = Recipe(
        *FILL_MEMORY_BANK,
        version=combined(images.VERSION, preprocessing.VERSION, encoder_version, memory_bank.VERSION),
        settings=settings.model_dump(mode="json") | ({"views": memory_bank.VIEWS_VERSION} if all_views else {}),
        inputs={"references": references.name, "images": reference_images.content()},
        weights={"encoder": weights_sha256(models.encoder.model, models.encoder.weights)},
    )

    def bank() -> list[Table]:
        encoder = load_encoder(models.encoder, models.device)
        return [_encode(table, _Crops(reference_images, encoder, settings, all_views), encoder)]

    return store.make(recipe, bank)


class _Prepared(NamedTuple):
    """A reference's crop and, where all views are wanted, its feature in the whole image."""

    crop: Crop
    in_image_C: Tensor | None


@dataclass(frozen=True)
class _Crops:
    """Cuts references out of their images."""

    images: ReferenceImages
    encoder: Encoder
    settings: ReferenceSettings
    all_views: bool

    def __call__(self, references: References) -> Iterator[tuple[int, _Prepared | UnusableReferenceError]]:
        """Yields each reference, or why it is of no use, image by image, so that each image is read once."""
        for file_name in sorted(set(references.file_name)):
            pixels = self.images.read(file_name)
            features_PC = encode_image(self.encoder, pixels) if self.all_views else None
            for row in np.flatnonzero(references.file_name == file_name).tolist():
                mask, box = decode_mask(references.mask_rle[row]), references.box_xyxy[row]
                ratio, size = self.settings.context_ratio, self.encoder.architecture.image_size
                try:
                    crop = crop_reference(pixels, mask, box, context_ratio=ratio, size=size)
                except UnusableReferenceError as error:
                    yield row, error
                    continue
                yield row, _Prepared(crop, None if features_PC is None else pool(features_PC, torch.from_numpy(mask)))


@torch.inference_mode()
def _encode(references: References, prepare: _Crops, encoder: Encoder) -> MemoryBank:
    report(ProgressStep.FILL_MEMORY_BANK, total=len(references))
    encoded: dict[int, EncodedReference] = {}
    waiting: dict[int, _Prepared] = {}
    for row, prepared in prepare(references):
        report(ProgressStep.FILL_MEMORY_BANK, advanced=1)
        if isinstance(prepared, UnusableReferenceError):
            _warn_left_out(references, row, str(prepared))
            continue
        waiting[row] = prepared
        if len(waiting) == _CROPS_PER_BATCH:
            encoded |= _encode_batch(encoder, waiting, all_views=prepare.all_views)
            waiting = {}
    if waiting:
        encoded |= _encode_batch(encoder, waiting, all_views=prepare.all_views)
    return _bank(references, encoded, encoder.architecture.embed_dim)


def _encode_batch(encoder: Encoder, waiting: dict[int, _Prepared], *, all_views: bool) -> dict[int, EncodedReference]:
    crops, in_image = map(list, zip(*waiting.values(), strict=True))
    encoded = encode_references(encoder, crops)
    return dict(zip(waiting, encode_views(encoder, encoded, crops, in_image) if all_views else encoded, strict=True))


def _bank(references: References, encoded: dict[int, EncodedReference], channels: int) -> MemoryBank:
    for row in [row for row, reference in encoded.items() if reference.foreground_weight == 0]:
        _warn_left_out(references, row, "Its mask vanishes on the patch grid, since it is too thin.")
        del encoded[row]
    rows = np.array(sorted(encoded), dtype=np.int64)
    kept = references[rows]
    features = np.array([encoded[row].feature_C for row in rows.tolist()], dtype=np.float32)
    return MemoryBank(
        category_id=kept.category_id,
        shot=kept.shot,
        foreground_weight=np.array([encoded[row].foreground_weight for row in rows.tolist()], dtype=np.float32),
        feature=features.reshape(-1, channels),
    )


def _warn_left_out(references: References, row: int, reason: str) -> None:
    log.warning(
        "Reference annotation %s (category %s, image %s) is left out. %s",
        references.annotation_id[row],
        references.category_id[row],
        references.file_name[row],
        reason,
    )
