"""A few numbers through every algorithm that has a VERSION, from fixed inputs and parameters.

`numbers.json` in this folder records what they were, and at which version. The numbers are means and sums: they move
with every change of an algorithm, and hardly with how a processor rounds. To record them:

    python -m tests.support.oracles.version_cases
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from refseg_core import images
from refseg_core.analysis.operating_points import Evidence, propose
from refseg_core.analysis.pilot_sample import ImageDescription, choose_images, describe_image
from refseg_core.analysis.reference_quality import guess_threshold, leave_one_out
from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset, dataset_of_files
from refseg_core.evaluation.protocols import evaluate
from refseg_core.labeling.batching import UPSAMPLED_AT_ONCE, BatchSize
from refseg_core.labeling.composing.candidates import Candidates, looked_at_again
from refseg_core.labeling.guidance import Guidance
from refseg_core.labeling.matching import Matches, match, match_plainly
from refseg_core.labeling.merging import merge_plainly, merge_softly, non_maximum_suppression, upsample
from refseg_core.labeling.previews import preview_points
from refseg_core.labeling.proposals import PointGrid, point_grid
from refseg_core.labeling.refinement import refine
from refseg_core.labeling.second_look import SecondLook
from refseg_core.masks.boxes import mask_boxes
from refseg_core.masks.cleanup import clean_masks
from refseg_core.masks.rle import Masks, decode_masks, encode_masks
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.point_decoder import PointDecoder
from refseg_core.models.preprocessing import normalize, resize_to_square, to_unit_range
from refseg_core.models.sam2 import SAM2
from refseg_core.references.background import background_prototypes, patches_outside, seen_references
from refseg_core.references.guidance_thresh import choose_thresh, instance_similarity, similarity_around
from refseg_core.references.memory_bank import (
    Crop,
    crop_reference,
    encode_image,
    encode_references,
    encode_views,
    pool,
)
from refseg_core.references.prototypes import postprocess_memory_bank
from refseg_core.references.sampling import sample_references
from refseg_core.references.segmentation import segment_boxes
from refseg_core.settings import AreaSettings, EvaluationSettings, SamplingSettings
from refseg_core.settings.areas import AreaLimits
from refseg_core.settings.labeling_methods import LABELING_METHODS
from refseg_core.tables import MemoryBank
from tests.support.models import TINY_ENCODER, TINY_SEGMENTER
from tests.support.oracles.evaluation_cases import a_synthetic_case, dataset_of
from tests.support.samples import coco, picture, png

RECORDED = Path(__file__).with_name("numbers.json")
_SIDE = 12  # of small masks

Model = TypeVar("Model", bound=nn.Module)
_GRID = point_grid(4, TINY_SEGMENTER.image_size, torch.device("cpu"))


def numbers_of(module: str) -> list[float]:
    """Returns what the algorithm of a module, or a constant of its versions, computes now."""
    with torch.inference_mode():
        return [round(float(number), 6) for number in CASES[module]()]


def version_of(name: str) -> int:
    """Returns the version that a case stands for: `VERSION` of a module, or the constant that its name ends in."""
    module, _, constant = name.partition(":")
    version: int = getattr(import_module(f"refseg_core.{module}"), constant or "VERSION")
    return version


def recorded() -> Mapping[str, Mapping[str, Any]]:
    """Returns the version and the numbers of every case as they were recorded."""
    content: Mapping[str, Mapping[str, Any]] = json.loads(RECORDED.read_text())
    return content


# --- fixed inputs and parameters -------------------------------------------------------------------------------------


def _values(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [-1, 1), equal on every machine."""
    return torch.from_numpy(np.random.default_rng(seed).random(shape) * 2 - 1).float()


def _with_values(model: Model) -> Model:
    for number, parameter in enumerate(model.parameters()):
        spread = 0.02 if parameter.dim() == 1 else 0.2
        centre = float(parameter.dim() == 1 and bool((parameter == 1).all()))  # scales of norms
        parameter.data.copy_(centre + spread * _values(*parameter.shape, seed=number))
    for number, buffer in enumerate(model.buffers()):
        buffer.copy_(_values(*buffer.shape, seed=number))  # SAM2 draws frequencies of positions
    return model.eval().requires_grad_(False)


