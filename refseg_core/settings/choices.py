"""What a configuration chooses by name: annotation formats and evaluation protocols, each one entry here.

The settings, the command line, error messages and the documentation read these entries; none of it is written twice.
An entry names its implementation, which is imported when it is first used, so that reading a configuration and
`--help` stay quick. Not here: export formats (`tasks/outputs/exports/formats.py`) and models
(`refseg_core/models/registry.py`).
"""

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from refseg_core.errors import ConfigurationError, brief


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What can be chosen: its name, what it is in a few words, and its implementation, as 'module:function'."""

    name: str
    help: str
    implementation: str

    def load(self) -> Any:
        """Imports and returns the implementation."""
        module, _, function = self.implementation.partition(":")
        return getattr(importlib.import_module(module), function)


AnyChoice_co = TypeVar("AnyChoice_co", bound=Choice, covariant=True)


class Choices(Generic[AnyChoice_co]):
    """The choices of one kind, by name, in their order; `kind` says in messages what they are."""

    def __init__(self, kind: str, *choices: AnyChoice_co) -> None:
        self.kind = kind
        self._choices = {choice.name: choice for choice in choices}

    def __getitem__(self, name: str) -> AnyChoice_co:
        """Returns a choice. Raises ConfigurationError naming all if there is none of this name."""
        if name not in self._choices:
            raise ConfigurationError(f"{brief(name)} is not a known {self.kind}: expected one of {', '.join(self)}")
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def values(self) -> Iterable[AnyChoice_co]:
        """Returns the choices themselves."""
        return self._choices.values()

    @property
    def help(self) -> str:
        """Every name with what it is, as the description of a setting lists them."""
        return "; ".join(f"'{choice.name}': {choice.help}" for choice in self._choices.values())


@dataclass(frozen=True, kw_only=True)
class AnnotationFormat(Choice):
    """A format of annotations; `help` says what its files are, `reads` what is read of them.

    `title` names the files in messages, and their names end in `suffix`. `beginning` matches how a file begins, where
    that tells the format. `is_one_file`: whether one file is a dataset, so that the implementation is called with its
    bytes; otherwise each file is about one image, and it is called with the folder of files and the images.
    `is_upright`: whether its tools show pictures turned as people see them, so that shapes are drawn on those.
    """

    title: str
    suffix: str
    reads: str
    beginning: re.Pattern[bytes] | None = None
    is_one_file: bool = False
    is_upright: bool = False


_XML = rb"\A(?:\xef\xbb\xbf)?\s*<"
_CVAT_ROOT = rb".*<annotations[\s/>]"
# COCO's keys can stand far behind, after megabytes of images; labelme's stand at the front or never.
_LABELME_KEYS = rb'\A(?!.*"(?:images|categories|annotations)"\s*:).*"(?:shapes|imagePath|imageData)"\s*:'

ANNOTATION_FORMATS = Choices(
    "annotation format",
    AnnotationFormat(
        name="coco",
        help="one json file",
        implementation="refseg_core.datasets.coco.parser:parse_coco",
        title="COCO json",
        suffix=".json",
        reads="boxes, polygons, run lengths; LVIS files with their lists of absent categories; Roboflow's category 0 "
        "is left out",
        is_one_file=True,
    ),
    AnnotationFormat(
        name="voc",
        help="a folder of XML files",
        implementation="refseg_core.datasets.pascal_voc:read_voc",
        title="PASCAL VOC XML",
        suffix=".xml",
        reads="boxes, counted from pixel 1; Roboflow's polygons; `difficult` objects count as crowds",
        beginning=re.compile(_XML + rb"(?!" + _CVAT_ROOT + rb")(?!annotations[\s/>])", re.DOTALL),
    ),
    AnnotationFormat(
        name="yolo",
        help="a folder of .txt files",
        implementation="refseg_core.datasets.yolo.reader:read_yolo",
        title="YOLO text files",
        suffix=".txt",
        reads="boxes, polygons, oriented boxes, the boxes of tracks and of keypoints (`kpt_shape`); names from "
        "`data.yaml`, `classes.txt` or `obj.names` in the folder or above it; an image without a file has no instances",
        is_upright=True,
    ),
    AnnotationFormat(
        name="labelme",
        help="a folder of json files",
        implementation="refseg_core.datasets.labelme:read_labelme",
        title="labelme json",
        suffix=".json",
        reads="polygons, circles, oriented rectangles, masks; rectangles of two or four points as boxes; "
        "X-AnyLabeling's `rotation`; shapes with the same `group_id` are one instance",
        beginning=re.compile(_LABELME_KEYS, re.DOTALL),
        is_upright=True,
    ),
    AnnotationFormat(
        name="cvat",
        help='one XML file, "CVAT for images 1.1"',
        implementation="refseg_core.datasets.cvat:read_cvat",
        title="CVAT XML",
        suffix=".xml",
        reads="boxes, rotated boxes as polygons, polygons, ellipses, masks; shapes with the same `group_id` are one "
        "instance",
        beginning=re.compile(_XML + rb"(?:" + _CVAT_ROOT + rb"|annotations[\s/>])", re.DOTALL),
        is_one_file=True,
        is_upright=True,
    ),
    AnnotationFormat(
        name="masks",
        help="a folder of PNG files",
        implementation="refseg_core.datasets.mask_images:read_masks",
        title="masks",
        suffix=".png",
        reads="`<category>/<image>.png` or `<category>/<image>/<n>.png`, where nonzero pixels are an instance; or "
        "`<image>.png`, a map whose values are categories (0 is background, 255 is void), or their colors by CVAT's "
        "`labelmap.txt`; shapes in the transparency, and values near 0 and 255, are understood",
    ),
)


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol(Choice):
    """How labels are compared with ground truth; `how` ends the sentence 'labels are compared ...'.

    `of_pixels`: whether pixels are compared, and not instances. `needs_federated_labels`: whether it counts by LVIS's
    lists of categories that images are known to be annotated for.
    """

    how: str
    of_pixels: bool = False
    needs_federated_labels: bool = False


PROTOCOLS = Choices(
    "evaluation protocol",
    EvaluationProtocol(
        name="coco",
        help="AP of boxes and masks",
        implementation="refseg_core.evaluation.protocols:by_coco",
        how="by COCO's protocol",
    ),
    EvaluationProtocol(
        name="lvis",
        help="the same as LVIS counts it (its best 300 instances per image, only where a category is known to be "
        "annotated or absent), which needs LVIS's own annotation file",
        implementation="refseg_core.evaluation.protocols:by_lvis",
        how="by LVIS's protocol",
        needs_federated_labels=True,
    ),
    EvaluationProtocol(
        name="voc",
        help="as 'coco', with PASCAL VOC's own AP at an IoU of 0.5",
        implementation="refseg_core.evaluation.protocols:by_voc",
        how="by COCO's protocol, with PASCAL VOC's AP added",
    ),
    EvaluationProtocol(
        name="semantic",
        help="IoU of the categories' pixels (COCO-20i)",
        implementation="refseg_core.evaluation.protocols:by_semantic",
        how="pixel by pixel",
        of_pixels=True,
    ),
)
