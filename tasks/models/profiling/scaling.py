"""How the cost of an image grows: with points, categories, the image's size, references and the number of images."""

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
from tasks.datasets.demo_files import demo_images
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
    """Varies one thing at a time; all else is as the inputs have it."""
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
    return _seconds_per_image(replace(inputs, labeling=settings), [_image(480)])


def _of_categories(inputs: Inputs, number: int) -> float:
    return _seconds_per_image(_guided(inputs, number, USUAL), [_image(480)])


def _of_quarters(inputs: Inputs, number: int) -> float:
    images = [_image(480)] * number + [np.full((480, 480, 3), 128, dtype=np.uint8)] * (len(_QUARTERS) - number)
    return _seconds_per_image(_guided(inputs, 1, _ITS_OWN), images)


def _guided(inputs: Inputs, num_categories: int, thresh: float) -> Inputs:
    """Looks for patches of the drawn scene: each of as many categories is one of them, drawn with replacement."""
    labeler = BatchLabeler(inputs.segmenter, inputs.encoder, inputs.prototypes, inputs.labeling, inputs.batches)
    (encoded,) = labeler.encode([labeler.to_frame(_image(480))])
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
    return _seconds_per_image(inputs, [_image(side)])


def _of_images(inputs: Inputs, number: int) -> float:
    return _seconds_per_image(inputs, [_image(480)] * number)


def _of_references(inputs: Inputs, number: int) -> float:
    """Seconds for each reference, encoded together."""
    (image,) = demo_images(1)
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


def _image(side: int) -> Pixels:
    """A drawn scene, repeated or cut to a square of that side."""
    (scene,) = demo_images(1)
    repeats = -(-side // min(scene.shape[:2]))
    return np.tile(scene, (repeats, repeats, 1))[:side, :side]
