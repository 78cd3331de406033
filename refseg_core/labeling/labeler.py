"""The method in one object: references in, detections out, an image at a time. `BatchLabeler` is for many images."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import ValidationError

from refseg_core.errors import ConfigurationError, ImageError, UnusableReferenceError, WeightsError, brief
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.image_detections import ImageDetections
from refseg_core.masks.rle import Masks, boxes_of_masks
from refseg_core.models.acceleration import pick_device
from refseg_core.models.checkpoints import read_state
from refseg_core.models.protocols import Encoder, Segmenter
from refseg_core.models.registry import build_encoder, build_segmenter, recognize
from refseg_core.references.memory_bank import (
    Crop,
    EncodedReference,
    crop_reference,
    encode_image,
    encode_references,
    encode_views,
    pool,
)
from refseg_core.references.prototypes import postprocess_memory_bank
from refseg_core.references.segmentation import segment_boxes, segment_points
from refseg_core.references.validation import check_mask, fitted_box
from refseg_core.settings import BatchSettings, LabelingSettings, ReferenceSettings
from refseg_core.settings.problems import problems_of
from refseg_core.tables import MemoryBank

AnyImage = npt.NDArray[np.uint8] | Image.Image
"""RGB, uint8 [H, W, 3], or a picture of Pillow's."""


class _Path(Protocol):
    def __fspath__(self) -> str: ...


class Labeler:
    """Finds and segments the instances of categories that are known from a few reference instances."""

    def __init__(
        self,
        segmenter: Segmenter,
        encoder: Encoder,
        *,
        settings: LabelingSettings | None = None,
        batches: BatchSettings | None = None,
        references: ReferenceSettings | None = None,
    ) -> None:
        self._segmenter, self._encoder = segmenter, encoder
        self._settings, self._batches = settings or LabelingSettings(), batches or BatchSettings()
        self._reference_settings = references or ReferenceSettings()
        self._categories: list[str] = []
        self._encoded: list[tuple[int, EncodedReference]] = []
        self._shares: dict[str, list[float]] = {}  # of their images that the references cover
        self._labeler: BatchLabeler | None = None

    @classmethod
    def from_weights(
        cls,
        *,
        segmenter: str | _Path,
        encoder: str | _Path,
        segmenter_model: str | None = None,
        encoder_model: str | None = None,
        device: str = "auto",
        **settings: Any,
    ) -> Self:
        """Reads both models from their files and builds a labeler.

        `segmenter_model`, `encoder_model`: names of the models; where None, the weights tell. `device`: 'auto', 'cpu',
        'cuda' or 'cuda:1'. `settings`: fields of `LabelingSettings`, such as `path="fast"` or `points_per_side=16`.
        Raises WeightsError for files that do not hold a known model, ConfigurationError for wrong settings.
        """
        labeling, place = _labeling_settings(settings), pick_device(device)
        for_masks, for_features = _read(segmenter), _read(encoder)
        return cls(
            build_segmenter(segmenter_model or recognize("segmenter", for_masks), for_masks).to(place),
            build_encoder(encoder_model or recognize("encoder", for_features), for_features).to(place),
            settings=labeling,
        )

    @property
    def categories(self) -> dict[int, str]:
        """Names by category id; ids count from 0 in the order in which categories were first added."""
        return dict(enumerate(self._categories))

    def add_reference(
        self,
        image: AnyImage,
        category: str,
        *,
        mask: npt.ArrayLike | None = None,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] | None = None,
    ) -> Masks:
        """Adds an instance that shows what a category looks like; returns its mask, bool [H, W].

        One of: `mask` [H, W], where not zero; `box` (x1, y1, x2, y2); `points`, one or more (x, y) on the instance.
        From the latter two the segmenter makes a mask. All in pixels of the image. A category may have any number of
        references. Raises UnusableReferenceError where they cover nothing of the image, or a box ends more than 2 px
        outside.
        """
        if not isinstance(category, str) or not category.strip():
            raise ConfigurationError(f"A category is named by a word, got {brief(category)}.")
        pixels = _pixels(image)
        mask_HW, box_xyxy = self._mask_and_box(pixels, mask, box, points)
        encoded = self._encode(pixels, mask_HW, box_xyxy)
        if category not in self._categories:
            self._categories.append(category)
        self._encoded.append((self._categories.index(category), encoded))
        self._shares.setdefault(category, []).append(float(mask_HW.mean()))
        self._labeler = None
        return mask_HW

    def label(self, image: AnyImage) -> ImageDetections:
        """Finds the instances of all categories in an image. Raises ConfigurationError where there is no reference."""
        pixels = _pixels(image)
        if self._labeler is None:
            self._labeler = self._build()
        detections = self._labeler.label(pixels, image_id="").detections
        return ImageDetections(detections, self.categories, (pixels.shape[0], pixels.shape[1]))

    def _mask_and_box(
        self,
        pixels: npt.NDArray[np.uint8],
        mask: npt.ArrayLike | None,
        box: Sequence[float] | None,
        points: Sequence[Sequence[float]] | None,
    ) -> tuple[Masks, npt.NDArray[np.float64]]:
        if sum(given is not None for given in (mask, box, points)) != 1:
            raise ConfigurationError("A reference needs one of mask=, box= and points=.")
        if box is not None:
            box_xyxy = fitted_box(_numbers(box, (4,), "box", "(x1, y1, x2, y2)"), *pixels.shape[:2])
            masks, _ = segment_boxes(self._segmenter, pixels, box_xyxy[None])
            return masks[0], box_xyxy
        if points is not None:
            number = len(points) if hasattr(points, "__len__") else 1
            points_K2 = _numbers(points, (number, 2), "points", "[(x, y), ...]")
            mask_HW, _ = segment_points(self._segmenter, pixels, points_K2)
        else:
            mask_HW = _as_mask(mask)
            check_mask(mask_HW, *pixels.shape[:2])
        return mask_HW, (boxes_of_masks(mask_HW[None])[0] + (0, 0, 1, 1)).astype(np.float64)

    @torch.inference_mode()
    def _encode(
        self, pixels: npt.NDArray[np.uint8], mask_HW: Masks, box_xyxy: npt.NDArray[np.float64]
    ) -> EncodedReference:
        ratio, size = self._reference_settings.context_ratio, self._encoder.architecture.image_size
        crop = crop_reference(pixels, mask_HW, box_xyxy, context_ratio=ratio, size=size)
        (encoded,) = self._encoded_crop(pixels, mask_HW, crop)
        if encoded.foreground_weight == 0:
            raise UnusableReferenceError(
                "The reference's mask is too thin for the encoder's patches. Give a larger or thicker instance."
            )
        return encoded

    def _encoded_crop(self, pixels: npt.NDArray[np.uint8], mask_HW: Masks, crop: Crop) -> list[EncodedReference]:
        encoded = encode_references(self._encoder, [crop])
        if not self._settings.parts.all_views:
            return encoded
        in_image = pool(encode_image(self._encoder, pixels), torch.from_numpy(mask_HW))
        return encode_views(self._encoder, encoded, [crop], [in_image])

    def _build(self) -> BatchLabeler:
        if not self._encoded:
            raise ConfigurationError("There is no reference yet. Add one or more with add_reference.")
        category_ids = [category_id for category_id, _ in self._encoded]
        bank = MemoryBank(
            category_id=np.array(category_ids),
            shot=np.array([category_ids[:row].count(category_id) for row, category_id in enumerate(category_ids)]),
            foreground_weight=np.array([encoded.foreground_weight for _, encoded in self._encoded]),
            feature=np.stack([encoded.feature_C for _, encoded in self._encoded]),
        )
        prototypes = postprocess_memory_bank(bank)
        return BatchLabeler(self._segmenter, self._encoder, prototypes, self._decided(), self._batches)

    def _decided(self) -> LabelingSettings:
        """Returns the settings with areas by the ids of categories, and those that the references decide."""
        id_of = {name: str(index) for index, name in enumerate(self._categories)}
        return self._settings.model_copy(update={"area": self._settings.area.decided(id_of, self._shares)})


