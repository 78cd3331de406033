"""Shows what the labels are made from: the references with their masks."""

from refseg_core.errors import counted, listed
from refseg_core.tables import References
from tasks.outputs.pictures import Palette, draw_references
from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.markdown import code, escaped
from tasks.outputs.prefect_ui.publishing import PANEL_SIDE, publish_sheet, publishing_task
from tasks.outputs.reference_sheets import describe_negatives
from tasks.store.lineage import references_of
from tasks.store.store import Artifact, Store

_MOST_REFERENCES = 24
_NAMES_SHOWN = 20


@publishing_task("publish references")
def publish_bank(store_uri: str, prototypes: Artifact) -> None:
    """A sheet of the references that the prototypes were made from, of many the first shots of each category."""
    store = Store(store_uri)
    palette = Palette(store, prototypes)
    names = [escaped(name) for name in palette.name_of.values()]
    references = store.load(references_of(store, prototypes), References)
    num_references = int(palette.knows(references.category_id).sum())
    negatives = describe_negatives(store, prototypes)
    drawn = draw_references(store, prototypes, palette, most=_MOST_REFERENCES, side=PANEL_SIDE)
    panels = [one.panel for one in drawn]
    publish_sheet(
        f"{artifact_name(store_uri)}-references",
        panels,
        f"{len(panels):,} of {counted(num_references, 'reference')}",
        f"{counted(num_references, 'reference')} of {counted(len(names), 'category')}: {listed(names, _NAMES_SHOWN)}. "
        f"They made {code(prototypes.name)}." + (f" Not to be labeled: {escaped(negatives)}." if negatives else ""),
    )
