"""Step 4: aggregates the bank into one prototype per category, and finds from which likeness on to prompt."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from refseg_core.errors import DatasetError
from refseg_core.masks.rle import decode_mask
from refseg_core.models.acceleration import pick_device
from refseg_core.references import prototypes
from refseg_core.references.guidance_thresh import choose_thresh, instance_similarity, similarity_around
from refseg_core.table_schema import Table
from refseg_core.tables import (
    Categories,
    GuidanceThresholds,
    Images,
    MemoryBank,
    NegativePrototypes,
    Prototypes,
    References,
)
from tasks.datasets.reference_images import ReferenceFolder, ReferenceImages
from tasks.models.background import BackgroundSource, find_background
from tasks.models.guidance import guidance_recipe
from tasks.models.image_features import image_features, some_images
from tasks.runtime.progress import ProgressStep, report
from tasks.runtime.retried_task import retried_task
from tasks.specs import Models
from tasks.storage.folder import Folder
from tasks.store.lineage import memory_bank_of, reference_dataset, references_of
from tasks.store.steps import POSTPROCESS_MEMORY_BANK
from tasks.store.store import Artifact, Recipe, Store


@retried_task("postprocess memory bank")
def postprocess_memory_bank(
    store: Store,
    references: Artifact,
    bank: Artifact,
    *,
    dataset: Artifact | None = None,
    negatives: Sequence[str] = (),
    single_negatives: Sequence[str] = (),
    background: BackgroundSource | None = None,
) -> Artifact:
    """Makes prototypes. Raises DatasetError naming every category that is left without a usable reference.

    `negatives`: names of the dataset's categories that show what is not to be labeled. `single_negatives`: of those
    whose references show something else each, so that each stands for itself. `background`: where what resembles no
    category is found; None: it is not looked for.
    """
    table, known = store.load(references, References), None if dataset is None else store.load(dataset, Categories)
    ids = [] if known is None else _ids(table, known, (*negatives, *single_negatives))
    single = [] if known is None else _ids(table, known, single_negatives)
    used = {"negatives": ids, "single_negatives": single, "background": background and background.settings}
    recipe = Recipe(
        *POSTPROCESS_MEMORY_BANK,
        version=prototypes.VERSION,
        settings={name: value for name, value in used.items() if value},
        inputs={"memory_bank": bank.name} | ({"dataset": background.dataset.name} if background else {}),
    )

    def tables() -> list[Table]:
        filled = store.load(bank, MemoryBank)
        is_single = np.isin(filled.category_id, single)
        made = _prototypes(table[~np.isin(table.category_id, single)], filled[~is_single])
        is_negative = np.isin(made.category_id, ids)
        negative = [made[is_negative], prototypes.single_prototypes(filled[is_single])]
        if background is not None:
            labeled = filled[~np.isin(filled.category_id, ids)]
            negative.append(find_background(store, table, labeled, background))
        combined = NegativePrototypes.from_arrow(Prototypes.concatenate(negative).to_arrow())
        return [made[~is_negative], *([combined] if ids or background else [])]

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
    names = some_images(references)
    report(ProgressStep.CHOOSE_GUIDANCE, total=len(names))
    instances: list[float] = []
    patches: list[Tensor] = []
    for name in names:
        features_PC = image_features(store, reference_images, name, models).to(device)
        inside = references[references.file_name == name]
        patches.append(_around(features_PC, inside, prototypes_KC))
        instances += _instances(features_PC, inside, bank)
        report(ProgressStep.CHOOSE_GUIDANCE, advanced=1)
    return choose_thresh(instances, patches)


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
