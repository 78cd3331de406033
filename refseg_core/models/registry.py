"""The published weights refseg knows: where the official files lie, how large they are and what their sha256 is.

Only the table: finding, checking and loading are in `tasks/models/weights.py`, downloading in
`tasks/models/download.py`, the models' dimensions in `architectures.py`. Their publisher gives no checksums; every size
and sha256 here is what at least two independent public projects pin for the file at this URL.
"""

from difflib import get_close_matches
from typing import Literal, NamedTuple

from refseg_core.errors import WeightsError

BASE_URL = "https://dl.fbaipublicfiles.com/"

Kind = Literal["segmenter", "encoder"]


class PublishedWeights(NamedTuple):
    """The official weights of one model.

    `url` is None for the demo's toy models, whose files come with refseg. `size` (bytes) and `sha256` are None where
    nobody pins them.
    """

    model: str
    kind: Kind
    file_name: str
    url: str | None
    size: int | None
    sha256: str | None
    license: str = "Apache-2.0"

    @property
    def is_packaged(self) -> bool:
        """Whether the file comes with refseg, in `refseg_core/demo/weights/`."""
        return self.url is None


_SAM2_FILES = {
    "072824/sam2_hiera_tiny.pt": (
        155_906_050,
        "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
    ),
    "072824/sam2_hiera_small.pt": (
        184_309_650,
        "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
    ),
    "072824/sam2_hiera_base_plus.pt": (
        323_493_298,
        "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
    ),
    "072824/sam2_hiera_large.pt": (
        897_952_466,
        "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
    ),
    "092824/sam2.1_hiera_tiny.pt": (
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    "092824/sam2.1_hiera_small.pt": (
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    "092824/sam2.1_hiera_base_plus.pt": (
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    "092824/sam2.1_hiera_large.pt": (
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
}

_DINOV2_FILES = {
    "dinov2_vits14": (
        88_283_115,
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    "dinov2_vitb14": (
        346_378_731,
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    "dinov2_vitl14": (
        1_217_586_395,
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    ),
    "dinov2_vitg14": (
        4_546_108_579,
        "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
    ),
    "dinov2_vits14_reg": (
        88_291_785,
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    ),
    "dinov2_vitb14_reg": (
        346_393_545,
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    ),
    "dinov2_vitl14_reg": (
        1_217_607_321,
        "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
    ),
    "dinov2_vitg14_reg": (
        4_546_140_349,
        "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283",
    ),
}


def _sam2(path: str, size: int, sha256: str) -> PublishedWeights:
    file_name = path.rpartition("/")[2]
    url = f"{BASE_URL}segment_anything_2/{path}"
    return PublishedWeights(file_name.removesuffix(".pt"), "segmenter", file_name, url, size, sha256)


def _dinov2(model: str, size: int, sha256: str) -> PublishedWeights:
    backbone = model.removesuffix("_reg")
    file_name = f"{backbone}_reg4_pretrain.pth" if model.endswith("_reg") else f"{backbone}_pretrain.pth"
    url = f"{BASE_URL}dinov2/{backbone}/{file_name}"
    return PublishedWeights(model, "encoder", file_name, url, size, sha256)


def _demo(model: str, kind: Kind) -> PublishedWeights:
    return PublishedWeights(model, kind, f"{model}.pt", url=None, size=None, sha256=None)


REGISTRY: dict[str, PublishedWeights] = {
    weights.model: weights
    for weights in (
        *(_sam2(path, *pinned) for path, pinned in _SAM2_FILES.items()),
        *(_dinov2(model, *pinned) for model, pinned in _DINOV2_FILES.items()),
        _demo("sam2_demo", "segmenter"),
        _demo("dinov2_demo", "encoder"),
    )
}


def published_weights(model: str) -> PublishedWeights:
    """The weights of a model. Raises WeightsError for a name that is not known."""
    if model in REGISTRY:
        return REGISTRY[model]
    similar = get_close_matches(model, REGISTRY, n=3)
    hint = f"Did you mean {' or '.join(similar)}? " if similar else ""
    raise WeightsError(f"There is no model named {model!r}. {hint}Known are {', '.join(REGISTRY)}.")
