"""The demo's files, which come with the package: scenes, their annotations, and the weights of toy models."""

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

from refseg_core.images import Pixels, decode_image

_MOST_PIXELS = 1_000_000  # of an image


def demo_weights(file_name: str) -> Traversable:
    """Returns the file of a toy model's weights."""
    return _folder("weights").joinpath(file_name)


def demo_scenes() -> Iterator[tuple[str, bytes]]:
    """Yields every file of the demo's dataset: its path, relative to the dataset, and its content."""
    for entry in _sorted(_folder("scenes")):
        if entry.is_file():
            yield entry.name, entry.read_bytes()
        else:
            yield from ((f"{entry.name}/{image.name}", image.read_bytes()) for image in _sorted(entry))


def demo_images(number: int) -> list[Pixels]:
    """Returns a number of the images to label, from the first again where there are fewer."""
    files = _sorted(_folder("scenes").joinpath("targets"))
    images = [decode_image(file.read_bytes(), max_pixels=_MOST_PIXELS) for file in files[:number]]
    return [images[index % len(images)] for index in range(number)]


def _folder(name: str) -> Traversable:
    return resources.files("refseg_core.demo").joinpath(name)


def _sorted(folder: Traversable) -> list[Traversable]:
    return sorted(folder.iterdir(), key=lambda entry: entry.name)
