"""The colors of categories: distinguishable for most eyes, the same in every picture of every run.

Colors are picked greedily: each is the candidate farthest from all before it, so a longer list begins with the
shorter one. Distance is measured in OKLab as seen with normal sight, with deuteranopia and with protanopia, and the
nearest of the three counts.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Colors = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]

# Paul Tol's "vibrant" scheme with a yellow and a violet: pleasant over photographs, made for color-blind readers.
_FIRST = (
    (51, 187, 238),
    (238, 119, 51),
    (238, 51, 119),
    (0, 153, 136),
    (240, 228, 66),
    (0, 119, 187),
    (204, 51, 17),
    (150, 90, 230),
)
# Candidates are neither nearly black, white nor gray: such a tint looks like light or shadow.
_LIGHTNESS, _LEAST_CHROMA, _CANDIDATE_LEVELS = (0.48, 0.93), 0.09, 14
# Lists are computed in these lengths, so that few ever are: 128 take 50 ms, 1280 half a second.
_LIST_STEP = 128

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
_DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
_PROTANOPIA = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)
# Ottosson (2020): linear RGB -> cone response -> OKLab.
_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_LUMINANCE = (0.2126, 0.7152, 0.0722)
# IEC 61966-2-1: sRGB is linear up to here.
_LINEAR_END = 0.04045
# Where black and white letters have the same contrast on a label (WCAG 2): sqrt(1.05 * 0.05) - 0.05.
_LIGHT = 0.179


def category_colors(num: int) -> Colors:
    """Colors [num, 3] by class_index, uint8 RGB; those of the first classes do not depend on `num`.

    Some 3,300 colors differ; after them they repeat.
    """
    colors = _picked(_LIST_STEP * -(-num // _LIST_STEP))
    return colors[np.arange(num) % max(len(colors), 1)]


def letters_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns black or white: the one that is easier to read on the color."""
    luminance = float(_to_linear(np.array(color, dtype=np.float64)) @ _LUMINANCE)
    return (0, 0, 0) if luminance > _LIGHT else (255, 255, 255)


@lru_cache(maxsize=8)
def _picked(num: int) -> Colors:
    candidates = np.concatenate([np.array(_FIRST, dtype=np.uint8), _candidates()])
    views = _views(candidates)
    nearest = np.full(len(candidates), np.inf)
    picked: list[int] = []
    for step in range(min(num, len(candidates))):
        pick = step if step < len(_FIRST) else int(nearest.argmax())
        distances = np.linalg.norm(views - views[:, pick : pick + 1], axis=2).min(axis=0)
        nearest = np.minimum(nearest, distances)
        picked.append(pick)
    return candidates[picked]


def _candidates() -> Colors:
    levels = np.linspace(0, 255, _CANDIDATE_LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _to_lab(_to_linear(grid))
    usable = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    return grid[usable & (np.hypot(lab[:, 1], lab[:, 2]) >= _LEAST_CHROMA)]


def _views(colors: Colors) -> _Floats:
    """OKLab coordinates [3, N, 3] as seen with normal sight, deuteranopia and protanopia."""
    linear = _to_linear(colors)
    seen = [linear, linear @ np.transpose(_DEUTERANOPIA), linear @ np.transpose(_PROTANOPIA)]
    return np.stack([_to_lab(view.clip(0, 1)) for view in seen])


def _to_linear(colors: npt.NDArray[np.uint8] | _Floats) -> _Floats:
    scaled = colors / 255.0
    return np.where(scaled <= _LINEAR_END, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)


def _to_lab(linear: _Floats) -> _Floats:
    lab: _Floats = np.cbrt(linear @ np.transpose(_TO_CONES)) @ np.transpose(_TO_LAB)
    return lab
