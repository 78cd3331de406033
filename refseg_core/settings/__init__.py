"""The settings of the method's steps, with the paper's numbers as defaults, each written once.

Frozen pydantic models: every field has a description and bounds, from which the command line, the configuration
file and the form in the Prefect UI are drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from refseg_core.settings import areas, labeling_methods
from refseg_core.settings.choices import ANNOTATION_FORMATS, PROTOCOLS
from refseg_core.settings.labeling_methods import LABELING_METHODS, MethodParts
from refseg_core.settings.labeling_paths import DESCRIPTION, LABELING_PATHS, current_name
from refseg_core.settings.splits import SPLIT_NAMES

Conventions = Literal["corrected", "original"]
Purpose = Literal["run", "trial", "pilot", "study"]
"""What labels were asked for: those of a run are taken where nobody names others."""
PathName = Annotated[
    str, BeforeValidator(current_name), WithJsonSchema({"type": "string", "enum": list(LABELING_PATHS)})
]
if TYPE_CHECKING:
    FormatName = str
    ProtocolName = str
    MethodName = str
else:  # to pydantic they are the registered names, so that forms offer them and errors list them
    FormatName = Literal[("auto", *ANNOTATION_FORMATS)]
    ProtocolName = Literal[("auto", *PROTOCOLS)]
    MethodName = Literal[tuple(LABELING_METHODS)]

BoxForm = Literal["auto", "xywh", "xyxy", "mask"]
"""How references' boxes are taken; 'auto': as the format has them, and refused where masks or images say otherwise."""

PART_NAMES = tuple(part.name for part in fields(MethodParts))
"""Names of the settings that are parts of a method."""