def _read(path: str | _Path) -> dict[str, torch.Tensor]:
    if not isinstance(path, str) and not hasattr(path, "__fspath__"):
        raise WeightsError(f"Weights are a file, given by its path; got {brief(path)}.")
    name = path if isinstance(path, str) else path.__fspath__()
    return read_state(name, name=name)


def _labeling_settings(settings: dict[str, Any]) -> LabelingSettings:
    try:
        return LabelingSettings(**settings)
    except ValidationError as error:
        raise ConfigurationError(
            f"Settings of the labeler: {' '.join(problems_of(error, [*LabelingSettings.model_fields]))}"
        ) from error


def _pixels(image: AnyImage) -> npt.NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,) or 0 in image.shape:
        came = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"The image is {came}; expected RGB as uint8 [H, W, 3], or a Pillow image.")
    return image


def _numbers(values: Any, shape: tuple[int, ...], name: str, expected: str) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64).reshape(shape)
    except (TypeError, ValueError) as error:
        raise UnusableReferenceError(
            f"The reference's {name} is {brief(values)}; expected {expected} in pixels."
        ) from error


def _as_mask(mask: npt.ArrayLike | None) -> Masks:
    values = np.asarray(mask)
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise UnusableReferenceError(
            f"The reference's mask holds NaN, infinity or no numbers ({values.dtype}). Give booleans, or numbers that "
            "are 0 outside the instance."
        )
    return np.asarray(values != 0)
