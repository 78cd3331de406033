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
from refseg_core.errors import ConfigurationError, DatasetError, counted
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

_NUMBER, _CANDIDATES_PER_IMAGE, _SEED = 50, 4, 33  # of the first pilot, where nothing else is said


@dataclass(frozen=True)
class PilotWish:
    """How many images are wanted, from how many candidates, which are drawn by seed, and whether always others.

    None: as the last pilot had it. `is_new`: choose again, although the store has images of an earlier pilot, which
    other references chose.
    """

    number: int | None = None
    num_candidates: int | None = None
    seed: int | None = None
    is_new: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigurationError where more images are wanted than there are to choose from."""
        if self.number is not None:
            self._check(self.number)

    def fits(self, settings: Mapping[str, Any]) -> bool:
        """Returns whether images that were chosen by these settings are wanted."""
        return all(value in (None, settings[name]) for name, value in self._given().items())

    def complete(self, last: Mapping[str, Any]) -> dict[str, int]:
        """Returns the settings of a new choice; `last`: those of the last pilot, empty where there was none.

        Raises ConfigurationError where its images are more than there are to choose from.
        """
        number = self.number or last.get("number", _NUMBER)
        self._check(number)
        usual = last["num_candidates"] if last.get("number") == number else _CANDIDATES_PER_IMAGE * number
        usually = {"number": number, "num_candidates": usual, "seed": last.get("seed", _SEED)}
        return {name: usually[name] if value is None else value for name, value in self._given().items()}

    def _check(self, number: int) -> None:
        if self.num_candidates is not None and self.num_candidates < number:
            raise ConfigurationError(
                f"--candidates: {counted(number, 'image')} cannot be chosen from "
                f"{counted(self.num_candidates, 'candidate')}. Ask for more candidates, or for fewer --images."
            )

    def _given(self) -> dict[str, int | None]:
        return {"number": self.number, "num_candidates": self.num_candidates, "seed": self.seed}


@dataclass(frozen=True)
class PilotChoice:
    """The images of a pilot, and where they are from.

    `created`: when an earlier pilot chose them; None where this one did. `num_gone`: how many of those that an earlier
    one chose are not in the dataset anymore, so that this one chose.
    """

    images: Artifact
    settings: Mapping[str, Any]
    created: str | None = None
    num_gone: int = 0

    @property
    def number(self) -> int:
        """How many images were wanted."""
        return int(self.settings["number"])

    def describe(self, num_targets: int) -> str:
        """Returns a sentence: which images these are, and how others are chosen."""
        num_candidates = min(self.settings["num_candidates"], num_targets)
        images = counted(self.images.num_rows["pilot_images"], "image")
        how = f"from {counted(num_candidates, 'candidate')} by seed {self.settings['seed']}"
        if self.created is not None:
            return (
                f"Pilot: the same {images} as before, chosen {how} on {self.created[:10]}; --new chooses again, and "
                "--images another number."
            )
        gone = f"; {self.num_gone} of those chosen before are not in the dataset anymore" if self.num_gone else ""
        return f"Pilot: {images}, chosen now {how}{gone}."


def pilot_images(
    store: Store, wish: PilotWish, *, dataset: Artifact, prototypes: Artifact, spec: LabelSpec
) -> PilotChoice:
    """Returns the images of the last pilot of this dataset that fits the wish, else chooses some."""
    of_targets = {
        "images": redact(spec.images),
        "image_size": model_spec(spec.segmenter.model).architecture.image_size,
    }
    images = store.load(dataset, Images)
    last = _last(store, wish, of_targets)
    earlier = None if last is None or not wish.fits(last.settings) else last
    num_gone = 0 if earlier is None else _num_gone(store, earlier.images, images)
    if earlier is not None and not num_gone and not wish.is_new:
        return earlier
    settings = {**wish.complete({} if last is None else last.settings), **of_targets}
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
    chosen = store.make(recipe, lambda: [_choose(images, store.load(prototypes, Prototypes), spec, settings)])
    return PilotChoice(chosen, settings, num_gone=num_gone)


def _last(store: Store, wish: PilotWish, of_targets: Mapping[str, Any]) -> PilotChoice | None:
    """Returns what was chosen last among these targets, of what fits the wish if anything does."""
    found = [one for one in store.manifests(CHOOSE_PILOT.folder) if of_targets.items() <= one["settings"].items()]
    if not found:
        return None
    last = ([one for one in found if wish.fits(one["settings"])] or found)[-1]
    return PilotChoice(store.named(f"{CHOOSE_PILOT.folder}/{last['key']}"), last["settings"], str(last["created"]))


def _num_gone(store: Store, chosen: Artifact, images: Images) -> int:
    return len(set(store.load(chosen, PilotImages).image_id) - set(images.image_id))


def _choose(images: Images, prototypes: Prototypes, spec: LabelSpec, settings: Mapping[str, Any]) -> PilotImages:
    number, seed = settings["number"], settings["seed"]
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.permutation(len(images))[: settings["num_candidates"]])
    described = dict(_describe(images[drawn], prototypes, spec))
    if not described:
        raise DatasetError(
            f"{redact(spec.images)}: none of {counted(len(drawn), 'image')} can be read, which a pilot needs."
        )
    candidates = images[drawn[np.array(list(described), dtype=np.int64)]]
    similarity_NK = np.stack([one.similarity_K for one in described.values()])
    chosen = choose_images(np.stack([one.feature_C for one in described.values()]), similarity_NK, number, seed)
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
