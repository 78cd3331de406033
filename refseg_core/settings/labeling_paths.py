"""The ways to compute labels, each in one entry: what it does otherwise than `exact`, and what it is for.

Settings, command line, messages and documentation read them from here.
"""

import logging
from dataclasses import dataclass

from refseg_core.errors import brief

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelingPath:
    """A path. `is_plain`: step by step as published; `is_half`: encoders in half precision on GPUs; `has_previews`:
    small previews choose which masks are decoded in full; `is_guided`: only points where the image resembles a
    prototype are prompted.

    `former_name` is what the path was once called, and still is in the keys of stored labels. `replaces` is a path that
    is gone, in whose place this one computes.
    """

    name: str
    help: str
    is_plain: bool = False
    is_half: bool = False
    has_previews: bool = False
    is_guided: bool = False
    former_name: str | None = None
    replaces: str | None = None

    @property
    def is_for_all_methods(self) -> bool:
        """Whether methods other than the published one can be computed on it."""
        return not self.is_plain and not self.has_previews


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
        LabelingPath(
            "guided",
            "as 'exact', from points where the image resembles a reference; an image without any is not segmented",
            is_guided=True,
            replaces="turbo",
        ),
    )
}

DESCRIPTION = "; ".join(f"'{path.name}': {path.help}" for path in LABELING_PATHS.values())


def current_name(name: object) -> str:
    """Returns the name of a path, given that or its former one or that of a path it replaces.

    Raises ValueError for others.
    """
    for path in LABELING_PATHS.values():
        if name == path.name:
            return path.name
        if path.former_name is not None and name == path.former_name:
            log.warning("The labeling path %r is now called %r; its labels are the same.", name, path.name)
            return path.name
        if path.replaces is not None and name == path.replaces:
            log.warning("The labeling path %r is replaced by %r, whose labels are its own.", name, path.name)
            return path.name
    raise ValueError(f"{brief(name)} is not a labeling path; expected one of {', '.join(LABELING_PATHS)}")
