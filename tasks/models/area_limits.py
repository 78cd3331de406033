"""Which areas instances may have, in a store: names of categories and what the references say, put into numbers."""

from collections.abc import Mapping

import numpy as np

from refseg_core.masks.rle import Rle, mask_areas
from refseg_core.settings import LabelingSettings
from refseg_core.tables import References
from tasks.store.lineage import labeled_categories, references_of
from tasks.store.store import Artifact, Store


def with_areas(store: Store, prototypes: Artifact, labeling: LabelingSettings) -> LabelingSettings:
    """Returns the settings with ids in the place of names, and areas in the place of 'auto'.

    Raises ConfigurationError for names of categories that the references have not.
    """
    area = labeling.area
    if area.is_off:
        return labeling
    categories = labeled_categories(store, prototypes)
    id_of = {str(name): str(key) for key, name in zip(categories.category_id, categories.name, strict=True)}
    shares_of = _shares(store.load(references_of(store, prototypes), References), id_of)
    decided = area.decided(id_of, shares_of)
    return labeling.model_copy(update={"area": decided})


def _shares(references: References, id_of: Mapping[str, str]) -> dict[str, list[float]]:
    """Returns how much of their images the references' masks cover, by the names of categories."""
    masks: list[Rle] = references.mask_rle.tolist()
    share_N = mask_areas(masks) / np.array([mask.size[0] * mask.size[1] for mask in masks], dtype=np.float64)
    ids = references.category_id.astype(str)
    return {name: share_N[ids == key].tolist() for name, key in id_of.items()}
