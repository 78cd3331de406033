"""Shows what the labels are made from: the references with their masks."""

from tasks.artifacts import Artifact, Store
from tasks.pictures import Palette, references_sheet
from tasks.publish.markdown import escaped, listed
from tasks.publish.names import artifact_name
from tasks.publish.sending import publish_picture, publishing_task

_MOST_REFERENCES, _COLUMNS = 24, 3
_NAMES_SHOWN = 20


@publishing_task("publish references")
def publish_bank(store_uri: str, prototypes: Artifact) -> None:
    """A sheet of the references that the prototypes were made from."""
    store = Store(store_uri)
    palette = Palette(store, prototypes)
    names = list(palette.name_of.values())
    publish_picture(
        f"{artifact_name(store_uri)}-references",
        references_sheet(store, prototypes, palette, most=_MOST_REFERENCES, columns=_COLUMNS),
        f"The references of {len(names):,} categories: {listed(names, _NAMES_SHOWN)}. Made {escaped(prototypes.name)}.",
    )
