"""What a benchmark labels, and with what: a run's own images, models and bank, or drawn scenes and random weights."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from refseg_core.datasets.dataset import Dataset, dataset_of_files
from refseg_core.errors import ConfigurationError, brief
from refseg_core.images import Pixels
from refseg_core.labeling.batching import BatchSize
from refseg_core.labeling.proposals import point_grid, propose
from refseg_core.models.acceleration import pick_device
from refseg_core.models.preprocessing import resize_to_square, to_unit_range
from refseg_core.models.protocols import Encoder, Segmenter
from refseg_core.models.registry import build_encoder, build_segmenter, models_of
from refseg_core.settings import BatchSettings, LabelingSettings
from refseg_core.tables import Images, Prototypes
from refseg_core.visualization import to_png
from tasks.datasets.demo_files import demo_images
from tasks.datasets.image_reader import decode_row
from tasks.datasets.indexed import ground_truth
from tasks.models.area_limits import with_areas
from tasks.models.guidance import guidance_of, is_chosen, with_thresh
from tasks.models.loading import load_encoder, load_segmenter
from tasks.specs import LabelSpec
from tasks.storage.folder import Folder
from tasks.store.store import Artifact, Store

_SEED = 2507
_HEIGHT, _WIDTH = 480, 640


@dataclass(frozen=True)
class Inputs:
    """Images by name in a folder, and what labels them."""

    folder: Folder
    images: Images
    segmenter: Segmenter
    encoder: Encoder
    prototypes: Prototypes
    labeling: LabelingSettings
    batches: BatchSettings
    truth: Dataset | None = None

    def decode(self, data: bytes, row: int) -> Pixels:
        """Returns the pixels of an image's file, in its frame."""
        return decode_row(data, self.images, row, max_pixels=self.labeling.max_image_pixels)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.segmenter.device


def inputs_of_run(
    store: Store,
    *,
    dataset: Artifact,
    prototypes: Artifact,
    spec: LabelSpec,
    num_images: int | None,
) -> Inputs:
    """A run's first images (None: all), models and prototypes; with ground truth where the dataset has any."""
    images = store.load(dataset, Images)[:num_images]
    truth = ground_truth(store, dataset, prototypes)
    labeling = with_areas(store, prototypes, spec.labeling)
    if is_chosen(labeling):
        labeling = with_thresh(store, guidance_of(store, prototypes, spec), labeling)
    return Inputs(
        Folder(spec.images),
        images,
        load_segmenter(spec.segmenter, spec.device),
        load_encoder(spec.encoder, spec.device),
        store.load(prototypes, Prototypes),
        labeling,
        spec.batches,
        replace(truth, images=images) if len(truth.annotations) else None,
    )


def random_inputs(
    folder: Path, *, segmenter: str, encoder: str, device: str, num_images: int, kept: float, num_categories: int = 80
) -> Inputs:
    """Models of the named dimensions with random weights, random prototypes, and drawn scenes of 640 x 480.

    Time depends on weights only through the share of prompts that are kept, so the threshold of the predicted IoU is
    put where `kept` of them are. Raises ConfigurationError for unknown models.
    """
    for name, known in ((segmenter, models_of("segmenter")), (encoder, models_of("encoder"))):
        if name not in known:
            raise ConfigurationError(f"--random: {brief(name)} is not known; expected one of {', '.join(known)}.")
    place = pick_device(device)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        ours = build_segmenter(segmenter, None).to(place)
        theirs = build_encoder(encoder, None).to(place)
    inputs = Inputs(
        Folder(str(folder)),
        _write_images(folder, num_images),
        ours,
        theirs,
        random_prototypes(num_categories, theirs.architecture.embed_dim),
        LabelingSettings(),
        BatchSettings(),
    )
    return replace(inputs, labeling=LabelingSettings(pred_iou_thresh=_threshold(inputs, kept)))


def random_prototypes(num_categories: int, num_channels: int) -> Prototypes:
    """Prototypes of categories that nothing in particular resembles."""
    vectors = np.random.default_rng(_SEED).standard_normal((num_categories, num_channels)).astype(np.float32)
    return Prototypes(
        category_id=np.arange(1, num_categories + 1),
        num_references=np.ones(num_categories, dtype=np.int64),
        prototype=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )


def _write_images(folder: Path, num_images: int) -> Images:
    files = {f"{number:04d}.png": to_png(_enlarged(image)) for number, image in enumerate(demo_images(num_images))}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return dataset_of_files(list(files), [len(data) for data in files.values()], [""] * len(files)).images


def _enlarged(image_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return resize_to_square(image_HW3, _WIDTH)[:_HEIGHT]


@torch.inference_mode()
def _threshold(inputs: Inputs, kept: float) -> float:
    """Above which the wanted share of the first image's prompts lies."""
    segmenter = inputs.segmenter
    size = segmenter.architecture.image_size
    image = resize_to_square(_enlarged(demo_images(1)[0]), size)
    decoder = segmenter.point_decoder()
    prepared = decoder.prepare(segmenter.embed(to_unit_range(image)[None].to(inputs.device)))
    some = propose(
        decoder,
        prepared,
        decoder.prompts(point_grid(8, size, inputs.device)),
        batch=BatchSize(inputs.batches.points_per_batch),
        pred_iou_thresh=-1,
    )
    return float(some.predicted_iou_N.quantile(1 - kept))
