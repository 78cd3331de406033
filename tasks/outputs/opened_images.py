"""Whether the image files of a dataset can be opened: looked into before a run, which meets bad ones in passing.

Not here: what a run does with them, which labels the others and names them in its results.
"""

from collections.abc import Iterator
from typing import NamedTuple

from refseg_core.datasets.oddities import Oddity, OddityCounter
from refseg_core.tables import Images
from tasks.datasets.image_files import ImageFiles
from tasks.datasets.image_reader import read_images
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.folder import Folder

_SAMPLE = 200
_HEADERS, _FILES = (
    "images whose header cannot be read: a run leaves them out and names them",
    "images that cannot be read: a run leaves them out and names them",
)


class Opened(NamedTuple):
    """How many images were opened, and those that cannot be read; `are_whole`: all of each, and not its header."""

    number: int
    are_whole: bool
    unreadable: tuple[Oddity, ...]


def open_images(images_uri: str, images: Images, *, every: bool, max_pixels: int) -> Opened:
    """Opens the headers of some images throughout a dataset, or, with `every`, reads and decodes all images.

    `max_pixels`: of an image that is decoded.
    """
    found = OddityCounter()
    if every:
        found.add_all(_FILES, _undecodable(images_uri, images, max_pixels))
        return Opened(len(images), every, found.found())
    some = images[:: max(1, len(images) // _SAMPLE)][:_SAMPLE]
    found.add_all(_HEADERS, _without_header(images_uri, some))
    return Opened(len(some), every, found.found())


def _without_header(images_uri: str, images: Images) -> list[str]:
    names = images.file_name.tolist()
    known = ImageFiles(Folder(images_uri)).read(names)
    return [name for name in names if name not in known]


def _undecodable(images_uri: str, images: Images, max_pixels: int) -> Iterator[str]:
    report(ProgressStep.OPEN_IMAGES, total=len(images))
    for image in read_images(Folder(images_uri), images, max_pixels=max_pixels):
        report(ProgressStep.OPEN_IMAGES, advanced=1)
        if image.error is not None:
            yield f"{images.file_name[image.row]}: {image.error}"
