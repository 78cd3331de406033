"""What the segmenter learns: where a prompt points, which object is there, and how good its masks are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.models.architectures import SegmenterArchitecture
from refseg_core.models.protocols import ImageEmbedding
from refseg_core.models.sam2 import SAM2
from refseg_core.models.sam2 import build as build_segmenter
from tests.demo_scenes.scenes import Scene
from tests.demo_training.loop import Report, train
from tests.demo_training.mask_losses import mask_iou, mask_loss
from tests.demo_training.prompts import NOTHING, Prompts, draw_prompts, ellipses
from tests.demo_training.settings import SegmenterTraining
from tests.demo_training.views import HALF, draw_scenes, images_of, shrink

_POINT, _BOX_CORNERS = 1, (2, 3)
_SHARPNESS, _SMALL = 3.0, 0.2  # of initial values
_IOU_WEIGHT, _BOX_WEIGHT = 4.0, 0.5
_GROUPING_TEMPERATURE = 0.15


def train_segmenter(
    architecture: SegmenterArchitecture,
    settings: SegmenterTraining,
    report: Report | None = None,
    *,
    start: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Trains a segmenter and returns its state dict, float32.

    `report` gets step, losses and model each step. Training goes on from the state dict `start`, if there is one.
    """
    generator = np.random.default_rng(settings.optimizer.seed)

    def losses(segmenter: SAM2, step: int) -> dict[str, Tensor]:
        task = pointing_losses if step < settings.pointing_steps else segmenter_losses
        return task(segmenter, draw_scenes(settings, generator), settings, generator)

    def build() -> SAM2:
        if start is None:
            return _fresh_segmenter(architecture)
        return build_segmenter(architecture, start, model="start").train().requires_grad_(True)

    return train(build, losses, settings.optimizer, report)


def _fresh_segmenter(architecture: SegmenterArchitecture) -> SAM2:
    """A random segmenter whose prompts already look at where they point.

    Queries and keys of its attention between prompts and image start out alike, so that equal positions attract;
    prompt types start out small, so that they do not drown the position. Left to chance, training spends a
    thousand steps on finding this.
    """
    segmenter = SAM2(architecture)
    prompts, transformer = segmenter.sam_prompt_encoder, segmenter.sam_mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:
            attention.q_proj.weight *= _SHARPNESS
            attention.k_proj.weight.copy_(attention.q_proj.weight)
        for embedding in (*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed):
            embedding.weight *= _SMALL
    return segmenter


def segmenter_losses(
    segmenter: SAM2, scenes: Sequence[Scene], settings: SegmenterTraining, generator: np.random.Generator
) -> dict[str, Tensor]:
    """The losses of one step: masks from points, their predicted IoU, and the same for boxes; float32 scalars."""
    masks_MLL = torch.from_numpy(np.stack([shrink(i.mask) for scene in scenes for i in scene.instances]))
    points, boxes = draw_prompts(scenes, settings, generator)
    embedding = segmenter.embed(images_of(scenes))
    (logits, predicted_iou), (box_logits, box_predicted_iou) = _decode(segmenter, embedding, points, boxes)
    on_object = points.target_N != NOTHING
    truth_NLL = masks_MLL[points.target_N[on_object]]
    iou = torch.zeros_like(predicted_iou)
    iou[on_object] = mask_iou(logits[on_object], truth_NLL)
    box_truth_NLL = masks_MLL[boxes.target_N]
    return {
        "point_mask": mask_loss(logits[on_object], truth_NLL, settings.outside_weight),
        "point_iou": _IOU_WEIGHT * F.mse_loss(predicted_iou, iou),
        "box_mask": _BOX_WEIGHT * mask_loss(box_logits, box_truth_NLL, settings.outside_weight),
        "box_iou": _BOX_WEIGHT * F.mse_loss(box_predicted_iou, mask_iou(box_logits, box_truth_NLL)),
        "grouping": settings.grouping_weight * _grouping_loss(embedding, scenes),
    }


