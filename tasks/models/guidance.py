"""The threshold of the path `guided` in a store: what decides it, and how it is found. Choosing it is a task's."""

from refseg_core import images
from refseg_core.errors import StoreError
from refseg_core.models import preprocessing
from refseg_core.models.registry import model_spec
from refseg_core.references import guidance_thresh
from refseg_core.settings import LabelingSettings
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import GuidanceThresholds
from refseg_core.versions import combined
from tasks.models.weights import weights_sha256
from tasks.specs import Models
from tasks.storage.uris import redact
from tasks.store.steps import CHOOSE_GUIDANCE
from tasks.store.store import Artifact, Recipe, Store


def is_chosen(labeling: LabelingSettings) -> bool:
    """Returns whether these settings need a threshold that the references choose."""
    return LABELING_PATHS[labeling.path].is_guided and labeling.guidance_thresh == "auto"


def guidance_recipe(prototypes: Artifact, models: Models) -> Recipe:
    """Returns what decides the threshold that is chosen for prototypes."""
    spec = model_spec(models.encoder.model)
    version = combined(images.VERSION, preprocessing.VERSION, spec.version, guidance_thresh.VERSION)
    return Recipe(
        *CHOOSE_GUIDANCE,
        version=version,
        settings={"image_size": model_spec(models.segmenter.model).architecture.image_size},
        inputs={"prototypes": prototypes.name},
        weights={"encoder": weights_sha256(models.encoder.model, models.encoder.weights)},
    )


def guidance_of(store: Store, prototypes: Artifact, models: Models) -> Artifact:
    """Returns the threshold that was chosen for prototypes. Raises StoreError where none was."""
    found = store.find(guidance_recipe(prototypes, models))
    if found is None:
        raise StoreError(
            f"{redact(store.uri)}: has no threshold for {prototypes.name} yet, which labeling.guidance_thresh 'auto' "
            "needs. `refseg bank` chooses it."
        )
    return found


def with_thresh(store: Store, guidance: Artifact, labeling: LabelingSettings) -> LabelingSettings:
    """Returns the settings with the chosen threshold."""
    (thresh,) = store.load(guidance, GuidanceThresholds).thresh.tolist()
    return labeling.model_copy(update={"guidance_thresh": thresh})
