"""Step 4: aggregates the bank into one prototype per category."""

from refseg_core.errors import DatasetError
from refseg_core.references import prototypes
from refseg_core.tables import MemoryBank, Prototypes, References
from tasks.runtime.retried_task import retried_task
from tasks.store.steps import POSTPROCESS_MEMORY_BANK
from tasks.store.store import Artifact, Recipe, Store


@retried_task("postprocess memory bank")
def postprocess_memory_bank(store: Store, references: Artifact, bank: Artifact) -> Artifact:
    """Makes prototypes. Raises DatasetError naming every category that is left without a usable reference."""
    recipe = Recipe(*POSTPROCESS_MEMORY_BANK, version=prototypes.VERSION, inputs={"memory_bank": bank.name})
    return store.make(recipe, lambda: [_prototypes(store.load(references, References), store.load(bank, MemoryBank))])


def _prototypes(references: References, bank: MemoryBank) -> Prototypes:
    lost = sorted(set(references.category_id.tolist()) - set(bank.category_id.tolist()))
    if lost:
        raise DatasetError(
            f"No reference of the categories {lost} has a mask that is left on the patch grid. Give them larger "
            "references, or leave the categories out."
        )
    return prototypes.postprocess_memory_bank(bank)
