"""What readers of annotations may ask about the folder of the images."""

from collections.abc import Iterable, Mapping
from typing import Protocol


class ImageFolder(Protocol):
    """The folder of a dataset's images."""

    def find(self, name: str) -> str:
        """Returns the name of the file that a name means, which may be written otherwise; or the name itself."""

    def resembling(self, name: str) -> list[str]:
        """Returns the files that a name may mean that no file has; nothing where it is one's, or none is like it."""

    def upright_sizes(self, names: Iterable[str]) -> Mapping[str, tuple[int, int]]:
        """Returns (height, width) as people see them of those images whose EXIF orientation swaps their sides."""
