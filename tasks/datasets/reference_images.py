"""The images that references lie in: read, and identified by their content."""

import hashlib

import numpy as np
import numpy.typing as npt

from refseg_core.errors import DatasetError, ImageError
from refseg_core.tables import Images, References
from tasks.datasets.image_reader import read_image
from tasks.storage.folder import Folder

_MAX_PIXELS = 400_000_000


class ReferenceImages:
    """The images of a reference set."""

    def __init__(self, folder: Folder, images: Images, references: References) -> None:
        self._folder = folder
        self._file_names = sorted(set(references.file_name))
        self._images = images
        self._row_of = {str(name): row for row, name in enumerate(images.file_name)}

    def content(self) -> str:
        """Returns the hash of all the images' bytes: what is made from them follows it."""
        digest = hashlib.sha256()
        for name in self._file_names:
            digest.update(hashlib.sha256(self._folder.read(name)).digest())
        return digest.hexdigest()

    def read(self, file_name: str) -> npt.NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises DatasetError if it cannot be read, which stops the run."""
        try:
            return read_image(self._folder, self._images, self._row_of[file_name], max_pixels=_MAX_PIXELS)
        except ImageError as error:
            raise DatasetError(
                f"The reference image {file_name} cannot be read: {error} Repair it, or choose references from others."
            ) from error
