"""Trains the demo's toy models: `python -m tests.demo_training --out refseg_core/demo/weights`.

Saves both as float16 next to `training.json`, the record of settings, minutes and losses, and logs their AP; the
README.md there is written by hand.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from refseg_core.datasets.coco.parser import parse_coco
from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.protocols import evaluate
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.models.dinov2 import DINOv2
from refseg_core.models.dinov2 import build as build_encoder
from refseg_core.models.registry import REGISTRY
from refseg_core.models.sam2 import SAM2
from refseg_core.models.sam2 import build as build_segmenter
from refseg_core.references.memory_bank import crop_reference, encode_references
from refseg_core.references.prototypes import postprocess_memory_bank
from refseg_core.references.sampling import sample_references
from refseg_core.references.segmentation import segment_boxes
from refseg_core.settings import ReferenceSettings, SamplingSettings
from refseg_core.tables import Detections, MemoryBank, Prototypes
from tasks.models.weights import load_weights
from tests.demo_scenes.appearance import Category
from tests.demo_scenes.dataset import (
    DEMO_CATEGORIES,
    VALIDATION_CATEGORIES,
    draw_demo_references,
    draw_demo_targets,
    draw_references,
    draw_targets,
    to_coco,
)
from tests.demo_scenes.scenes import Scene, SceneSettings
from tests.demo_training import (
    EncoderTraining,
    OptimizerSettings,
    Report,
    SegmenterTraining,
    train_encoder,
    train_segmenter,
)

_log = logging.getLogger(__name__)
_SEGMENTER, _ENCODER = "sam2_demo", "dinov2_demo"
_RECORD = "training.json"
_REPORT_EVERY = 50  # steps
_UNUSED = ("sam_mask_decoder.pred_obj_score_head.", "sam_prompt_encoder.mask_downscaling.", "mask_token")
_VALIDATION_SEEDS = 77, 78

_CROWDED = SceneSettings(fewest_objects=3, occluding=1.0, clutter_contrast=1.0)
SEGMENTER_ROUNDS = (
    SegmenterTraining(OptimizerSettings(num_steps=3600), scenes=_CROWDED),
    SegmenterTraining(
        OptimizerSettings(num_steps=1600, learning_rate=5e-4),
        num_scenes=6,
        object_points=6,
        background_points=3,
        boxes=2,
        pointing_steps=0,
        grouping_weight=0.4,
        outside_weight=0.5,
    ),
)
ENCODER_TRAINING = EncoderTraining(OptimizerSettings(num_steps=700), scenes=_CROWDED)


class Measurement(NamedTuple):
    """What the two models reach together on one set of scenes: COCO's numbers for masks, in [0, 1]."""

    ap: float
    ap50: float
    ap75: float


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Writes what images need of a state dict, as float16."""
    kept = {name: value.half() for name, value in state.items() if not name.startswith(_UNUSED)}
    torch.save(kept, path)


def train_and_save(
    train: Callable[[Report], Mapping[str, Tensor]],
    what: str,
    path: Path,
    settings: SegmenterTraining | EncoderTraining,
) -> None:
    """Trains one model, logging its progress and leaving checkpoints, and notes what was done beside the weights."""
    started, num_steps = time.monotonic(), settings.optimizer.num_steps
    sums: dict[str, float] = {}
    means: dict[str, float] = {}

    def report(step: int, losses: Mapping[str, float], model: nn.Module) -> None:
        for loss, value in losses.items():
            sums[loss] = sums.get(loss, 0.0) + value / _REPORT_EVERY
        if (step + 1) % _REPORT_EVERY == 0:
            means.update({loss: round(value, 4) for loss, value in sums.items()})
            sums.clear()
            save_weights(model.state_dict(), path)
            _log.info("%s: step %d of %d, %.0f s: %s", what, step + 1, num_steps, time.monotonic() - started, means)

    save_weights(train(report), path)
    _note(path.with_name(_RECORD), what, started, settings, means)


def _note(
    file: Path,
    what: str,
    started: float,
    settings: SegmenterTraining | EncoderTraining,
    losses: Mapping[str, float],
) -> None:
    record = json.loads(file.read_text()) if file.exists() else {}
    minutes = round((time.monotonic() - started) / 60, 1)
    record[what] = {"minutes": minutes, "last losses": losses, "settings": asdict(settings)}
    file.write_text(json.dumps(record, indent=1) + "\n")


def measure(
    segmenter: SAM2,
    encoder: DINOv2,
    categories: Sequence[Category],
    references: Sequence[Scene],
    targets: Sequence[Scene],
) -> Measurement:
    """Runs the whole method, with its default settings and one box per category, and evaluates the masks."""
    prototypes = _prototypes(segmenter, encoder, references, _dataset(references, categories, with_masks=False))
    labeler = BatchLabeler(segmenter, encoder, prototypes)
    found = [labeler.label(scene.image, image_id=str(index)) for index, scene in enumerate(targets, start=1)]
    detections = Detections.concatenate([labels.detections for labels in found])
    truth = _dataset(targets, categories, with_masks=True)
    metrics = evaluate(truth, detections)
    overall = [value is None for value in metrics.category_id] & (metrics.iou_type == "segm")
    values = dict(zip(metrics.metric[overall], metrics.value[overall].tolist(), strict=True))
    return Measurement(values["AP"], values["AP50"], values["AP75"])


def _dataset(scenes: Sequence[Scene], categories: Sequence[Category], *, with_masks: bool) -> Dataset:
    document = json.dumps(to_coco(scenes, categories, prefix="scene", with_masks=with_masks))
    return parse_coco(document.encode(), source="the drawn scenes")


def _prototypes(segmenter: SAM2, encoder: DINOv2, scenes: Sequence[Scene], dataset: Dataset) -> Prototypes:
    chosen = sample_references(dataset.images, dataset.annotations, dataset.categories, SamplingSettings())
    crops = []
    for image_id, box in zip(chosen.image_id, chosen.box_xyxy, strict=True):
        image = scenes[int(image_id) - 1].image
        masks, _ = segment_boxes(segmenter, image, box[None])
        context_ratio = ReferenceSettings().context_ratio
        crop = crop_reference(image, masks[0], box, context_ratio=context_ratio, size=encoder.architecture.image_size)
        crops += [crop] if crop else []
    with torch.inference_mode():
        encoded = encode_references(encoder, crops)
    bank = MemoryBank(
        category_id=chosen.category_id,
        shot=chosen.shot,
        foreground_weight=np.array([reference.foreground_weight for reference in encoded], np.float32),
        feature=np.stack([reference.feature_C for reference in encoded]),
    )
    return postprocess_memory_bank(bank)


def measure_saved(folder: Path) -> dict[str, Measurement]:
    """Measures the saved models on the scenes that settings may be chosen on and on the demo's."""
    states = [load_weights(name, str(folder / f"{name}.pt")).state for name in (_SEGMENTER, _ENCODER)]
    segmenter = build_segmenter(REGISTRY[_SEGMENTER].architecture, states[0], model=_SEGMENTER)
    encoder = build_encoder(REGISTRY[_ENCODER].architecture, states[1], model=_ENCODER)
    references, targets = (np.random.default_rng(seed) for seed in _VALIDATION_SEEDS)
    validation = measure(
        segmenter,
        encoder,
        VALIDATION_CATEGORIES,
        draw_references(VALIDATION_CATEGORIES, references),
        draw_targets(VALIDATION_CATEGORIES, 40, targets),
    )
    demo = measure(segmenter, encoder, DEMO_CATEGORIES, draw_demo_references(), draw_demo_targets())
    return {"validation": validation, "demo": demo}


