"""The ways to compute labels, each in one entry: what it does otherwise than `exact`, and what it is for.

Settings, command line, messages and documentation read them from here.
"""

import logging
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelingPath:
    """A path. `is_plain`: step by step as published; `is_half`: encoders in half precision on GPUs; `has_previews`:
    small previews choose which masks are decoded in full; `is_sparse`: and which points get a preview.

    `is_guided`: only points where the image resembles a prototype are prompted.

    `former_name` is what the path was once called, and still is in the keys of stored labels.
    """

    name: str
    help: str
    is_plain: bool = False
    is_half: bool = False
    has_previews: bool = False
    is_sparse: bool = False
    is_guided: bool = False
    former_name: str | None = None


LABELING_PATHS = {
    path.name: path
    for path in (
        LabelingPath("plain", "as published, to compare with", is_plain=True, former_name="reference"),
        LabelingPath("exact", "the answers of 'plain', several times quicker"),
        LabelingPath(
            "fast",
            "small previews of the masks, of which only those that are no duplicates are decoded in full, and on GPUs "
            "encoders in half precision",
            is_half=True,
            has_previews=True,
        ),
        LabelingPath("turbo", "as 'fast', from fewer points", is_half=True, has_previews=True, is_sparse=True),
        LabelingPath(
            "guided",
            "as 'exact', from points where the image resembles a reference; an image without any is not segmented",
            is_guided=True,
        ),
    )
}

DESCRIPTION = "; ".join(f"'{path.name}': {path.help}" for path in LABELING_PATHS.values())


def current_name(name: object) -> str:
    """Returns the name of a path, by which it may also be called by its former one. Raises ValueError for others."""
    for path in LABELING_PATHS.values():
        if name == path.name:
            return path.name
        if path.former_name is not None and name == path.former_name:
            log.warning("The labeling path %r is now called %r; its labels are the same.", name, path.name)
            return path.name
    raise ValueError(f"{name!r} is not a labeling path; expected one of {', '.join(LABELING_PATHS)}")
