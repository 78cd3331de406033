"""Step 1: picks the reference instances: by sampling, all of them, or by name."""

import logging
from collections.abc import Sequence

import numpy as np

from refseg_core.errors import counted, listed
from refseg_core.references import sampling
from refseg_core.settings import Conventions, SamplingSettings
from refseg_core.tables import Annotations, Categories, Images, References
from tasks.runtime.retried_task import retried_task
from tasks.store.steps import SAMPLE_REFERENCES
from tasks.store.store import Artifact, Recipe, Store

log = logging.getLogger(__name__)

_NAMES_SHOWN = 8


@retried_task("sample references")
def sample_references(
    store: Store,
    dataset: Artifact,
    settings: SamplingSettings,
    annotation_ids: Sequence[str] | None = None,
    *,
    conventions: Conventions = "corrected",
) -> Artifact:
    """Samples references; with `annotation_ids` takes exactly those instead.

    Raises ConfigurationError where `settings` names other categories than those have.
    """
    if annotation_ids is not None:
        if settings.categories is not None:
            tables = store.load(dataset, Annotations), store.load(dataset, Categories)
            sampling.check_named(*tables, annotation_ids, settings.categories)
        recipe = _recipe(dataset, {"annotation_ids": list(annotation_ids)})
        return store.make(recipe, lambda: [sampling.select_references(*_read(store, dataset), annotation_ids)])

    def sample() -> list[References]:
        tables = (*_read(store, dataset), store.load(dataset, Categories))
        return [sampling.sample_references(*tables, settings, conventions=conventions)]

    references = store.make(_recipe(dataset, _decisive(settings, conventions)), sample)
    if settings.on_shortage != "error":
        _tell_left_out(store, dataset, references, settings)
    return references


def _tell_left_out(store: Store, dataset: Artifact, references: Artifact, settings: SamplingSettings) -> None:
    wanted = sampling.wanted_categories(store.load(dataset, Categories), settings)
    sampled = store.load(references, References).category_id
    without = wanted.name[~np.isin(wanted.category_id, sampled)].tolist()
    if without:
        log.warning(
            "References: left out, without a valid annotation: %s (%s)",
            listed(without, _NAMES_SHOWN),
            counted(len(without), "category", "categories"),
        )


def _read(store: Store, dataset: Artifact) -> tuple[Images, Annotations]:
    return store.load(dataset, Images), store.load(dataset, Annotations)


def _recipe(dataset: Artifact, settings: dict[str, object]) -> Recipe:
    return Recipe(*SAMPLE_REFERENCES, version=sampling.VERSION, settings=settings, inputs={"dataset": dataset.name})


def _decisive(settings: SamplingSettings, conventions: Conventions) -> dict[str, object]:
    """Returns what decides the references: for sampled ones not `selection`, which older stores do not have."""
    if settings.selection == "sampled":
        return settings.model_dump(mode="json", exclude={"selection"})
    unused = {"seed", "num_shots"} if conventions == "corrected" else {"seed"}
    return settings.model_dump(mode="json", exclude=unused) | {"conventions": conventions}
