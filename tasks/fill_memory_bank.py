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
from refseg_core.table_schema import Array, Table
from refseg_core.tables import Images, MemoryBank, References, ReferenceSources
from refseg_core.versions import combined
from tasks.datasets.known_rows import known_rows
from tasks.datasets.reference_images import ReferenceFolder, ReferenceImages
from tasks.models.loading import load_encoder
from tasks.models.weights import weights_sha256
from tasks.runtime.progress import ProgressStep, report
from tasks.runtime.retried_task import retried_task
from tasks.specs import Models
from tasks.store.steps import FILL_MEMORY_BANK
from tasks.store.store import Artifact, Recipe, Store

log = logging.getLogger(__name__)


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
    """Encodes the references, each into one vector; `all_views`: the mean of three, as `encode_views` says.

    Vectors that the store holds of the same references are taken from there. Each reference is encoded alone, so that
    its vector does not depend on the others.
    """
    table = store.load(references, References)
    reference_images = ReferenceImages(ReferenceFolder(images_uri, store), store.load(dataset, Images), table)
    encoder_version = model_spec(models.encoder.model).version
    recipe = Recipe(
        *FILL_MEMORY_BANK,
        version=combined(images.VERSION, preprocessing.VERSION, encoder_version, memory_bank.VERSION),
        settings=settings.model_dump(mode="json") | ({"views": memory_bank.VIEWS_VERSION} if all_views else {}),
        inputs={"references": references.name, "images": reference_images.content()},
        weights={"encoder": weights_sha256(models.encoder.model, models.encoder.weights)},
    )

    def bank() -> list[Table]:
        sources = reference_images.sources(table)
        known = known_rows(store, recipe, MemoryBank, sources)
        encoded = {row: _encoded(known[source]) for row, source in enumerate(sources) if source in known}
        new = np.array([row for row in range(len(table)) if row not in encoded], dtype=np.int64)
        if len(new):
            encoder = load_encoder(models.encoder, models.device)
            made = _encode(table[new], _Crops(reference_images, encoder, settings, all_views))
            encoded |= {int(new[row]): reference for row, reference in made.items()}
        rows, filled = _bank(table, encoded, model_spec(models.encoder.model).architecture.embed_dim)
        return [filled, ReferenceSources(row_index=np.arange(len(rows)), source=sources[rows])]

    return store.make(recipe, bank)


def _encoded(row: MemoryBank) -> EncodedReference:
    """Returns what a row of a bank was made from."""
    return EncodedReference(row.feature[0], float(row.foreground_weight[0]))


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
def _encode(references: References, prepare: _Crops) -> dict[int, EncodedReference]:
    """Returns the references by row, without those that are of no use."""
    report(ProgressStep.FILL_MEMORY_BANK, total=len(references))
    encoded: dict[int, EncodedReference] = {}
    for row, prepared in prepare(references):
        report(ProgressStep.FILL_MEMORY_BANK, advanced=1)
        if isinstance(prepared, UnusableReferenceError):
            _warn_left_out(references, row, str(prepared))
        else:
            encoded[row] = _encode_one(prepare.encoder, prepared, all_views=prepare.all_views)
    return encoded


def _encode_one(encoder: Encoder, prepared: _Prepared, *, all_views: bool) -> EncodedReference:
    encoded = encode_references(encoder, [prepared.crop])
    if all_views:
        encoded = encode_views(encoder, encoded, [prepared.crop], [prepared.in_image_C])
    return encoded[0]


def _bank(references: References, encoded: dict[int, EncodedReference], channels: int) -> tuple[Array, MemoryBank]:
    """Returns the rows of the references that are of use, and their bank."""
    for row in [row for row, reference in encoded.items() if reference.foreground_weight == 0]:
        _warn_left_out(references, row, "Its mask vanishes on the patch grid, since it is too thin.")
        del encoded[row]
    rows = np.array(sorted(encoded), dtype=np.int64)
    kept = references[rows]
    features = np.array([encoded[row].feature_C for row in rows.tolist()], dtype=np.float32)
    bank = MemoryBank(
        category_id=kept.category_id,
        shot=kept.shot,
        foreground_weight=np.array([encoded[row].foreground_weight for row in rows.tolist()], dtype=np.float32),
        feature=features.reshape(-1, channels),
    )
    return rows, bank


def _warn_left_out(references: References, row: int, reason: str) -> None:
    log.warning(
        "Reference annotation %s (category %s, image %s) is left out. %s",
        references.annotation_id[row],
        references.category_id[row],
        references.file_name[row],
        reason,
    )
