"""The instances of one image for users of the library: named, as arrays, drawn, and converted for other tools."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from refseg_core.errors import ConfigurationError
from refseg_core.masks.rle import Masks, decode_masks
from refseg_core.tables import Detections
from refseg_core.visualization import draw_instances

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class ImageDetections:
    """An image's instances, by falling score. `table` has all columns, masks as run lengths.

    `categories`: names by id. `size`: (height, width) of the image, pixels.
    """

    table: Detections
    categories: Mapping[int, str]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def category(self) -> list[str]:
        """The instances' categories by name."""
        return [self.categories[category_id] for category_id in self.table.category_id.tolist()]

    @property
    def score(self) -> npt.NDArray[np.float32]:
        """Similarity to the category's references, lowered where masks overlap, float32 [N] in (0, 1]."""
        return self.table.score

    @property
    def box_xyxy(self) -> npt.NDArray[np.float64]:
        """Boxes around the masks, [N, 4], pixels."""
        return self.table.box_xyxy

    @property
    def mask(self) -> Masks:
        """Masks, bool [N, H, W]."""
        return decode_masks(self.table.mask_rle.tolist()) if len(self) else np.zeros((0, *self.size), dtype=bool)

    def to_supervision(self) -> "supervision.Detections":
        """Returns the instances as the package supervision takes them, category names under 'class_name'.

        Raises ConfigurationError where supervision is not installed.
        """
        try:
            from supervision import Detections as SupervisionDetections
        except ImportError as error:
            raise ConfigurationError(
                "to_supervision() needs the package supervision, which is not installed: pip install supervision."
            ) from error
        return SupervisionDetections(
            xyxy=np.array(self.box_xyxy, dtype=np.float32),
            mask=self.mask,
            confidence=np.array(self.score),
            class_id=np.array(self.table.category_id),
            data={"class_name": np.array(self.category, dtype=str)},
        )

    def draw(self, image: "npt.NDArray[np.uint8] | Image.Image") -> Image.Image:
        """Draws the instances over their image, with names and scores; small and large images are resized."""
        pixels: npt.NDArray[Any] = np.array(image.convert("RGB")) if isinstance(image, Image.Image) else image
        color_of = {category_id: index for index, category_id in enumerate(self.categories)}
        colors = [color_of[category_id] for category_id in self.table.category_id.tolist()]
        masks = self.table.mask_rle.tolist()
        return Image.fromarray(draw_instances(pixels, masks, None, self.category, colors, scores=self.score))
