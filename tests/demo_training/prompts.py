"""The prompts of a training step: drawn on and around objects, and on the background."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.demo_scenes.scenes import Scene
from tests.demo_training.settings import SegmenterTraining
from tests.demo_training.views import FRAME, BoolMask

NOTHING = -1  # the index of the object where there is none
_POINTING_RADIUS = 20.0  # px in the segmenter frame


@dataclass(frozen=True, eq=False)
class Prompts:
    """N prompts: which image, where (K points each), and the object there, index -1 for none."""

    image_N: Tensor
    coordinates_NK2: Tensor
    target_N: Tensor


def draw_prompts(
    scenes: Sequence[Scene], settings: SegmenterTraining, generator: np.random.Generator
) -> tuple[Prompts, Prompts]:
    """Points on objects and on the background, and boxes around objects, in the segmenter frame."""
    points, boxes = [], []
    first = 0
    for image, scene in enumerate(scenes):
        scale = np.array(scene.image.shape[1::-1]) / FRAME
        instances = scene.instances
        chosen = generator.integers(len(instances), size=settings.object_points).tolist()
        for index in chosen:
            points.append((image, _point_in(instances[index].mask, generator) / scale, first + index))
        free = ~np.any([instance.mask for instance in instances], axis=0)
        for _ in range(settings.background_points):
            points.append((image, _point_in(free, generator) / scale, NOTHING))
        for index in generator.integers(len(instances), size=settings.boxes).tolist():
            corners = np.reshape(instances[index].box_xyxy, (2, 2)) / scale
            boxes.append((image, corners + generator.normal(0, settings.box_jitter, (2, 2)), first + index))
        first += len(instances)
    return _prompts(points), _prompts(boxes)


def _prompts(rows: Sequence[tuple[int, npt.NDArray[np.float64], int]]) -> Prompts:
    images, coordinates, targets = zip(*rows, strict=True)
    return Prompts(
        torch.tensor(images),
        torch.from_numpy(np.stack(coordinates).astype(np.float32)).view(len(rows), -1, 2),
        torch.tensor(targets),
    )


def _point_in(mask_HW: BoolMask, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random pixel of the mask as (x, y); any pixel where the mask is empty."""
    pixels = np.flatnonzero(mask_HW)
    index = int(generator.choice(pixels)) if len(pixels) else int(generator.integers(mask_HW.size))
    return np.array([index % mask_HW.shape[1], index // mask_HW.shape[1]], np.float64)


def ellipses(corners_NK2: Tensor) -> Tensor:
    """What lies around a point or within the corners of a box, float32 [N, L, L] in {0, 1}."""
    center_N2 = corners_NK2.mean(dim=1)
    radius_N2 = ((corners_NK2.amax(dim=1) - corners_NK2.amin(dim=1)) / 2).clamp(min=_POINTING_RADIUS)
    cells_L = torch.arange(FRAME // 2) * 2 + 1.0
    across_NL, down_NL = ((cells_L - center_N2[..., None]) / radius_N2[..., None]).square().unbind(dim=1)
    return (down_NL[:, :, None] + across_NL[:, None, :] < 1).to(torch.float32)
