"""A pilot: some images of the targets, chosen to tell most, labeled and shown on one page.

Its labels are noted as those of a pilot, so that they are never taken for the run's; a run with the same settings
takes them over.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flows import pipeline
from flows.config.run_config import RunConfig
from flows.pipeline import RunResult
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import PilotImages
from tasks.index_dataset import index_dataset
from tasks.models.pilot_images import PilotChoice, PilotWish, pilot_images
from tasks.store.store import Store


@dataclass(frozen=True)
class Pilot:
    """The images that were chosen, and what was made of them."""

    chosen: PilotChoice
    result: RunResult


def run_pilot(config: RunConfig, wish: PilotWish, tell: Callable[[str], None]) -> Pilot:
    """Chooses images unless an earlier pilot did, tells which, and labels those that are not labeled yet."""
    store = Store(config.store)
    prototypes = pipeline.make_bank(config)
    targets = index_dataset.fn(store, config.targets.source, conventions=config.conventions)
    chosen = pilot_images(store, wish, dataset=targets, prototypes=prototypes, spec=config.label_spec)
    tell(chosen.describe(targets.num_rows["images"]))
    image_ids = tuple(sorted(store.load(chosen.images, PilotImages).image_id.tolist()))
    return Pilot(chosen, pipeline.run_pipeline(pilot_config(config, image_ids)))


def pilot_config(config: RunConfig, image_ids: tuple[str, ...]) -> RunConfig:
    """Returns the configuration of a pilot over these images, without pictures of each, which the run will write.

    Proposals are kept, where the path can and nobody says otherwise: a pilot is labeled again and again.
    """
    targets = config.targets.model_copy(update={"image_ids": image_ids, "limit": None})
    labeling = config.labeling
    if LABELING_PATHS[labeling.path].is_for_all_methods and labeling.keep_proposals is None:
        labeling = labeling.model_copy(update={"keep_proposals": True})
    return config.model_copy(update={"targets": targets, "labeling": labeling, "purpose": "pilot", "pictures": None})
