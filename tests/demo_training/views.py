"""Scenes as training sees them: drawn by the batch, in the segmenter frame, with masks as shares of coarse cells."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from tests.demo_scenes.dataset import draw_targets, draw_training_categories
from tests.demo_scenes.scenes import Scene
from tests.demo_training.settings import EncoderTraining, SegmenterTraining

BoolMask = npt.NDArray[np.bool_]
FRAME = 256  # px, the segmenter frame both models see scenes in
HALF = 0.5  # of a cell: whoever covers more owns it


def draw_scenes(settings: SegmenterTraining | EncoderTraining, generator: np.random.Generator) -> tuple[Scene, ...]:
    """The scenes of one step, of categories drawn for it."""
    categories = draw_training_categories(settings.num_categories, generator)
    return draw_targets(categories, settings.num_scenes, generator, settings.scenes)


def images_of(scenes: Sequence[Scene]) -> Tensor:
    """Images of one size, float32 [B, 3, S, S] in [0, 1]."""
    return torch.stack([to_unit_range(resize_to_square(scene.image, FRAME)) for scene in scenes])


def shrink(mask_HW: BoolMask, side: int = FRAME // 2) -> npt.NDArray[np.float32]:
    """The share of every target cell that the mask covers."""
    cells = Image.fromarray(mask_HW.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(cells, np.float32)
