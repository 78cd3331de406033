"""Models for many labelers of one image after the other, which compute once what does not depend on references.

That is the image's embedding, features of it and of its crops, and each prompt's masks: almost all the time of an
image. Labels are those of the models themselves. Not for measuring time.
"""

import hashlib
from collections.abc import Callable, Hashable
from typing import Any, cast

import torch
from torch import Tensor

from refseg_core.models.protocols import DecodesPoints, Encoder, ImageEmbedding, Segmenter

_Masks = tuple[Tensor, Tensor]  # logits [n, side, side] and predicted IoU [n]
_ALL_PASS = -1.0  # a threshold of predicted IoU


class SharedModels:
    """A segmenter and an encoder that remember what they made of the current image."""

    def __init__(self, segmenter: Segmenter, encoder: Encoder) -> None:
        self._segmenter, self._encoder = _SharedSegmenter(segmenter), _SharedEncoder(encoder)
        self.segmenter, self.encoder = cast(Segmenter, self._segmenter), cast(Encoder, self._encoder)

    def next_image(self) -> None:
        """Forgets the current image: the next inputs are of another one."""
        self._segmenter.forget()
        self._encoder.forget()

    def take_masks(self) -> list[Tensor]:
        """Returns the masks that prompts on the image gave since the last time, logits [n, G, G] of each call."""
        return [logits for decoder in self._segmenter.decoders for logits in decoder.take_masks()]


class _SharedEmbedding:
    """A function that remembers its first input, an image, and its embedding; other inputs go through."""

    def __init__(self, function: Callable[[Tensor], ImageEmbedding]) -> None:
        self._function = function
        self._known: dict[Hashable, tuple[Tensor, ImageEmbedding]] = {}

    def __call__(self, images_B3SS: Tensor) -> ImageEmbedding:
        precision = _precision(images_B3SS.device)
        if precision not in self._known:
            self._known[precision] = images_B3SS, self._function(images_B3SS)
        known_B3SS, made = self._known[precision]
        return made if torch.equal(known_B3SS, images_B3SS) else self._function(images_B3SS)

    def forget(self) -> None:
        self._known.clear()


def _precision(device: torch.device) -> Hashable:
    """What paths change about how numbers are computed."""
    return torch.is_autocast_enabled(device.type), torch.backends.cuda.matmul.allow_tf32


class _SharedEncoder:
    """An encoder whose features of the current image, and of each crop of it, are computed once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._features: dict[Hashable, Tensor] = {}

    def __call__(self, images_B3EE: Tensor, **options: Any) -> Tensor:
        how = _precision(images_B3EE.device), *options.items(), *images_B3EE.shape[1:]
        keys = [(*how, hashlib.blake2b(image.cpu().numpy().data).digest()) for image in images_B3EE.contiguous()]
        if new := {key: row for row, key in enumerate(keys) if key not in self._features}:
            features_bPC = self._encoder(images_B3EE[list(new.values())], **options)
            self._features.update(zip(new, features_bPC, strict=True))
        return torch.stack([self._features[key] for key in keys])

    def forget(self) -> None:
        self._features.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


class _SharedSegmenter:
    """A segmenter whose embedding of the current image is computed once, and masks, its own and its decoder's."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        # In float32, which labelers ask for: converted by each of them, it would be another embedding for each.
        self.embed = _SharedEmbedding(lambda images: segmenter.embed(images).float())
        own = _SharedDecoder(segmenter)
        self.prompts, self.prepare, self.decode_points = own.prompts, own.prepare, own.decode_points
        self._decoder_of: dict[bool, _SharedDecoder] = {}
        self.decoders = [own]

    def point_decoder(self, *, is_compiled: bool = False) -> "_SharedDecoder":
        """Returns the decoder that all labelers share."""
        if is_compiled not in self._decoder_of:
            decoder = _SharedDecoder(self._segmenter.point_decoder(is_compiled=is_compiled))
            self._decoder_of[is_compiled] = decoder
            self.decoders.append(decoder)
        return self._decoder_of[is_compiled]

    def forget(self) -> None:
        self.embed.forget()
        for decoder in self.decoders:
            decoder.forget()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._segmenter, name)


