"""Pixel values between a decoded image and the models: scaling, resizing to the segmenter frame, normalizing.

Frames: original (the image's own pixels), segmenter (a square of `image_size`, 1024 in the published models; the
aspect ratio is not kept: quirk Q8).
"""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

VERSION = 1  # of the models' input

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalize(images_B3HW: Tensor) -> Tensor:
    """Subtracts ImageNet's mean and divides by its deviation; RGB in [0, 1]. Method, section 3."""
    mean = images_B3HW.new_tensor(_MEAN).view(3, 1, 1)
    std = images_B3HW.new_tensor(_STD).view(3, 1, 1)
    return (images_B3HW - mean) / std


def to_unit_range(image_HW3: npt.NDArray[np.uint8]) -> Tensor:
    """Converts uint8 [H, W, 3] to float32 [3, H, W] in [0, 1].

    A true division by 255: multiplying by the reciprocal gives other values (method, section 3.1).
    """
    return torch.from_numpy(np.array(image_HW3)).permute(2, 0, 1).to(torch.float32) / 255.0


def resize_to_square(image_HW3: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resizes to `size` x `size` with Pillow's antialiased bicubic filter; uint8 in and out.

    Pillow and nothing else: other libraries' bicubic differs by a level or two (method, section 10.4).
    """
    return np.array(Image.fromarray(image_HW3).resize((size, size), Image.Resampling.BICUBIC))