def pointing_losses(
    segmenter: SAM2, scenes: Sequence[Scene], settings: SegmenterTraining, generator: np.random.Generator
) -> dict[str, Tensor]:
    """The losses of a step that teaches only where a prompt is: a disc around a point, the ellipse in a box.

    Without it the segmenter first learns to tell all objects from the background, unlearns to look at the prompt
    on the way, and is stuck there for thousands of steps.
    """
    points, boxes = draw_prompts(scenes, settings, generator)
    embedding = segmenter.embed(images_of(scenes))
    (logits, _), (box_logits, _) = _decode(segmenter, embedding, points, boxes)
    return {
        "point_mask": mask_loss(logits, ellipses(points.coordinates_NK2), settings.outside_weight),
        "box_mask": _BOX_WEIGHT * mask_loss(box_logits, ellipses(boxes.coordinates_NK2), settings.outside_weight),
        "grouping": settings.grouping_weight * _grouping_loss(embedding, scenes),
    }


def _grouping_loss(embedding: ImageEmbedding, scenes: Sequence[Scene]) -> Tensor:
    """Asks cells of one object for like features, and cells of different objects for unlike ones.

    Only half of the channels are asked, so that the rest is free for other matters. Masks alone teach this too, but
    slowly, through the narrow door of a few prompts.
    """
    parts = [
        _grouping_of_cells(features_cgg[: len(features_cgg) // 2], scene)
        for features_Bcgg in (embedding.stride16_BWhw, embedding.stride8_Bchw)
        for features_cgg, scene in zip(features_Bcgg, scenes, strict=True)
    ]
    return torch.stack(parts).mean()


def _grouping_of_cells(features_cgg: Tensor, scene: Scene) -> Tensor:
    """For every cell on an object, how unlikely a random like cell is of the same object; P cells."""
    side = features_cgg.shape[-1]
    cover = torch.from_numpy(np.stack([shrink(i.mask, side) for i in scene.instances])).flatten(1)
    most_P, owner_P = cover.max(dim=0)
    on_object_P = most_P > HALF
    clear = on_object_P | (cover.sum(dim=0) == 0)
    owner_P = torch.where(on_object_P, owner_P, NOTHING)[clear]
    directions = F.normalize(features_cgg.flatten(1)[:, clear], dim=0)
    likeness_PP = (directions.T @ directions / _GROUPING_TEMPERATURE).fill_diagonal_(-math.inf)
    same_PP = (owner_P[:, None] == owner_P).fill_diagonal_(False)
    anchors = same_PP.any(dim=1) & (owner_P != NOTHING)
    same = likeness_PP[anchors].masked_fill(~same_PP[anchors], -math.inf).logsumexp(dim=1)
    unlikeliness = likeness_PP[anchors].logsumexp(dim=1) - same
    return unlikeliness.sum() / max(1, len(unlikeliness))


def _decode(
    segmenter: SAM2, embedding: ImageEmbedding, points: Prompts, boxes: Prompts
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Logits [N, M, G, G] and predicted IoU [N, M] of points (M = 3, quirk Q1) and of boxes (M = 1)."""
    logits, predicted_iou = _decode_all(segmenter, embedding, points, (_POINT,))
    with_memory = replace(embedding, stride16_BWhw=embedding.stride16_BWhw + segmenter.no_mem_embed.view(1, -1, 1, 1))
    box_logits, box_predicted_iou = _decode_all(segmenter, with_memory, boxes, _BOX_CORNERS)
    return (logits[:, 1:], predicted_iou[:, 1:]), (box_logits[:, :1], box_predicted_iou[:, :1])


def _decode_all(
    segmenter: SAM2, embedding: ImageEmbedding, prompts: Prompts, labels: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """All four masks of prompts on several images at once."""
    labels_NK = torch.tensor(labels).expand(len(prompts.image_N), len(labels))
    sparse, dense = segmenter.sam_prompt_encoder(points=(prompts.coordinates_NK2, labels_NK), boxes=None, masks=None)
    logits, predicted_iou, _, _ = segmenter.sam_mask_decoder.predict_masks(
        image_embeddings=embedding.stride16_BWhw[prompts.image_N],
        image_pe=segmenter.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[
            embedding.stride4_Bchw[prompts.image_N],
            embedding.stride8_Bchw[prompts.image_N],
        ],
    )
    return logits, predicted_iou