class _SharedDecoder:
    """A decoder whose prompts are numbers. Each is decoded once for the current image, by whichever of its methods."""

    def __init__(self, decoder: DecodesPoints[Any]) -> None:
        self._decoder = decoder
        self._numbers_of: dict[bytes, Tensor] = {}
        self._prompts_RTW: Tensor | None = None
        self._images: dict[Hashable, _Decoded] = {}
        self._masks_returned: list[Tensor] = []

    def prompts(self, points_N2: Tensor) -> Tensor:
        """Returns the numbers of these points' prompts, int64 [N]; the same points have the same numbers."""
        places = points_N2.cpu().numpy().tobytes()
        if places not in self._numbers_of:
            known = [] if self._prompts_RTW is None else [self._prompts_RTW]
            self._prompts_RTW = torch.cat([*known, self._decoder.prompts(points_N2)])
            last = len(self._prompts_RTW)
            self._numbers_of[places] = torch.arange(last - len(points_N2), last, device=points_N2.device)
        return self._numbers_of[places]

    def prepare(self, embedding: ImageEmbedding) -> "_Decoded":
        """Prepares an embedding once, however often it is asked for."""
        cells = embedding.stride16_BWhw
        key = cells.data_ptr(), _precision(cells.device)
        if key not in self._images:
            self._images[key] = _Decoded(embedding, self._decoder.prepare(embedding))
        return self._images[key]

    def __getattr__(self, name: str) -> Any:
        """Returns a method of the decoder; what it decodes on a prepared image is decoded once for each prompt."""
        method = getattr(self._decoder, name)

        def call(image: Any, number_N: Tensor, **options: Any) -> _Masks:
            if not isinstance(image, _Decoded):
                return cast(_Masks, method(image, number_N, **options))
            return self._masks(name, image, number_N, options)

        return call if callable(method) else method

    def _masks(self, name: str, image: "_Decoded", number_N: Tensor, options: dict[str, Any]) -> _Masks:
        """Returns the masks above the threshold; all are decoded, since another labeler may have another one."""
        is_preview, thresh = "pred_iou_thresh" not in options, options.get("pred_iou_thresh")
        if not is_preview:
            options = options | {"pred_iou_thresh": _ALL_PASS}
        method, prompts_RTW = getattr(self._decoder, name), self._prompts_RTW
        assert prompts_RTW is not None
        what = name, *options.items()
        logits, predicted_iou = image.once(
            what, number_N, lambda number_n: method(image.prepared, prompts_RTW[number_n], **options)
        )
        if thresh is not None:
            kept = torch.nonzero(predicted_iou > thresh)[:, 0]
            logits, predicted_iou = logits[kept], predicted_iou[kept]
        if not is_preview:
            self._masks_returned.append(logits)
        return logits, predicted_iou

    def take_masks(self) -> list[Tensor]:
        taken, self._masks_returned = self._masks_returned, []
        return taken

    def forget(self) -> None:
        self._images.clear()
        self._masks_returned.clear()


class _Decoded:
    """A prepared image and the masks of its prompts so far. Holds the embedding, whose address tells images apart."""

    def __init__(self, embedding: ImageEmbedding, prepared: Any) -> None:
        self._embedding = embedding
        self.prepared = prepared
        self._masks: dict[Hashable, dict[int, _Masks]] = {}

    def once(self, what: Hashable, number_N: Tensor, decode: Callable[[Tensor], _Masks]) -> _Masks:
        """Returns the masks of all prompts, in order, a fixed number of each; decodes those that are new."""
        if len(number_N) == 0:
            return decode(number_N)
        known, numbers = self._masks.setdefault(what, {}), number_N.tolist()
        if new := [number for number in numbers if number not in known]:
            parts = [part.tensor_split(len(new)) for part in decode(number_N.new_tensor(new))]
            known.update(zip(new, zip(*parts, strict=True), strict=True))
        masks = [known[number] for number in numbers]
        return torch.cat([logits for logits, _ in masks]), torch.cat([iou for _, iou in masks])