class Settings(BaseModel):
    """The base of every settings model: frozen, no unknown keys, and true is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes true for 1."""
        if isinstance(value, bool) and _takes_numbers(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("is_boolean", "Input should be a number")
        return value


def _takes_numbers(annotation: Any) -> bool:
    kinds = get_args(annotation) if get_origin(annotation) in (Annotated, Union, UnionType) else ()
    return annotation in (int, float) or (bool not in kinds and any(map(_takes_numbers, kinds)))


class SamplingSettings(Settings):
    """How references are sampled from the annotations. Method, section 1."""

    split: str | None = Field(
        None,
        description="Named set of categories of a published benchmark, or null for all: "
        + ", ".join(SPLIT_NAMES)
        + ".",
    )
    categories: tuple[str, ...] | None = Field(
        None, description="Names of the categories to label; null for all (or those of the split)."
    )
    selection: Literal["sampled", "all"] = Field(
        "sampled",
        description="'sampled' draws num_shots references of each category by seed; 'all' takes every annotation but "
        "crowds, however many a category has: for files that hold the references only, such as CD-FSOD's k-shot "
        "files. With 'all' the seed plays no role, nor does num_shots unless conventions is 'original': then "
        "categories are filled up to num_shots with copies, and more is an error.",
    )
    num_shots: int = Field(1, ge=1, le=1000, description="References per category.")
    seed: int = Field(33, ge=0, description="Seed of the sampling; the published COCO few-shot runs use 33.")
    on_shortage: Literal["error", "fewer", "repeat"] = Field(
        "error",
        description="Where a category has fewer valid annotations than num_shots: 'error' stops; 'fewer' takes "
        "what there is and leaves out categories with none; 'repeat' falls back to invalid annotations and "
        "repeats them (as published for LVIS). With selection 'all', 'fewer' and 'repeat' leave out categories "
        "without annotations.",
    )


class ReferenceSettings(Settings):
    """How a reference is cut out of its image. Method, section 3.2."""

    context_ratio: float = Field(
        0.2, ge=0, le=4, description="How much larger than the box's longer side the square crop is."
    )


class AreaSettings(Settings):
    """Which areas instances may have. Not a part of the published method."""

    min: Annotated[str | None, BeforeValidator(areas.as_bound)] = Field(
        None,
        description="The least area of an instance: pixels, as 100, or a share of its image, as 0.1%; of some "
        "categories by name: window=0.1%,door=400; both: 100,window=0.1%. 'auto': the share of its image that the "
        "category's smallest reference has, divided by margin. null: any.",
    )
    max: Annotated[str | None, BeforeValidator(areas.as_bound)] = Field(
        None,
        description="The most area of an instance, written as min. 'auto': the share of its image that the category's "
        "largest reference has, multiplied by margin. null: any.",
    )
    margin: float = Field(
        4, ge=1, le=1000, description="For 'auto': how many times smaller or larger than references instances may be."
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if (reason := areas.why_none_fits(self.min, self.max)) is not None:
            raise ValueError(reason)
        return self

    @property
    def is_off(self) -> bool:
        """Whether instances of any area are labels."""
        return self.min is None and self.max is None

    def decided(self, key_of: Mapping[str, str], shares_of: Mapping[str, Sequence[float]]) -> Self:
        """Returns the limits with keys in the place of names, and areas in the place of 'auto'.

        `key_of`: the categories' keys by name; `shares_of`: how much of their images the references of each cover.
        Raises ConfigurationError for names that are not among them.
        """
        least_of = {name: areas.least_of_references(shares, self.margin) for name, shares in shares_of.items()}
        most_of = {name: areas.most_of_references(shares, self.margin) for name, shares in shares_of.items()}
        return type(self)(min=areas.decide(self.min, key_of, least_of), max=areas.decide(self.max, key_of, most_of))


class LabelingSettings(Settings):
    """How an image is labeled. Method, section 6. Everything here changes the labels."""

    method: MethodName = Field(
        "accurate",
        description=f"What is computed. {labeling_methods.DESCRIPTION}. Where only a path is given, 'published'. "
        "`refseg bench accuracy` compares them.",
    )
    path: PathName = Field(
        "guided",
        description=f"How labels are computed. {DESCRIPTION}. Where only the published method is given, 'exact'. "
        "`refseg bench` compares them.",
    )
    points_per_side: int = Field(
        32, ge=1, le=256, description="Points along one side of the grid of prompts; 32 makes 1024 prompts."
    )
    guidance_thresh: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] | None = Field(
        "auto",
        description="For the path 'guided': points are prompted where the cosine of the image's features with any "
        "prototype exceeds this; null: everywhere. Lower: more prompts. 'auto': between 0.15 and 0.30, chosen by the "
        "references (0.20 in the library). With DINOv2 S and few categories small objects are lost at 0.25.",
    )
    pred_iou_thresh: float = Field(
        0.4, ge=0, le=1, description="Proposals need a predicted IoU above this. Lower: more, worse masks."
    )
    box_nms_thresh: float = Field(
        0.5, ge=0, le=1, description="Box IoU above which the worse of two masks of one category is dropped."
    )
    max_detections: int = Field(100, ge=1, le=10_000, description="Instances kept per image, by score.")
    candidates_per_detection: int = Field(
        8, ge=1, le=100, description="Masks that go into merging, as a multiple of max_detections."
    )
    all_views: bool | None = Field(
        None,
        description="Whether references are encoded in a large crop, in a small one and in the whole image, not only "
        "in the large crop; null: as the method.",
    )
    all_masks: bool | None = Field(
        None,
        description="Whether all three masks of a prompt are candidates, not only the best; null: as the method.",
    )
    similarity_exponent: float | None = Field(
        None,
        ge=0,
        le=4,
        description="Of two masks of one category whose boxes overlap, that of the lower predicted IoU * similarity ** "
        "this is dropped; null: as the method.",
    )
    quality_in_score: bool | None = Field(
        None,
        description="Whether the score is the geometric mean of similarity and predicted IoU; null: as the method.",
    )
    max_second_looks: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="How many candidates of an image, the best, are encoded again in a crop of their own; null: as the "
        "method.",
    )
    part_penalty: float | None = Field(
        None,
        ge=0,
        le=2,
        description="How much of the likeness of what surrounds a mask, in its second look, is taken off its "
        "similarity: a part of an object has the rest around it; null: as the method.",
    )
    max_refined_masks: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="How many masks of an image, the best, are decoded again from their box; null: as the method.",
    )
    keep_proposals: bool | None = Field(
        None,
        description="Whether the store keeps what the models make of each image: features, masks, crops. Then other "
        "references, categories, negatives, thresholds or merging label the same images without asking them again. "
        "Never changes labels. Megabytes an image; on the paths 'guided' and 'exact'. null: in pilots only.",
    )
    area: AreaSettings = Field(
        AreaSettings(),
        description="Which areas instances may have: a mask outside of these is left out before it can lower the score "
        "of another.",
    )
    min_island: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Islands of fewer pixels than this are removed from masks, except a mask's largest; 0: none.",
    )
    min_hole: int = Field(
        0, ge=0, le=1_000_000_000, description="Holes of fewer pixels than this are filled in masks; 0: none."
    )
    max_image_pixels: int = Field(
        100_000_000,
        ge=1,
        description="Images with more pixels than this are not decoded but reported as unreadable.",
    )

    @property
    def parts(self) -> MethodParts:
        """What is done beyond the published method: as set, else as the method has it."""
        set_here = {name: getattr(self, name) for name in PART_NAMES if getattr(self, name) is not None}
        return replace(LABELING_METHODS[self.method].parts, **set_here)

    def choosing(self, **chosen: Any) -> Self:
        """Returns the settings with another method, path and parts: those given, and what follows from them.

        Raises ValidationError.
        """
        return self.model_validate(self.model_dump(exclude={"method", "path", *PART_NAMES}) | chosen)

    def published_on(self, path: str) -> Self:
        """Returns the published method on a path, with the other settings as they are."""
        return self.choosing(path=path)

    @property
    def is_by_default(self) -> bool:
        """Whether neither a method nor a path was given."""
        return not {"method", "path"} & self.model_fields_set

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Completes a path or a method that is given alone, so that what was once configured stays what it was."""
        if isinstance(given, dict) and "path" in given and "method" not in given:
            return given | {"method": "published"}
        if isinstance(given, dict) and given.get("method") == "published" and "path" not in given:
            return given | {"path": "exact"}
        return given

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        path = LABELING_PATHS[self.path]
        if self.keep_proposals and not path.is_for_all_methods:
            able = [name for name, other in LABELING_PATHS.items() if other.is_for_all_methods]
            raise ValueError(f"keep_proposals: the path {self.path!r} keeps none; take the path {' or '.join(able)}")
        if self.parts != labeling_methods.PUBLISHED and not path.is_for_all_methods:
            able = [name for name, other in LABELING_PATHS.items() if other.is_for_all_methods]
            own = ", ".join(name for name in PART_NAMES if getattr(self, name) is not None)
            raise ValueError(
                f"the path {self.path!r} has the published method only, got method {self.method!r}"
                f"{f' with {own}' if own else ''}; take the path {' or '.join(able)}, or the method 'published'"
                f"{' without these' if own else ''}"
            )
        return self


class BatchSettings(Settings):
    """How the work is divided. Nothing here changes the labels, except for rounding."""

    points_per_batch: int = Field(64, ge=1, le=65_536, description="Prompts decoded at once; more need more memory.")
    images_per_batch: int | None = Field(
        None, ge=1, le=1024, description="Images that go through both encoders at once; null: 1 on a CPU, 8 on a GPU."
    )
    max_memory: str | None = Field(
        None,
        pattern=r"^\s*\d+(\.\d+)?\s*[MG]B\s*$",
        description="Memory to stay below, as 4GB or 900MB: the GPU's where there is one, else the process's. Batches "
        "become as small as that takes. null: as above, which fits a GPU of 8 GB with SAM2 large and DINOv2 L, and "
        "4 GB of memory with small models.",
    )
    compiled: bool = Field(
        False,
        description="Whether the path 'fast' compiles its encoders and previews for this machine: a "
        "minute or two when it begins, less once it did. For GPUs; on CPUs it gains little.",
    )
    images_per_shard: int = Field(64, ge=1, le=100_000, description="Images per shard, the unit of retry and resume.")

    @property
    def max_memory_bytes(self) -> int | None:
        """The limit in bytes."""
        if self.max_memory is None:
            return None
        number, unit = self.max_memory.strip()[:-2], self.max_memory.strip()[-2:]
        return int(float(number) * {"MB": 1e6, "GB": 1e9}[unit])


class EvaluationSettings(Settings):
    """How labels are compared with ground truth. Method, section 7."""

    protocol: ProtocolName = Field(
        "auto",
        description=f"{PROTOCOLS.help}; 'auto': 'lvis' if the annotation file has what it needs, else 'coco'.",
    )
    semantic_score_thresh: float = Field(
        0.5, ge=0, le=1, description="For 'semantic': only instances of at least this score are painted."
    )
    score_threshes: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.3, 0.5, 0.7),
        min_length=1,
        max_length=10,
        description="Scores at which precision, recall and confusions are reported, at an IoU of 0.5.",
    )

    exclude_references: bool = Field(
        False,
        description="Whether images that references lie in are left out of the evaluation: of these, labels are better "
        "than of others. They are named in any case.",
    )

    @property
    def sorted_score_threshes(self) -> list[float]:
        """The scores, ascending, each once; to four decimals, as metrics are named by them."""
        return sorted({round(thresh, 4) for thresh in self.score_threshes})
