"""Every model refseg knows: its dimensions, the module that builds it, and its published weights, in one entry each.

Another model is one file in this folder, a `ModelModule`, and one entry here. Finding and reading weights is in
`tasks/models/weights.py`, downloading in `tasks/models/download.py`. The publisher of the models gives no checksums;
every size and sha256 here is what at least two independent public projects pin for the file at this URL. All published
weights are under the license Apache-2.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from refseg_core.errors import WeightsError, brief
from refseg_core.models.architectures import EncoderArchitecture, SegmenterArchitecture

if TYPE_CHECKING:
    from torch import Tensor

    from refseg_core.models.protocols import Encoder, Segmenter

BASE_URL = "https://dl.fbaipublicfiles.com/"

Kind = Literal["segmenter", "encoder"]


class ModelModule(Protocol):
    """What the module of a model holds. It is imported when a model is built, since torch takes seconds."""

    VERSION: int

    def build(self, architecture: Any, state: "Mapping[str, Tensor] | None", *, model: str) -> Any:
        """Builds the model in evaluation mode, with the parameters of a file or, where None, arbitrary ones."""

    def fits(self, architecture: Any, state: "Mapping[str, Tensor]") -> bool:
        """Returns whether parameters look like those of this architecture."""


@dataclass(frozen=True)
class ModelSpec:
    """A model. `module`: the dotted name of its `ModelModule`.

    `url` is None where the weights come with refseg. `size` (bytes) and `sha256` are None where they are not pinned.
    """

    name: str
    kind: Kind
    module: str
    architecture: Any
    file_name: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def is_packaged(self) -> bool:
        """Whether the weights come with refseg, in `refseg_core/demo/weights/`."""
        return self.url is None

    @property
    def version(self) -> int:
        """The version of what the model computes."""
        return self.code.VERSION

    @property
    def code(self) -> ModelModule:
        """The module of the model."""
        return cast(ModelModule, import_module(self.module))


_SAM2_RELEASES = {"sam2": "072824", "sam2.1": "092824"}
_HIERA_SIZES = {
    "tiny": SegmenterArchitecture(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": SegmenterArchitecture(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base_plus": SegmenterArchitecture(112, 2, (2, 3, 16, 3), (12, 16, 20), position_grid=(14, 14)),
    "large": SegmenterArchitecture(144, 2, (2, 6, 36, 4), (23, 33, 43), window_sizes=(8, 4, 16, 8)),
}
_VIT_SIZES = {
    "s": EncoderArchitecture(384, 12, 6),
    "b": EncoderArchitecture(768, 12, 12),
    "l": EncoderArchitecture(1024, 24, 16),
    "g": EncoderArchitecture(1536, 40, 24, gated_mlp=True),
}


_DEMO_SEGMENTER = SegmenterArchitecture(24, 1, (1, 2, 4, 1), (5,), window_sizes=(8, 4, 8, 4), width=112, image_size=256)
_DEMO_ENCODER = EncoderArchitecture(96, 4, 3, image_size=192, patch_size=8)


def _sam2(name: str, size: int, sha256: str) -> ModelSpec:
    generation, _, width = name.partition("_hiera_")
    file_name = f"{name}.pt"
    url = f"{BASE_URL}segment_anything_2/{_SAM2_RELEASES[generation]}/{file_name}"
    return ModelSpec(name, "segmenter", "refseg_core.models.sam2", _HIERA_SIZES[width], file_name, url, size, sha256)


def _dinov2(name: str, size: int, sha256: str) -> ModelSpec:
    backbone = name.removesuffix("_reg")
    architecture = _VIT_SIZES[backbone.removeprefix("dinov2_vit")[0]]
    file_name = f"{backbone}_pretrain.pth"
    if name.endswith("_reg"):
        architecture, file_name = replace(architecture, num_registers=4), f"{backbone}_reg4_pretrain.pth"
    url = f"{BASE_URL}dinov2/{backbone}/{file_name}"
    return ModelSpec(name, "encoder", "refseg_core.models.dinov2", architecture, file_name, url, size, sha256)


_MODELS = (
    _sam2("sam2_hiera_tiny", 155_906_050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    _sam2("sam2_hiera_small", 184_309_650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    _sam2("sam2_hiera_base_plus", 323_493_298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    _sam2("sam2_hiera_large", 897_952_466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
    _sam2("sam2.1_hiera_tiny", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _sam2("sam2.1_hiera_small", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _sam2("sam2.1_hiera_base_plus", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _sam2("sam2.1_hiera_large", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    _dinov2("dinov2_vits14", 88_283_115, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    _dinov2("dinov2_vitb14", 346_378_731, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    _dinov2("dinov2_vitl14", 1_217_586_395, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
    _dinov2("dinov2_vitg14", 4_546_108_579, "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3"),
    _dinov2("dinov2_vits14_reg", 88_291_785, "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb"),
    _dinov2("dinov2_vitb14_reg", 346_393_545, "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71"),
    _dinov2("dinov2_vitl14_reg", 1_217_607_321, "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51"),
    _dinov2("dinov2_vitg14_reg", 4_546_140_349, "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283"),
    ModelSpec("sam2_demo", "segmenter", "refseg_core.models.sam2", _DEMO_SEGMENTER, "sam2_demo.pt"),
    ModelSpec("dinov2_demo", "encoder", "refseg_core.models.dinov2", _DEMO_ENCODER, "dinov2_demo.pt"),
)
REGISTRY: dict[str, ModelSpec] = {spec.name: spec for spec in _MODELS}


def models_of(kind: Kind) -> list[str]:
    """Returns the names of all models of a kind."""
    return [spec.name for spec in REGISTRY.values() if spec.kind == kind]


def model_spec(name: str, kind: Kind | None = None) -> ModelSpec:
    """Returns the entry of a model. Raises WeightsError for a name that is not known, or not of that kind."""
    known = list(REGISTRY) if kind is None else models_of(kind)
    if name in known:
        return REGISTRY[name]
    similar = get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(similar)}? " if similar else ""
    raise WeightsError(f"There is no {kind or 'model'} named {brief(name)}. {hint}Known are {', '.join(known)}.")


def build_segmenter(name: str, state: "Mapping[str, Tensor] | None") -> "Segmenter":
    """Builds a segmenter, with any parameters where `state` is None. Raises WeightsError where they do not fit."""
    return cast("Segmenter", _build(model_spec(name, "segmenter"), state))


def build_encoder(name: str, state: "Mapping[str, Tensor] | None") -> "Encoder":
    """Builds an encoder, with any parameters where `state` is None. Raises WeightsError where they do not fit."""
    return cast("Encoder", _build(model_spec(name, "encoder"), state))


def _build(spec: ModelSpec, state: "Mapping[str, Tensor] | None") -> Any:
    return spec.code.build(spec.architecture, state, model=spec.name)


def recognize(kind: Kind, state: "Mapping[str, Tensor]") -> str:
    """Returns the name of the first model of a kind whose parameters look like these. Raises WeightsError for none."""
    for name in models_of(kind):
        if REGISTRY[name].code.fits(REGISTRY[name].architecture, state):
            return name
    raise WeightsError(
        f"These weights are not those of a known {kind}: their parameters, {', '.join(sorted(state)[:3])} and so on, "
        f"fit none of {', '.join(models_of(kind))}. Give the file of one of these."
    )