def _segmenter() -> SAM2:
    return _with_values(SAM2(TINY_SEGMENTER))


def _frame() -> Tensor:
    return to_unit_range(resize_to_square(picture(1), TINY_SEGMENTER.image_size))


def _masks(*boxes: tuple[int, int, int, int]) -> Tensor:
    masks = torch.zeros(len(boxes), _SIDE, _SIDE, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


_OVERLAPPING = ((0, 0, 6, 6), (1, 1, 7, 6), (5, 5, 12, 12), (0, 6, 6, 12), (5, 6, 12, 12), (2, 2, 4, 9))


def _dataset() -> Dataset:
    boxes = [(8, 8, 40, 40), (60, 20, 50, 60), (10, 10, 70, 50), (30, 30, 60, 60)]
    annotations = [
        {"image_id": 1 + number % 3, "category_id": 1 + number % 2, "bbox": boxes[number % 4], "iscrowd": 0}
        for number in range(12)
    ]
    return parse_coco(coco(["a.png", "b.png", "c.png"], annotations, {1: "bar", 2: "box"}), source="cases")


def _moments(*tensors: Tensor) -> list[float]:
    """Mean, deviation and two entries of each."""
    return [
        value
        for tensor in tensors
        for value in (
            float(tensor.double().mean()),
            float(tensor.double().std()),
            float(tensor.flatten()[len(tensor.flatten()) // 3]),
            float(tensor.flatten()[-1]),
        )
    ]


def _positions(values: Iterable[float]) -> list[float]:
    """A number that changes with every value and its place, and how many there are."""
    listed = list(values)
    return [len(listed), sum((place + 1) * float(value) for place, value in enumerate(listed))]


# --- cases -----------------------------------------------------------------------------------------------------------


def _images() -> list[float]:
    pixels = images.decode_image(png(picture(3)), max_pixels=100_000)
    gray = images.decode_image(png(picture(3)[..., 0]), max_pixels=100_000)
    return [*_moments(torch.from_numpy(pixels).float(), torch.from_numpy(gray).float())]


def _preprocessing() -> list[float]:
    square = resize_to_square(picture(2), 40)
    return _moments(torch.from_numpy(square).float(), normalize(to_unit_range(square)[None]))


def _sam2() -> list[float]:
    segmenter = _segmenter()
    embedding = segmenter.embed(_frame()[None])
    points = segmenter.decode_points(embedding, segmenter.prompts(_GRID), pred_iou_thresh=None)
    boxes = segmenter.decode_boxes(embedding, torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
    return _moments(*points, *(part.flatten() for part in boxes[:1]))


def _dinov2() -> list[float]:
    return _moments(_with_values(DINOv2(TINY_ENCODER))(_frame()[None]))


def _point_decoder() -> list[float]:
    segmenter = _segmenter()
    decoder = PointDecoder(segmenter)
    image, prompts = decoder.prepare(segmenter.embed(_frame()[None])), decoder.prompts(_GRID)
    full = decoder.decode_points(image, prompts, pred_iou_thresh=None)
    return _moments(*full, *decoder.preview_points(image, prompts))


def _proposals() -> list[float]:
    segmenter = _segmenter()
    grid = PointGrid(segmenter, point_grid(3, 64, torch.device("cpu")), batch=BatchSize(4), pred_iou_thresh=0.0)
    proposed = grid.propose(segmenter.embed(_frame()[None]), _values(25, 8), torch.arange(9))
    return [*_positions(_GRID.flatten().tolist()), *_moments(proposed.proposals.logits_NGG)]


def _guidance() -> list[float]:
    prototypes = nn.functional.normalize(_values(3, 8, seed=2), dim=1)
    guide = Guidance(point_grid(8, 64, torch.device("cpu")), 64, prototypes, thresh=0.4)(_values(25, 8))
    return [*_positions(guide.row_n.tolist()), *guide.similarity_K.tolist()]


def _matching() -> list[float]:
    masks, features = _masks(*_OVERLAPPING), _values(25, 8)
    prototypes = nn.functional.normalize(_values(3, 8, seed=2), dim=1)
    matched = [match(masks, features, prototypes), match_plainly(masks, features, prototypes)]
    return [
        number
        for found in matched
        for number in (*_positions(found.class_index_N.tolist()), *_moments(found.similarity_N, found.descriptor_NC))
    ]


def _merging() -> list[float]:
    masks = _masks(*_OVERLAPPING)
    classes, iou = torch.tensor([0, 0, 1, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.85, 0.7, 0.6, 0.95])
    kept = non_maximum_suppression(mask_boxes(masks), iou, classes, box_nms_thresh=0.5)
    logits, similarity = masks.float() * 4 - 2 + 0.3 * _values(*masks.shape), 0.5 + 0.4 * _values(6)
    descriptors = nn.functional.normalize(_values(6, 8), dim=1)
    size, of_masks = (20, 30), (similarity, classes, descriptors)
    merged = [
        merge_softly(upsample(logits, size, UPSAMPLED_AT_ONCE), *of_masks, max_detections=5),
        merge_plainly(logits, *of_masks, size=size, max_detections=5),
    ]
    return [
        *_positions(kept.tolist()),
        *(number for one in merged for number in (*_positions(one.row_n.tolist()), *_moments(one.score_n))),
        *_positions(merged[0].masks.areas().tolist()),
    ]


class _HalvingPool:
    """Stands for proposals whose crops resemble everything half as much."""

    def look_again(self, row_n: Tensor, similarity_nK: Tensor) -> Tensor:
        return similarity_nK / (2 + row_n[:, None])


def _negatives() -> list[float]:
    parts = replace(LABELING_METHODS["accurate"].parts, max_second_looks=3)
    candidates = Candidates(
        torch.arange(6), Matches.of(_values(6, 5), _values(6, 8, seed=2)), _values(6, 1, seed=3)[:, 0]
    )
    found = looked_at_again(candidates, cast(Any, _HalvingPool()), parts, 3)
    return [*_positions(found.row_n.tolist()), *_moments(found.matches.similarity_NK)]


def _second_look() -> list[float]:
    encoder = _with_values(DINOv2(TINY_ENCODER))
    prototypes = nn.functional.normalize(_values(3, TINY_ENCODER.embed_dim, seed=2), dim=1)
    look = SecondLook(encoder, prototypes, batch=BatchSize(4), part_penalty=0.3)
    return _moments(look(picture(4), _masks(*_OVERLAPPING), 0.5 + 0.5 * _values(6, 3)))


def _refinement() -> list[float]:
    masks, boxes = _masks(*_OVERLAPPING), []

    def decode(boxes_n4: Tensor) -> Tensor:
        boxes.append(boxes_n4)
        return masks.roll(1, dims=1).float() - 0.5

    return [*_moments(refine(decode, masks.float() - 0.4, image_size=48)), *_positions(boxes[0].flatten().tolist())]


def _previews() -> list[float]:
    masks, predicted_iou = _values(6, 16, 16), _values(6, seed=1)
    chosen = preview_points(
        lambda rows: (masks[rows], predicted_iou[rows]),
        torch.arange(6),
        torch.tensor([0, 2, 3, 5]),
        batch=BatchSize(3),
        pred_iou_thresh=0.0,
    )
    return [*_positions(chosen.row_n.tolist()), *_moments(chosen.masks_nhh.float(), chosen.predicted_iou_n)]


def _sampling() -> list[float]:
    dataset = _dataset()
    tables = (dataset.images, dataset.annotations, dataset.categories)
    chosen = [sample_references(*tables, SamplingSettings(num_shots=2, seed=seed)) for seed in (33, 42)]
    return [number for one in chosen for number in _positions(map(int, one.annotation_id))]


def _segmentation() -> list[float]:
    boxes = np.array([[10.0, 10.0, 60.0, 50.0], [50.0, 20.0, 120.0, 90.0]])
    masks, predicted_iou = segment_boxes(_segmenter(), picture(5), boxes)
    shares = [float(mask.mean()) for mask in np.asarray(masks)]
    return [*shares, *predicted_iou.tolist()]


def _reference_mask() -> Masks:
    mask = np.zeros((96, 128), dtype=bool)
    mask[20:70, 30:90] = True
    return mask


def _reference_crop() -> Crop:
    box = np.array([30.0, 20.0, 90.0, 70.0])
    return crop_reference(picture(6), _reference_mask(), box, context_ratio=0.2, size=TINY_ENCODER.image_size)


def _memory_bank() -> list[float]:
    crop = _reference_crop()
    (encoded,) = encode_references(_with_values(DINOv2(TINY_ENCODER)), [crop])
    return [encoded.foreground_weight, *_moments(crop.image_3EE, torch.from_numpy(encoded.feature_C))]


def _guidance_thresh() -> list[float]:
    bank = MemoryBank(
        category_id=np.array([1, 1, 4]),
        shot=np.array([0, 1, 0]),
        foreground_weight=np.ones(3, dtype=np.float32),
        feature=_values(3, 8).numpy(),
    )
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:25, 5:30] = True
    features = [_values(25, 8, seed=seed) for seed in range(3)]
    similarities = [instance_similarity(one, mask, bank, row) for row, one in enumerate(features)]
    prototypes = nn.functional.normalize(_values(3, 8, seed=2), dim=1)
    low, high = ([torch.full((9,), value) for _ in range(2)] for value in (0.1, 0.28))
    chosen = [choose_thresh(given, patches).thresh[0] for patches in (low, high) for given in ([0.9], [0.22], [0.0])]
    return [*similarities, *_moments(similarity_around(features[0], [mask], prototypes)), *chosen]


def _views() -> list[float]:
    encoder, crop = _with_values(DINOv2(TINY_ENCODER)), _reference_crop()
    in_image = pool(encode_image(encoder, picture(6)), torch.from_numpy(_reference_mask()))
    (encoded,) = encode_views(encoder, encode_references(encoder, [crop]), [crop], [in_image])
    return _moments(torch.from_numpy(encoded.feature_C))


def _prototypes() -> list[float]:
    bank = MemoryBank(
        category_id=np.array([1, 1, 4]),
        shot=np.array([0, 1, 0]),
        foreground_weight=np.array([1, 2, 3], dtype=np.float32),
        feature=_values(3, 8).numpy() * np.array([[1], [5], [2]], dtype=np.float32),
    )
    made = postprocess_memory_bank(bank)
    return [*_positions(made.category_id.tolist()), *_moments(torch.from_numpy(made.prototype.copy()))]


def _evaluation() -> list[float]:
    document, detections = a_synthetic_case(1)
    truth = dataset_of(document)
    found = [
        evaluate(truth, detections, settings=EvaluationSettings(protocol=protocol)).value
        for protocol in ("coco", "voc")
    ]
    return [number for values in found for number in (len(values), float(np.mean(values[values >= 0])))]


def _tables() -> list[float]:
    dataset, listed = _dataset(), dataset_of_files(["b.jpg", "sub/a.png"], [5, 7], ["x", "y"])
    return [
        *_positions(dataset.annotations.box_xywh.flatten().tolist()),
        *_positions(dataset.annotations.area.tolist()),
        *_positions(dataset.categories.class_index.tolist()),
        *_positions(map(len, [*listed.images.image_id, *dataset.images.image_id])),
    ]


def _federated_tables() -> list[float]:
    document = json.loads(coco(["a.png", "b.png"], [], {1: "bar", 2: "box", 3: "jar"}))
    for image in document["images"]:
        image |= {"neg_category_ids": [2], "not_exhaustive_category_ids": [3]}
    labels = parse_coco(json.dumps(document).encode(), source="cases").federated_labels
    assert labels is not None
    return [number for column in labels.to_arrow().columns for number in _positions(map(len, map(str, column)))]


def _operating_points() -> list[float]:
    score = np.array([0.9, 0.8, 0.6, 0.55, 0.3, 0.2])
    right, unit = np.array([1.0, 0, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 2, 3])
    own = Evidence(score, right, np.ones(6), unit, np.ones(4), np.array([0, 1, 1, 3]))
    judged = Evidence.of_sample(score, right, np.linspace(0.1, 1, 40), num_missed=2)
    everything = Evidence.together([own, judged])
    found = (propose(one, everything, wanted_precision=wanted) for one in (own, judged) for wanted in (None, 0.9))
    return [number for proposal in found if proposal is not None for number in proposal]


def _reference_quality() -> list[float]:
    bank = MemoryBank(
        category_id=np.array([1, 1, 4, 4, 4]),
        shot=np.array([0, 1, 0, 1, 2]),
        foreground_weight=np.array([1, 20, 30, 40, 50], dtype=np.float32),
        feature=_values(5, 8).numpy(),
    )
    compared = leave_one_out(bank, np.array(list("abcdd"), dtype=object))
    guesses = [
        guess_threshold(np.abs(own), np.abs(compared.own), has_quality=has_quality)
        for own in (compared.own, np.full(1, np.nan))
        for has_quality in (True, False)
    ]
    return [*compared.own.tolist(), *compared.nearest.tolist(), *(guess for guess in guesses if guess is not None)]


def _background() -> list[float]:
    annotated = np.zeros((10, 10), dtype=bool)
    annotated[:4, :4] = True
    patches = np.concatenate([patches_outside(_values(25, 8, seed=seed) - 0.5, annotated) for seed in range(4)])
    bank = MemoryBank(
        category_id=np.array([1, 1, 4]),
        shot=np.array([0, 1, 0]),
        foreground_weight=np.ones(3, dtype=np.float32),
        feature=(_values(3, 8) - 0.5).numpy(),
    )
    seen = seen_references([*(_values(3, 8, seed=5) - 0.5)], bank, range(3))
    found = background_prototypes(patches, seen)
    return [len(patches), len(found), *found.num_references, *seen.own_R, *found.prototype.sum(axis=1)]


def _pilot_sample() -> list[float]:
    prototypes = nn.functional.normalize(_values(3, 8, seed=2), dim=1)
    described = [describe_image(_values(25, 8, seed=seed), prototypes) for seed in range(12)]
    features, similarities = (np.stack([getattr(one, name) for one in described]) for name in ImageDescription._fields)
    chosen = choose_images(features, similarities, 6, seed=33)
    return [*map(float, np.concatenate(chosen)), *_moments(torch.from_numpy(similarities), torch.from_numpy(features))]


def _cleanup() -> list[float]:
    masks = (_values(6, 18, 23) > 0.4).numpy()
    cleaned = decode_masks(clean_masks(encode_masks(masks), min_island=4, min_hole=3))
    return [*cleaned.sum(axis=(1, 2)).tolist(), *_positions(np.flatnonzero(cleaned[0]).tolist())]


def _areas() -> list[float]:
    given = AreaSettings(min="auto,bar=5", max="20%,box=auto", margin=3)
    decided = given.decided({"bar": "1", "box": "2"}, {"bar": [0.1], "box": [0.07, 0.09]})
    limits = AreaLimits.of(decided.min, decided.max, ["1", "2"])
    areas = np.arange(60, dtype=np.float64)
    fits = [limits.fit(areas, np.full(60, index), image_pixels=150) for index in (0, 1)]
    return [number for one in fits for number in _positions(np.flatnonzero(one).tolist())]


CASES: dict[str, Callable[[], list[float]]] = {
    "analysis.operating_points": _operating_points,
    "analysis.pilot_sample": _pilot_sample,
    "analysis.reference_quality": _reference_quality,
    "datasets.coco.columns:FEDERATED_VERSION": _federated_tables,
    "datasets.dataset": _tables,
    "evaluation.protocols": _evaluation,
    "images": _images,
    "labeling.composing.candidates:NEGATIVES_VERSION": _negatives,
    "labeling.guidance": _guidance,
    "labeling.matching": _matching,
    "labeling.merging": _merging,
    "labeling.previews": _previews,
    "labeling.proposals": _proposals,
    "labeling.refinement": _refinement,
    "labeling.second_look": _second_look,
    "masks.cleanup": _cleanup,
    "models.dinov2": _dinov2,
    "models.point_decoder.decoder": _point_decoder,
    "models.preprocessing": _preprocessing,
    "models.sam2": _sam2,
    "references.background": _background,
    "references.guidance_thresh": _guidance_thresh,
    "references.memory_bank": _memory_bank,
    "references.memory_bank:VIEWS_VERSION": _views,
    "references.prototypes": _prototypes,
    "references.sampling": _sampling,
    "references.segmentation": _segmentation,
    "settings.areas": _areas,
}


if __name__ == "__main__":
    content = {name: {"version": version_of(name), "numbers": numbers_of(name)} for name in CASES}
    lines = [f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in content.items()]
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
