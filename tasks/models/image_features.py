"""What the encoder sees in whole reference images: each is encoded once, and then kept in the store."""

import torch
from torch import Tensor

from refseg_core import images as image_files
from refseg_core.images import Pixels
from refseg_core.models import preprocessing
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import Encoder
from refseg_core.models.registry import model_spec
from refseg_core.tables import ImageFeatures, References
from refseg_core.versions import combined
from tasks.datasets.reference_images import ReferenceImages
from tasks.models.loading import load_encoder
from tasks.models.weights import weights_sha256
from tasks.specs import Models
from tasks.store.steps import ENCODE_IMAGE
from tasks.store.store import Recipe, Store

_MOST_IMAGES = 64  # that speak for all: each costs a pass of the encoder


def some_images(references: References) -> list[str]:
    """Returns the names of the references' images, of many some, whatever the references' order."""
    names = sorted(set(references.file_name))
    return names[:: -(-len(names) // _MOST_IMAGES)]


def image_features(store: Store, images: ReferenceImages, name: str, models: Models) -> Tensor:
    """Returns the features of an image as the labeler sees it, float32 [P, C], from the store if it has them."""
    spec, size = model_spec(models.encoder.model), frame_size(models)
    recipe = Recipe(
        *ENCODE_IMAGE,
        version=combined(image_files.VERSION, preprocessing.VERSION, spec.version),
        settings={"image_size": size, "frame": images.frame(name)},
        inputs={"image": images.sha256(name)},
        weights={"encoder": weights_sha256(models.encoder.model, models.encoder.weights)},
    )

    def encode() -> list[ImageFeatures]:
        encoder = load_encoder(models.encoder, models.device)
        return [ImageFeatures(feature=_encode(encoder, images.read(name), size).cpu().numpy())]

    return torch.from_numpy(store.load(store.make(recipe, encode), ImageFeatures).feature.copy())


def frame_size(models: Models) -> int:
    """Returns the side of the square that images are resized to first, px: the segmenter's."""
    return int(model_spec(models.segmenter.model).architecture.image_size)


def _encode(encoder: Encoder, image_HW3: Pixels, size: int) -> Tensor:
    """Returns the features of a whole image as the labeler sees them, float32 [P, C]."""
    pixels = to_unit_range(resize_to_square(image_HW3, size))
    return encoder(pixels[None].to(encoder.device)).float()[0]
