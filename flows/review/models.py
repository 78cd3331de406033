"""The models of a review: those that are named, or else the published ones that made the labels."""

from refseg_core.errors import WeightsError
from refseg_core.models.protocols import Encoder, Segmenter
from refseg_core.models.registry import REGISTRY, Kind, models_of
from tasks.models.loading import load_encoder, load_segmenter
from tasks.models.weights import weights_sha256
from tasks.specs import Models, ModelSettings
from tasks.store.label_store import StoredLabels


class ReviewModels:
    """Loads models when they are asked for."""

    def __init__(self, run: StoredLabels, named: Models | None) -> None:
        self._run, self._named = run, named
        self._device = "auto" if named is None else named.device

    def segmenter(self) -> Segmenter:
        """Returns the segmenter. Raises WeightsError."""
        return load_segmenter(self._of("segmenter"), self._device)

    def encoder(self) -> Encoder:
        """Returns the encoder. Raises WeightsError."""
        return load_encoder(self._of("encoder"), self._device)

    def _of(self, kind: Kind) -> ModelSettings:
        if self._named is not None:
            return self._named.segmenter if kind == "segmenter" else self._named.encoder
        sha256 = self._run.recipe_or_error()["weights"][kind]
        for model in models_of(kind):
            if sha256 == (weights_sha256(model) if REGISTRY[model].is_packaged else REGISTRY[model].sha256):
                return ModelSettings(model=model, weights=None)
        raise WeightsError(
            f"These labels were made with {kind} weights of sha256 {sha256[:12]}, which are not published ones. Start "
            "`refseg review` with the run's file (refseg review run.yaml), which says where they lie."
        )
