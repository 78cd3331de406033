"""The method, pure: no URIs, clock or orchestrator, and no files but weights. Its public names, imported at first use.

from refseg_core import Labeler

labeler = Labeler.from_weights(segmenter="sam2_hiera_tiny.pt", encoder="dinov2_vits14_pretrain.pth")
labeler.add_reference(image, "boat", mask=mask)  # or box=(x1, y1, x2, y2), or points=[(x, y), ...]
detections = labeler.label(other_image)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refseg_core.errors import (
        ConfigurationError,
        DatasetError,
        ImageError,
        RefsegError,
        UnusableReferenceError,
        WeightsError,
    )
    from refseg_core.labeling.image_detections import ImageDetections
    from refseg_core.labeling.labeler import Labeler
    from refseg_core.models.registry import REGISTRY, ModelSpec
    from refseg_core.settings import BatchSettings, LabelingSettings, ReferenceSettings
    from refseg_core.tables import Detections, MemoryBank, Prototypes

__all__ = [
    "REGISTRY",
    "BatchSettings",
    "ConfigurationError",
    "DatasetError",
    "Detections",
    "ImageDetections",
    "ImageError",
    "Labeler",
    "LabelingSettings",
    "MemoryBank",
    "ModelSpec",
    "Prototypes",
    "ReferenceSettings",
    "RefsegError",
    "UnusableReferenceError",
    "WeightsError",
]
_MODULES = {
    "ImageDetections": "labeling.image_detections",
    "Labeler": "labeling.labeler",
    **dict.fromkeys(("REGISTRY", "ModelSpec"), "models.registry"),
    **dict.fromkeys(("BatchSettings", "LabelingSettings", "ReferenceSettings"), "settings"),
    **dict.fromkeys(("Detections", "MemoryBank", "Prototypes"), "tables"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use, since torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    return value


def __dir__() -> list[str]:
    """The public names, whether they were used or not."""
    return sorted({*globals(), *__all__})
