"""How the cost of an image grows: with points, categories, the image's size, references and the number of images.

It is the published method's cost: what `accurate` adds depends on what it finds, not on what is varied here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from refseg_core.images import Pixels
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.image_labels import ImageLabels
from refseg_core.references.guidance_thresh import USUAL
from refseg_core.references.memory_bank import crop_reference, encode_references
from refseg_core.settings import ReferenceSettings
from refseg_core.tables import Prototypes
from tasks.datasets.image_reader import read_image
from tasks.models.profiling.inputs import Inputs
from tasks.models.profiling.stopwatch import finish
from tasks.runtime.progress import ProgressStep, report

_POINTS_PER_SIDE = (8, 16, 32)
_CATEGORIES = (1, 3, 10, 60, 1203)
_SIDES = (480, 1080, 2160)
_REFERENCES = (1, 4, 16)
_IMAGES = (1, 2, 4)
_QUARTERS = (1, 2, 3, 4)  # of the images, which hold what is looked for
_ITS_OWN = 0.9  # cosine that only patches reach which prototypes were made of


@dataclass(frozen=True)
class Growth:
    """A series: what was varied, its values, and the seconds an image (or a reference) took with each."""

    varied: str
    values: tuple[int, ...]
    seconds: tuple[float, ...]


def measure_growth(inputs: Inputs) -> list[Growth]:
    """Varies one thing at a time on the first image; all else is as the inputs have it, on the published method.

    Raises ImageError and StoreError where the first images cannot be read.
    """
    inputs = replace(inputs, labeling=inputs.labeling.published_on(inputs.labeling.path))
    series: dict[str, tuple[Sequence[int], Callable[[int], float]]] = {
        "points": (_POINTS_PER_SIDE, lambda side: _of_points(inputs, side)),
        "categories, guided": (_CATEGORIES, lambda number: _of_categories(inputs, number)),
        "quarters of images that hold any, guided": (_QUARTERS, lambda number: _of_quarters(inputs, number)),
        "image side (px)": (_SIDES, lambda side: _of_size(inputs, side)),
        "references": (_REFERENCES, lambda number: _of_references(inputs, number)),
        "images": (_IMAGES, lambda number: _of_images(inputs, number)),
    }
    report(ProgressStep.BENCH_SCALE, total=sum(len(values) for values, _ in series.values()))
    return [_measured(name, values, seconds_of) for name, (values, seconds_of) in series.items()]


def _measured(name: str, values: Sequence[int], seconds_of: Callable[[int], float]) -> Growth:
    report(ProgressStep.BENCH_SCALE, doing=f"{name}: warming up")
    seconds_of(values[0])
    seconds = []
    for value in values:
        report(ProgressStep.BENCH_SCALE, doing=f"{name}: {value}")
        seconds.append(seconds_of(value))
        report(ProgressStep.BENCH_SCALE, advanced=1)
    shown = [value**2 for value in values] if name == "points" else values
    return Growth(name, tuple(shown), tuple(seconds))


def _of_points(inputs: Inputs, side: int) -> float:
    settings = inputs.labeling.model_copy(update={"points_per_side": side})
    return _seconds_per_image(replace(inputs, labeling=settings), [_image(inputs)])


def _of_categories(inputs: Inputs, number: int) -> float:
    return _seconds_per_image(_guided(inputs, number, USUAL, row=len(inputs.images) - 1), [_image(inputs)])


def _of_quarters(inputs: Inputs, number: int) -> float:
    image = _image(inputs)
    images = [image] * number + [np.full_like(image, 128)] * (len(_QUARTERS) - number)
    return _seconds_per_image(_guided(inputs, 1, _ITS_OWN), images)


def _guided(inputs: Inputs, num_categories: int, thresh: float, row: int = 0) -> Inputs:
    """Looks for patches of an image: each of as many categories is one of them, drawn with replacement."""
    labeler = BatchLabeler(inputs.segmenter, inputs.encoder, inputs.prototypes, inputs.labeling, inputs.batches)
    (encoded,) = labeler.encode([labeler.to_frame(_image(inputs, row))])
    patches = torch.nn.functional.normalize(encoded.features_PC, dim=1).cpu().numpy()
    rows = np.random.default_rng(num_categories).integers(0, len(patches), num_categories)
    prototypes = Prototypes(
        category_id=np.arange(1, num_categories + 1),
        num_references=np.ones(num_categories, dtype=np.int64),
        prototype=patches[rows],
    )
    labeling = inputs.labeling.model_copy(update={"path": "guided", "guidance_thresh": thresh})
    return replace(inputs, prototypes=prototypes, labeling=labeling)


def _of_size(inputs: Inputs, side: int) -> float:
    return _seconds_per_image(inputs, [_tiled(_image(inputs), side)])


def _of_images(inputs: Inputs, number: int) -> float:
    return _seconds_per_image(inputs, [_image(inputs)] * number)


def _of_references(inputs: Inputs, number: int) -> float:
    """Seconds for each reference, encoded together."""
    image = _image(inputs)
    height, width = image.shape[:2]
    crop = crop_reference(
        image,
        np.ones((height, width), dtype=np.bool_),
        np.array([width / 4, height / 4, 3 * width / 4, 3 * height / 4]),
        context_ratio=ReferenceSettings().context_ratio,
        size=inputs.encoder.architecture.image_size,
    )
    crops = [crop] * number
    return _timed(inputs.device, lambda: encode_references(inputs.encoder, crops)) / number


def _seconds_per_image(inputs: Inputs, images: Sequence[Pixels]) -> float:
    labeler = BatchLabeler(inputs.segmenter, inputs.encoder, inputs.prototypes, inputs.labeling, inputs.batches)
    return _timed(inputs.device, lambda: [_label(labeler, image) for image in images]) / len(images)


def _label(labeler: BatchLabeler, image_HW3: Pixels) -> ImageLabels:
    (found,) = labeler.find([labeler.to_frame(image_HW3)])
    return found.labels("image")


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    finish(device)
    started = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - started


def _image(inputs: Inputs, row: int = 0) -> Pixels:
    return read_image(inputs.folder, inputs.images, row, max_pixels=inputs.labeling.max_image_pixels)


def _tiled(image_HW3: Pixels, side: int) -> Pixels:
    """The image, repeated or cut to a square of that side."""
    repeats = -(-side // min(image_HW3.shape[:2]))
    return np.tile(image_HW3, (repeats, repeats, 1))[:side, :side]