def train_the_segmenter(folder: Path, seed: int, first_round: int) -> None:
    """Trains the segmenter in its rounds, each going on where the one before stopped."""
    architecture = REGISTRY[_SEGMENTER].architecture
    for index, settings in enumerate(SEGMENTER_ROUNDS[first_round:], start=first_round):
        seeded = replace(settings, optimizer=replace(settings.optimizer, seed=seed + index))
        start = load_weights(_SEGMENTER, str(folder / f"{_SEGMENTER}.pt")).state if index else None
        train = partial(train_segmenter, architecture, seeded, start=start)
        train_and_save(train, f"{_SEGMENTER}, round {index}", folder / f"{_SEGMENTER}.pt", seeded)


def train_the_encoder(folder: Path, seed: int) -> None:
    """Trains the encoder."""
    architecture = REGISTRY[_ENCODER].architecture
    settings = replace(ENCODER_TRAINING, optimizer=replace(ENCODER_TRAINING.optimizer, seed=seed))
    train_and_save(partial(train_encoder, architecture, settings), _ENCODER, folder / f"{_ENCODER}.pt", settings)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the record")
    parser.add_argument("--seed", type=int, default=0, help="of the scenes and the first parameters")
    parser.add_argument("--only", choices=("segmenter", "encoder", "measure"), help="one part of the work")
    parser.add_argument("--first-round", type=int, default=0, help="go on with the segmenter that lies in the folder")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.only in (None, "segmenter"):
        train_the_segmenter(folder, arguments.seed, arguments.first_round)
    if arguments.only in (None, "encoder"):
        train_the_encoder(folder, arguments.seed)
    if arguments.only in (None, "measure"):
        for scenes, measurement in measure_saved(folder).items():
            _log.info("%s scenes: AP %.3f, AP50 %.3f, AP75 %.3f", scenes, *measurement)


if __name__ == "__main__":
    main()
