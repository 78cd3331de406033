"""What the encoder learns: to find a category again, in other scenes, from one cropped reference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from refseg_core.labeling.matching import pooling_weights
from refseg_core.models.architectures import EncoderArchitecture
from refseg_core.models.dinov2 import DINOv2
from refseg_core.references.memory_bank import Crop, crop_reference, patch_weights
from tests.demo_scenes.appearance import Category
from tests.demo_scenes.dataset import is_valid_reference
from tests.demo_scenes.scenes import Instance, Scene
from tests.demo_training.loop import Report, train
from tests.demo_training.settings import EncoderTraining
from tests.demo_training.views import HALF, BoolMask, draw_scenes, images_of, shrink

_REGION_SIDE = 64  # cells, the grid the method averages features on
_CONTEXT_RATIO = 0.2  # of a reference's crop; method, section 3.2
_BACKGROUND_WEIGHT = 2.0


def train_encoder(
    architecture: EncoderArchitecture, settings: EncoderTraining, report: Report | None = None
) -> dict[str, Tensor]:
    """Trains an encoder and returns its state dict, float32. `report` gets step, losses and model each step."""
    generator = np.random.default_rng(settings.optimizer.seed)

    def losses(encoder: DINOv2, _: int) -> dict[str, Tensor]:
        return encoder_losses(encoder, draw_scenes(settings, generator), settings, generator)

    return train(lambda: _fresh_encoder(architecture), losses, settings.optimizer, report)


def _fresh_encoder(architecture: EncoderArchitecture) -> DINOv2:
    encoder = DINOv2(architecture)
    for parameter in (encoder.cls_token, encoder.pos_embed):
        nn.init.trunc_normal_(parameter, std=0.02)
    return encoder


def encoder_losses(
    encoder: DINOv2, scenes: Sequence[Scene], settings: EncoderTraining, generator: np.random.Generator
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


@dataclass(frozen=True, eq=False)
class _Episode:
    """References of K categories, and N regions of B scenes to tell apart; label K is "none of them"."""

    crops_K3EE: Tensor
    weights_KP: Tensor
    images_B3SS: Tensor
    scene_N: Tensor
    region_NGG: Tensor
    label_N: Tensor


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
                regions.append((index, shrink(instance.mask, _REGION_SIDE) > HALF, label))
        for region in _background_regions(scene, settings.background_regions, generator):
            regions.append((index, region, len(labels)))
    scene_N, region_NGG, label_N = zip(*(r for r in regions if r[1].any()), strict=True)
    images = images_of(scenes)
    return _Episode(
        _recolored(torch.stack(crops), generator),
        patch_weights(torch.stack(masks), architecture.grid_size),
        _recolored(images, generator),
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
    return crop_reference(
        image_HW3,
        instance.mask,
        np.array(instance.box_xyxy, np.float64),
        context_ratio=_CONTEXT_RATIO,
        size=architecture.image_size,
    )


def _background_regions(scene: Scene, number: int, generator: np.random.Generator) -> Iterator[BoolMask]:
    """Ellipses where no object is."""
    free = ~np.any([shrink(i.mask, _REGION_SIDE) > 0 for i in scene.instances], axis=0)
    y, x = np.mgrid[:_REGION_SIDE, :_REGION_SIDE]
    for _ in range(number):
        (center_x, center_y), (rx, ry) = generator.uniform(0, _REGION_SIDE, 2), generator.uniform(3, 14, 2)
        yield free & (((x - center_x) / rx) ** 2 + ((y - center_y) / ry) ** 2 < 1)


def _recolored(images_B3HW: Tensor, generator: np.random.Generator) -> Tensor:
    """Another light on every image: gains per channel."""
    gains = generator.uniform(0.88, 1.12, size=(len(images_B3HW), 3, 1, 1)).astype(np.float32)
    return (images_B3HW * torch.from_numpy(gains)).clamp(0, 1)


def _reference_means(encoder: DINOv2, episode: _Episode) -> Tensor:
    features_KPC = encoder(episode.crops_K3EE)
    return torch.einsum("kp,kpc->kc", episode.weights_KP, features_KPC)


def _region_means(encoder: DINOv2, episode: _Episode) -> Tensor:
    features_BPC = encoder(episode.images_B3SS)
    weights_NP = pooling_weights(episode.region_NGG, encoder.architecture.grid_size)
    return torch.einsum("np,npc->nc", weights_NP, features_BPC[episode.scene_N])
