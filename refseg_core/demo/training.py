"""Trains the embedded demo's two toy models on drawn scenes, from random parameters.

Pure: settings and a seed in, a state dict out; saving is the task's matter. The models are the real ones at small
dimensions, and they learn exactly what the method asks of them: the segmenter to answer one point or one box with
the object there, the encoder to tell a category from one cropped reference.

Shapes: B images, S segmenter frame, L mask targets' side (S / 2), G mask logits' side, N prompts or regions,
K categories of an episode, P cells or patches, C channels, E encoder frame.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from refseg_core.architectures import EncoderArchitecture, SegmenterArchitecture
from refseg_core.demo.dataset import draw_targets, draw_training_categories, is_valid_reference
from refseg_core.demo.looks import Category
from refseg_core.demo.scenes import Instance, Scene, SceneSettings
from refseg_core.encoder import Encoder
from refseg_core.matching import pooling_weights
from refseg_core.memory_bank import Crop, crop_reference, patch_weights
from refseg_core.pixels import squash, to_unit_range
from refseg_core.segmenter import ImageEmbedding, Segmenter, build_segmenter

Model = TypeVar("Model", bound=nn.Module)
Report = Callable[[int, Mapping[str, float], nn.Module], None]
BoolMask = npt.NDArray[np.bool_]
_POINT, _BOX_CORNERS = 1, (2, 3)
_FRAME = 256  # px, the segmenter frame both models see scenes in
_REGION_SIDE = 64  # cells, the grid the method averages features on
_CONTEXT_RATIO = 0.2  # of a reference's crop; method, section 3.2
_NOTHING = -1
_HALF = 0.5
_POINTING_RADIUS = 20.0  # px in the segmenter frame
_SHARPNESS, _SMALL = 3.0, 0.2  # of initial values
_IOU_WEIGHT, _BOX_WEIGHT, _BACKGROUND_WEIGHT = 4.0, 0.5, 2.0
_GROUPING_TEMPERATURE = 0.15


@dataclass(frozen=True)
class OptimiserSettings:
    """How long and how fast a model learns: AdamW, linear warm-up, then a half cosine down to nothing."""

    num_steps: int
    seed: int = 0
    learning_rate: float = 7e-4
    warmup_steps: int = 100
    weight_decay: float = 0.02
    gradient_norm: float = 1.0
    averaging: float = 0.995


@dataclass(frozen=True)
class SegmenterTraining:
    """One step of the segmenter: scenes, and prompts in each of them."""

    optimiser: OptimiserSettings
    num_scenes: int = 4
    num_categories: int = 12
    scenes: SceneSettings = field(default_factory=SceneSettings)
    object_points: int = 7
    background_points: int = 4
    boxes: int = 3
    box_jitter: float = 1.5
    pointing_steps: int = 250
    grouping_weight: float = 0.1
    outside_weight: float | None = None  # of a pixel outside the object; None: outside and inside count the same


@dataclass(frozen=True)
class EncoderTraining:
    """One step of the encoder: an episode of categories, one reference each, and scenes to find them in."""

    optimiser: OptimiserSettings
    num_scenes: int = 8
    num_categories: int = 10
    scenes: SceneSettings = field(default_factory=SceneSettings)
    background_regions: int = 4
    temperature: float = 0.1
    none_similarity: float = 0.3
    background_similarity: float = 0.1


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
    generator = np.random.default_rng(settings.optimiser.seed)

    def losses(segmenter: Segmenter, step: int) -> dict[str, Tensor]:
        task = pointing_losses if step < settings.pointing_steps else segmenter_losses
        return task(segmenter, _draw_scenes(settings, generator), settings, generator)

    def build() -> Segmenter:
        if start is None:
            return _fresh_segmenter(architecture)
        return build_segmenter(architecture, start, model="start").train().requires_grad_(True)

    return _train(build, losses, settings.optimiser, report)


def train_encoder(
    architecture: EncoderArchitecture, settings: EncoderTraining, report: Report | None = None
) -> dict[str, Tensor]:
    """Trains an encoder and returns its state dict, float32. `report` gets step, losses and model each step."""
    generator = np.random.default_rng(settings.optimiser.seed)

    def losses(encoder: Encoder, _: int) -> dict[str, Tensor]:
        return encoder_losses(encoder, _draw_scenes(settings, generator), settings, generator)

    return _train(lambda: _fresh_encoder(architecture), losses, settings.optimiser, report)


def _draw_scenes(settings: SegmenterTraining | EncoderTraining, generator: np.random.Generator) -> tuple[Scene, ...]:
    categories = draw_training_categories(settings.num_categories, generator)
    return draw_targets(categories, settings.num_scenes, generator, settings.scenes)


def _fresh_segmenter(architecture: SegmenterArchitecture) -> Segmenter:
    """A random segmenter whose prompts already look at where they point.

    Queries and keys of its attention between prompts and image start out alike, so that equal positions attract;
    prompt types start out small, so that they do not drown the position. Left to chance, training spends a
    thousand steps on finding this.
    """
    segmenter = Segmenter(architecture)
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


def _fresh_encoder(architecture: EncoderArchitecture) -> Encoder:
    encoder = Encoder(architecture)
    for parameter in (encoder.cls_token, encoder.pos_embed):
        nn.init.trunc_normal_(parameter, std=0.02)
    return encoder


def _train(
    build: Callable[[], Model],
    losses: Callable[[Model, int], dict[str, Tensor]],
    settings: OptimiserSettings,
    report: Report | None,
) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build()
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))
        optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, settings))
        for step in range(settings.num_steps):
            parts = losses(model, step)
            optimiser.zero_grad()
            torch.stack(list(parts.values())).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_norm)
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            if report:
                report(step, {name: float(value.detach()) for name, value in parts.items()}, average.module)
    return {name: value.detach().clone() for name, value in average.module.state_dict().items()}


def _rate(step: int, settings: OptimiserSettings) -> float:
    warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / max(1, settings.num_steps)))


# --- segmenter -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Prompts:
    """N prompts: which image, where (K points each), and the object there, index -1 for none."""

    image_N: Tensor
    coordinates_NK2: Tensor
    target_N: Tensor


def segmenter_losses(
    segmenter: Segmenter, scenes: Sequence[Scene], settings: SegmenterTraining, generator: np.random.Generator
) -> dict[str, Tensor]:
    """The losses of one step: masks from points, their predicted IoU, and the same for boxes; float32 scalars."""
    masks_MLL = torch.from_numpy(np.stack([_shrink(i.mask) for scene in scenes for i in scene.instances]))
    points, boxes = _draw_prompts(scenes, settings, generator)
    embedding = segmenter.embed(_images(scenes))
    (logits, predicted_iou), (box_logits, box_predicted_iou) = _decode(segmenter, embedding, points, boxes)
    on_object = points.target_N != _NOTHING
    truth_NLL = masks_MLL[points.target_N[on_object]]
    iou = torch.zeros_like(predicted_iou)
    iou[on_object] = _iou(logits[on_object], truth_NLL)
    box_truth_NLL = masks_MLL[boxes.target_N]
    return {
        "point_mask": _mask_loss(logits[on_object], truth_NLL, settings.outside_weight),
        "point_iou": _IOU_WEIGHT * F.mse_loss(predicted_iou, iou),
        "box_mask": _BOX_WEIGHT * _mask_loss(box_logits, box_truth_NLL, settings.outside_weight),
        "box_iou": _BOX_WEIGHT * F.mse_loss(box_predicted_iou, _iou(box_logits, box_truth_NLL)),
        "grouping": settings.grouping_weight * _grouping_loss(embedding, scenes),
    }


def pointing_losses(
    segmenter: Segmenter, scenes: Sequence[Scene], settings: SegmenterTraining, generator: np.random.Generator
) -> dict[str, Tensor]:
    """The losses of a step that teaches only where a prompt is: a disc around a point, the ellipse in a box.

    Without it the segmenter first learns to tell all objects from the background, unlearns to look at the prompt
    on the way, and is stuck there for thousands of steps.
    """
    points, boxes = _draw_prompts(scenes, settings, generator)
    embedding = segmenter.embed(_images(scenes))
    (logits, _), (box_logits, _) = _decode(segmenter, embedding, points, boxes)
    return {
        "point_mask": _mask_loss(logits, _ellipses(points.coordinates_NK2), settings.outside_weight),
        "box_mask": _BOX_WEIGHT * _mask_loss(box_logits, _ellipses(boxes.coordinates_NK2), settings.outside_weight),
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
    cover = torch.from_numpy(np.stack([_shrink(i.mask, side) for i in scene.instances])).flatten(1)
    most_P, owner_P = cover.max(dim=0)
    on_object_P = most_P > _HALF
    clear = on_object_P | (cover.sum(dim=0) == 0)
    owner_P = torch.where(on_object_P, owner_P, _NOTHING)[clear]
    directions = F.normalize(features_cgg.flatten(1)[:, clear], dim=0)
    likeness_PP = (directions.T @ directions / _GROUPING_TEMPERATURE).fill_diagonal_(-math.inf)
    same_PP = (owner_P[:, None] == owner_P).fill_diagonal_(False)
    anchors = same_PP.any(dim=1) & (owner_P != _NOTHING)
    same = likeness_PP[anchors].masked_fill(~same_PP[anchors], -math.inf).logsumexp(dim=1)
    unlikeliness = likeness_PP[anchors].logsumexp(dim=1) - same
    return unlikeliness.sum() / max(1, len(unlikeliness))


def _ellipses(corners_NK2: Tensor) -> Tensor:
    """What lies around a point or within the corners of a box, float32 [N, L, L] in {0, 1}."""
    centre_N2 = corners_NK2.mean(dim=1)
    radius_N2 = ((corners_NK2.amax(dim=1) - corners_NK2.amin(dim=1)) / 2).clamp(min=_POINTING_RADIUS)
    cells_L = torch.arange(_FRAME // 2) * 2 + 1.0
    across_NL, down_NL = ((cells_L - centre_N2[..., None]) / radius_N2[..., None]).square().unbind(dim=1)
    return (down_NL[:, :, None] + across_NL[:, None, :] < 1).to(torch.float32)


def _images(scenes: Sequence[Scene]) -> Tensor:
    return torch.stack([to_unit_range(squash(scene.image, _FRAME)) for scene in scenes])


def _shrink(mask_HW: BoolMask, side: int = _FRAME // 2) -> npt.NDArray[np.float32]:
    """The share of every target cell that the mask covers."""
    cells = Image.fromarray(mask_HW.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(cells, np.float32)


def _draw_prompts(
    scenes: Sequence[Scene], settings: SegmenterTraining, generator: np.random.Generator
) -> tuple[_Prompts, _Prompts]:
    """Points on objects and on the background, and boxes around objects, in the segmenter frame."""
    points, boxes = [], []
    first = 0
    for image, scene in enumerate(scenes):
        scale = np.array(scene.image.shape[1::-1]) / _FRAME
        instances = scene.instances
        chosen = generator.integers(len(instances), size=settings.object_points).tolist()
        for index in chosen:
            points.append((image, _point_in(instances[index].mask, generator) / scale, first + index))
        free = ~np.any([instance.mask for instance in instances], axis=0)
        for _ in range(settings.background_points):
            points.append((image, _point_in(free, generator) / scale, _NOTHING))
        for index in generator.integers(len(instances), size=settings.boxes).tolist():
            corners = np.reshape(instances[index].box_xyxy, (2, 2)) / scale
            boxes.append((image, corners + generator.normal(0, settings.box_jitter, (2, 2)), first + index))
        first += len(instances)
    return _prompts(points), _prompts(boxes)


def _prompts(rows: Sequence[tuple[int, npt.NDArray[np.float64], int]]) -> _Prompts:
    images, coordinates, targets = zip(*rows, strict=True)
    return _Prompts(
        torch.tensor(images),
        torch.from_numpy(np.stack(coordinates).astype(np.float32)).view(len(rows), -1, 2),
        torch.tensor(targets),
    )


def _point_in(mask_HW: BoolMask, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random pixel of the mask as (x, y); any pixel where the mask is empty."""
    pixels = np.flatnonzero(mask_HW)
    index = int(generator.choice(pixels)) if len(pixels) else int(generator.integers(mask_HW.size))
    return np.array([index % mask_HW.shape[1], index // mask_HW.shape[1]], np.float64)


def _decode(
    segmenter: Segmenter, embedding: ImageEmbedding, points: _Prompts, boxes: _Prompts
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Logits [N, M, G, G] and predicted IoU [N, M] of points (M = 3, quirk Q1) and of boxes (M = 1)."""
    logits, predicted_iou = _decode_all(segmenter, embedding, points, (_POINT,))
    with_memory = replace(embedding, stride16_BWhw=embedding.stride16_BWhw + segmenter.no_mem_embed.view(1, -1, 1, 1))
    box_logits, box_predicted_iou = _decode_all(segmenter, with_memory, boxes, _BOX_CORNERS)
    return (logits[:, 1:], predicted_iou[:, 1:]), (box_logits[:, :1], box_predicted_iou[:, :1])


def _decode_all(
    segmenter: Segmenter, embedding: ImageEmbedding, prompts: _Prompts, labels: Sequence[int]
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


def _enlarged(logits_NMGG: Tensor, truth_NLL: Tensor) -> Tensor:
    return F.interpolate(logits_NMGG, size=truth_NLL.shape[-2:], mode="bilinear", align_corners=False)


def _mask_loss(logits_NMGG: Tensor, truth_NLL: Tensor, outside_weight: float | None) -> Tensor:
    """The loss of each prompt's best mask, averaged over prompts."""
    logits = _enlarged(logits_NMGG, truth_NLL)
    truth = truth_NLL[:, None].expand_as(logits)
    loss_NM = _cross_entropy(logits, truth, outside_weight) + _dice(logits.sigmoid(), truth)
    return loss_NM.min(dim=1).values.mean()


def _cross_entropy(logits: Tensor, truth: Tensor, outside_weight: float | None) -> Tensor:
    """Relative to the object's area. Where inside and outside count the same, no object is best left out."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    area = truth.sum(dim=(2, 3)).clamp(min=1)
    inside = (cross_entropy * truth).sum(dim=(2, 3)) / area
    outside = (cross_entropy * (1 - truth)).sum(dim=(2, 3))
    weight = 1 / (1 - truth).sum(dim=(2, 3)) if outside_weight is None else outside_weight / area
    return 0.5 * (inside + weight * outside)


def _dice(share: Tensor, truth: Tensor) -> Tensor:
    both = (share * truth).sum(dim=(2, 3))
    return 1 - (2 * both + 1) / (share.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)


@torch.no_grad()
def _iou(logits_NMGG: Tensor, truth_NLL: Tensor) -> Tensor:
    mask, truth = _enlarged(logits_NMGG, truth_NLL) > 0, truth_NLL[:, None] > _HALF
    both, either = (mask & truth).sum(dim=(2, 3)), (mask | truth).sum(dim=(2, 3))
    return both / either.clamp(min=1)


# --- encoder ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Episode:
    """References of K categories, and N regions of B scenes to tell apart; label K is "none of them"."""

    crops_K3EE: Tensor
    weights_KP: Tensor
    images_B3SS: Tensor
    scene_N: Tensor
    region_NGG: Tensor
    label_N: Tensor


def encoder_losses(
    encoder: Encoder, scenes: Sequence[Scene], settings: EncoderTraining, generator: np.random.Generator
) -> dict[str, Tensor]:
    """The losses of one episode: telling regions apart, and keeping the background unlike every category."""
    episode = _episode(encoder.architecture, scenes, settings, generator)
    prototypes_KC = F.normalize(_reference_means(encoder, episode), dim=-1)
    similarity_NK = F.normalize(_region_means(encoder, episode), dim=-1) @ prototypes_KC.T
    none_N1 = similarity_NK.new_full((len(similarity_NK), 1), settings.none_similarity)
    logits = torch.cat((similarity_NK, none_N1), dim=1) / settings.temperature
    on_background = episode.label_N == len(prototypes_KC)
    excess = F.relu(similarity_NK[on_background] - settings.background_similarity)
    return {
        "categories": F.cross_entropy(logits, episode.label_N),
        "background": _BACKGROUND_WEIGHT * excess.square().mean(),
    }


def _episode(
    architecture: EncoderArchitecture,
    scenes: Sequence[Scene],
    settings: EncoderTraining,
    generator: np.random.Generator,
) -> _Episode:
    references = _choose_references(scenes, generator)
    labels = {category: index for index, category in enumerate(references)}
    chosen = {id(instance) for _, instance in references.values()}
    crops, masks = zip(*(_crop(image, r, architecture) for image, r in references.values()), strict=True)
    regions: list[tuple[int, BoolMask, int]] = []
    for index, scene in enumerate(scenes):
        for instance in scene.instances:
            if id(instance) not in chosen:
                label = labels.get(instance.category, len(labels))
                regions.append((index, _shrink(instance.mask, _REGION_SIDE) > _HALF, label))
        for region in _background_regions(scene, settings.background_regions, generator):
            regions.append((index, region, len(labels)))
    scene_N, region_NGG, label_N = zip(*(r for r in regions if r[1].any()), strict=True)
    images = _images(scenes)
    return _Episode(
        _recoloured(torch.stack(crops), generator),
        patch_weights(torch.stack(masks), architecture.grid_size),
        _recoloured(images, generator),
        torch.tensor(scene_N),
        torch.from_numpy(np.stack(region_NGG)),
        torch.tensor(label_N),
    )


def _choose_references(
    scenes: Sequence[Scene], generator: np.random.Generator
) -> dict[Category, tuple[npt.NDArray[np.uint8], Instance]]:
    """One valid instance of every category that has one."""
    found = [(scene.image, i) for scene in scenes for i in scene.instances if is_valid_reference(i)]
    return {found[k][1].category: found[k] for k in generator.permutation(len(found))}


def _crop(image_HW3: npt.NDArray[np.uint8], instance: Instance, architecture: EncoderArchitecture) -> Crop:
    """A reference as the method sees it; a valid one lies inside its image."""
    crop = crop_reference(
        image_HW3,
        instance.mask,
        np.array(instance.box_xyxy, np.float64),
        context_ratio=_CONTEXT_RATIO,
        size=architecture.image_size,
    )
    assert crop is not None
    return crop


def _background_regions(scene: Scene, number: int, generator: np.random.Generator) -> Iterator[BoolMask]:
    """Ellipses where no object is."""
    free = ~np.any([_shrink(i.mask, _REGION_SIDE) > 0 for i in scene.instances], axis=0)
    y, x = np.mgrid[:_REGION_SIDE, :_REGION_SIDE]
    for _ in range(number):
        (centre_x, centre_y), (rx, ry) = generator.uniform(0, _REGION_SIDE, 2), generator.uniform(3, 14, 2)
        yield free & (((x - centre_x) / rx) ** 2 + ((y - centre_y) / ry) ** 2 < 1)


def _recoloured(images_B3HW: Tensor, generator: np.random.Generator) -> Tensor:
    """Another light on every image: gains per channel."""
    gains = generator.uniform(0.88, 1.12, size=(len(images_B3HW), 3, 1, 1)).astype(np.float32)
    return (images_B3HW * torch.from_numpy(gains)).clamp(0, 1)


def _reference_means(encoder: Encoder, episode: _Episode) -> Tensor:
    features_KPC = encoder(episode.crops_K3EE)
    return torch.einsum("kp,kpc->kc", episode.weights_KP, features_KPC)


def _region_means(encoder: Encoder, episode: _Episode) -> Tensor:
    features_BPC = encoder(episode.images_B3SS)
    weights_NP = pooling_weights(episode.region_NGG, encoder.architecture.grid_size)
    return torch.einsum("np,npc->nc", weights_NP, features_BPC[episode.scene_N])
