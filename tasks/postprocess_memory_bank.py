"""Step 4: aggregates the bank into one prototype per category, and finds from which likeness on to prompt."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from refseg_core import images as image_files
from refseg_core.errors import DatasetError
from refseg_core.images import Pixels
from refseg_core.masks.rle import decode_mask
from refseg_core.models import preprocessing
from refseg_core.models.acceleration import pick_device
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import Encoder
from refseg_core.models.registry import model_spec
from refseg_core.references import prototypes
from refseg_core.references.guidance_thresh import choose_thresh, instance_similarity, similarity_around
from refseg_core.table_schema import Table
from refseg_core.tables import (
    Categories,
    GuidanceThresholds,
    ImageFeatures,
    Images,
    MemoryBank,
    NegativePrototypes,
    Prototypes,
    References,
)
from refseg_core.versions import combined
from tasks.datasets.reference_images import ReferenceFolder, ReferenceImages
from tasks.models.guidance import guidance_recipe
from tasks.models.loading import load_encoder
from tasks.models.weights import weights_sha256
from tasks.runtime.progress import ProgressStep, report
from tasks.runtime.retried_task import retried_task
from tasks.specs import Models
from tasks.storage.folder import Folder
from tasks.store.lineage import memory_bank_of, reference_dataset, references_of
from tasks.store.steps import ENCODE_IMAGE, POSTPROCESS_MEMORY_BANK
from tasks.store.store import Artifact, Recipe, Store

_MOST_IMAGES = 64  # that a threshold is taken from: each costs a pass of the encoder


@retried_task("postprocess memory bank")
def postprocess_memory_bank(
    store: Store,
    references: Artifact,
    bank: Artifact,
    *,
    dataset: Artifact | None = None,
    negatives: Sequence[str] = (),
    single_negatives: Sequence[str] = (),
) -> Artifact:
    """Makes prototypes. Raises DatasetError naming every category that is left without a usable reference.

    `negatives`: names of the dataset's categories that show what is not to be labeled. `single_negatives`: of those
    whose references show something else each, so that each stands for itself.
    """
    table, known = store.load(references, References), None if dataset is None else store.load(dataset, Categories)
    ids = [] if known is None else _ids(table, known, (*negatives, *single_negatives))
    single = [] if known is None else _ids(table, known, single_negatives)
    settings = {name: value for name, value in (("negatives", ids), ("single_negatives", single)) if value}
    recipe = Recipe(
        *POSTPROCESS_MEMORY_BANK, version=prototypes.VERSION, settings=settings, inputs={"memory_bank": bank.name}
    )

    def tables() -> list[Table]:
        filled = store.load(bank, MemoryBank)
        is_single = np.isin(filled.category_id, single)
        made = _prototypes(table[~np.isin(table.category_id, single)], filled[~is_single])
        is_negative = np.isin(made.category_id, ids)
        negative = Prototypes.concatenate([made[is_negative], prototypes.single_prototypes(filled[is_single])])
        return [made[~is_negative], *([NegativePrototypes.from_arrow(negative.to_arrow())] if ids else [])]

    return store.make(recipe, tables)


def _ids(references: References, categories: Categories, names: Sequence[str]) -> list[int]:
    """Returns the ids of categories of references. Raises DatasetError for names without references, or for all."""
    known = categories[np.isin(categories.category_id, references.category_id)]
    if unknown := sorted(set(names) - set(known.name)):
        raise DatasetError(
            f"references.negatives: there are no references of {', '.join(unknown)}; there are of "
            f"{', '.join(known.name)}. Name some of these, or sample the others too."
        )
    ids = sorted(known.category_id[np.isin(known.name, list(names))].tolist())
    if ids and len(ids) == len(known):
        raise DatasetError("references.negatives: all categories are negative. Leave one that is to be labeled.")
    return ids


def _prototypes(references: References, bank: MemoryBank) -> Prototypes:
    lost = sorted(set(references.category_id.tolist()) - set(bank.category_id.tolist()))
    if lost:
        raise DatasetError(
            f"No reference of the categories {lost} has a mask that is left on the patch grid. Give them larger "
            "references, or leave the categories out."
        )
    return prototypes.postprocess_memory_bank(bank)


@retried_task("choose guidance threshold")
def choose_guidance_thresh(store: Store, *, prototypes: Artifact, images_uri: str, models: Models) -> Artifact:
    """Chooses the threshold of the path `guided` by the references in their whole images, of 64 images at most.

    What the encoder sees in these images stays in the store, for the next choice.
    """
    folder = ReferenceFolder(images_uri, store)
    return store.make(guidance_recipe(prototypes, models), lambda: [_choose(store, prototypes, folder, models)])


@torch.inference_mode()
def _choose(store: Store, prototypes: Artifact, folder: Folder, models: Models) -> GuidanceThresholds:
    made, references = store.load(prototypes, Prototypes), store.load(references_of(store, prototypes), References)
    references = references[np.isin(references.category_id, made.category_id)]  # without negatives
    bank = store.load(memory_bank_of(store, prototypes), MemoryBank)
    listed = store.load(reference_dataset(store, prototypes), Images)
    reference_images = ReferenceImages(folder, listed, references)
    device = pick_device(models.device)
    prototypes_KC = torch.from_numpy(made.prototype.copy()).to(device)
    names = sorted(set(references.file_name))
    names = names[:: -(-len(names) // _MOST_IMAGES)]
    report(ProgressStep.CHOOSE_GUIDANCE, total=len(names))
    instances: list[float] = []
    patches: list[Tensor] = []
    for name in names:
        features_PC = _features(store, reference_images, name, models).to(device)
        inside = references[references.file_name == name]
        patches.append(_around(features_PC, inside, prototypes_KC))
        instances += _instances(features_PC, inside, bank)
        report(ProgressStep.CHOOSE_GUIDANCE, advanced=1)
    return choose_thresh(instances, patches)


def _features(store: Store, images: ReferenceImages, name: str, models: Models) -> Tensor:
    """Returns the features of an image, float32 [P, C], from the store if it has them."""
    spec, size = model_spec(models.encoder.model), model_spec(models.segmenter.model).architecture.image_size
    recipe = Recipe(
        *ENCODE_IMAGE,
        version=combined(image_files.VERSION, preprocessing.VERSION, spec.version),
        settings={"image_size": size, "frame": images.frame(name)},
        inputs={"image": images.sha256(name)},
        weights={"encoder": weights_sha256(models.encoder.model, models.encoder.weights)},
    )

    def encode() -> list[ImageFeatures]:
        encoder = load_encoder(models.encoder, models.device)
        return [ImageFeatures(feature=_encode(encoder, images.read(name), size).cpu().numpy())]

    return torch.from_numpy(store.load(store.make(recipe, encode), ImageFeatures).feature.copy())


def _encode(encoder: Encoder, image_HW3: Pixels, size: int) -> Tensor:
    """Returns the features of a whole image as the labeler sees them, float32 [P, C]."""
    pixels = to_unit_range(resize_to_square(image_HW3, size))
    return encoder(pixels[None].to(encoder.device)).float()[0]


def _around(features_PC: Tensor, references: References, prototypes_KC: Tensor) -> Tensor:
    """Returns how alike any category the patches outside an image's references are."""
    masks = [np.asarray(decode_mask(mask)) for mask in references.mask_rle]
    return similarity_around(features_PC, masks, prototypes_KC).cpu()


def _instances(features_PC: Tensor, references: References, bank: MemoryBank) -> list[float]:
    """Returns how alike their categories the references of an image are; without those that the bank left out."""
    row_of = {key: row for row, key in enumerate(zip(bank.category_id.tolist(), bank.shot.tolist(), strict=True))}
    keys = zip(references.category_id.tolist(), references.shot.tolist(), references.mask_rle, strict=True)
    return [
        instance_similarity(features_PC, np.asarray(decode_mask(mask)), bank, row_of[category, shot])
        for category, shot, mask in keys
        if (category, shot) in row_of
    ]
