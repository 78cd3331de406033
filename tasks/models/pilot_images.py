"""The images of a pilot: chosen once among a dataset's by what the encoder sees in them, then kept in the store.

While references are changed the images stay the same, so that numbers before and after can be compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refseg_core import images as image_files
from refseg_core.analysis import pilot_sample
from refseg_core.analysis.pilot_sample import ImageDescription, choose_images, describe_image
from refseg_core.errors import DatasetError, counted
from refseg_core.models import preprocessing
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.registry import model_spec
from refseg_core.tables import Images, PilotImages, Prototypes
from refseg_core.versions import combined
from tasks.datasets.image_reader import read_images
from tasks.models.loading import load_encoder
from tasks.models.weights import weights_sha256
from tasks.runtime.progress import ProgressStep, report
from tasks.specs import LabelSpec
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.steps import CHOOSE_PILOT
from tasks.store.store import Artifact, Recipe, Store


@dataclass(frozen=True)
class PilotWish:
    """How many images are wanted, from how many candidates, which are drawn by seed, and whether always others.

    `is_new`: choose again, although the store has images of an earlier pilot, which other references chose.
    """

    number: int
    num_candidates: int
    seed: int
    is_new: bool = False


def pilot_images(
    store: Store, wish: PilotWish, *, dataset: Artifact, prototypes: Artifact, spec: LabelSpec
) -> Artifact:
    """Returns the images of the last pilot of this dataset and wish, else chooses some."""
    settings = {
        **{"number": wish.number, "num_candidates": wish.num_candidates, "seed": wish.seed},
        "images": redact(spec.images),
        "image_size": model_spec(spec.segmenter.model).architecture.image_size,
    }
    images = store.load(dataset, Images)
    found = None if wish.is_new else _last(store, settings, images)
    recipe = Recipe(
        *CHOOSE_PILOT,
        version=combined(
            image_files.VERSION,
            preprocessing.VERSION,
            model_spec(spec.encoder.model).version,
            pilot_sample.VERSION,
        ),
        settings=settings,
        inputs={"dataset": dataset.name, "prototypes": prototypes.name},
        weights={"encoder": weights_sha256(spec.encoder.model, spec.encoder.weights)},
    )
    return found or store.make(recipe, lambda: [_choose(images, store.load(prototypes, Prototypes), spec, wish)])


def _last(store: Store, settings: Mapping[str, Any], images: Images) -> Artifact | None:
    """Returns the images chosen last by these settings, if all of them are still in the dataset."""
    known = set(images.image_id)
    for manifest in reversed(store.manifests(CHOOSE_PILOT.folder)):
        if manifest["settings"] == settings:
            chosen = store.named(f"{CHOOSE_PILOT.folder}/{manifest['key']}")
            return chosen if known.issuperset(store.load(chosen, PilotImages).image_id) else None
    return None


def _choose(images: Images, prototypes: Prototypes, spec: LabelSpec, wish: PilotWish) -> PilotImages:
    generator = np.random.default_rng(wish.seed)
    drawn = np.sort(generator.permutation(len(images))[: max(wish.number, wish.num_candidates)])
    described = dict(_describe(images[drawn], prototypes, spec))
    if not described:
        raise DatasetError(
            f"{redact(spec.images)}: none of {counted(len(drawn), 'image')} can be read, which a pilot needs."
        )
    candidates = images[drawn[np.array(list(described), dtype=np.int64)]]
    similarity_NK = np.stack([one.similarity_K for one in described.values()])
    chosen = choose_images(
        np.stack([one.feature_C for one in described.values()]), similarity_NK, wish.number, wish.seed
    )
    return PilotImages(
        image_id=candidates.image_id[chosen.row_n],
        cluster=chosen.cluster_n,
        category_id=prototypes.category_id[chosen.class_index_n],
        is_likely_present=chosen.is_present_n,
        similarity=similarity_NK[chosen.row_n, chosen.class_index_n],
    )


@torch.inference_mode()
def _describe(images: Images, prototypes: Prototypes, spec: LabelSpec) -> Iterator[tuple[int, ImageDescription]]:
    """Yields the rows of images that can be read, and what is in them."""
    report(ProgressStep.CHOOSE_PILOT, total=len(images))
    encoder = load_encoder(spec.encoder, spec.device)
    size = model_spec(spec.segmenter.model).architecture.image_size
    prototypes_KC = torch.from_numpy(prototypes.prototype.copy()).to(encoder.device)
    for image in read_images(Folder(spec.images), images, max_pixels=spec.labeling.max_image_pixels):
        report(ProgressStep.CHOOSE_PILOT, advanced=1)
        if image.pixels is not None:
            frame: Tensor = to_unit_range(resize_to_square(image.pixels, size))[None]
            yield image.row, describe_image(encoder(frame.to(encoder.device)).float()[0], prototypes_KC)
