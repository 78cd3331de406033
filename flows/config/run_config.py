"""The configuration of a run: its keys, and the checks of several keys together.

The keys are stable; people script against them. Every key's meaning, bounds and default are in the models here and in
`refseg_core/settings/`; the file, the flags and the form in the Prefect UI are generated from them.
"""

import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator
from pydantic.fields import FieldInfo

from refseg_core.errors import ConfigurationError, brief, counted, did_you_mean
from refseg_core.models.registry import Kind, models_of
from refseg_core.settings import (
    BatchSettings,
    BoxForm,
    Conventions,
    EvaluationSettings,
    FormatName,
    LabelingSettings,
    Purpose,
    ReferenceSettings,
    SamplingSettings,
    Settings,
)
from refseg_core.settings.choices import ANNOTATION_FORMATS
from refseg_core.settings.labeling_methods import PUBLISHED
from refseg_core.settings.splits import NOVEL_SPLITS
from tasks.specs import DatasetSource, LabelSpec, Models, ModelSettings
from tasks.storage.uris import holds_credentials

DatasetId = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""An id as a dataset writes it, number or text."""

White = Annotated[
    int | None,
    Field(
        ge=1,
        le=65535,
        description="The value of 16-bit grayscale images that is white, such as 4095 for 12 bits; null: by the "
        "largest value of some of them.",
    ),
]
"""What references and targets say of their 16-bit images."""

_FORMAT = f"The annotations' format; {ANNOTATION_FORMATS.help}; 'auto' detects it and says which it is."


class SegmenterConfig(ModelSettings):
    """SAM2, which proposes masks."""

    model: str = Field("sam2_hiera_large", description="Name of the model; `refseg weights list` shows all.")


class EncoderConfig(ModelSettings):
    """DINOv2, which compares masks with references."""

    model: str = Field("dinov2_vitl14", description="Name of the model; `refseg weights list` shows all.")


class ReferencesConfig(Settings):
    """The annotated examples."""

    images: str = Field(description="Folder or prefix of the reference images: a path or any fsspec URI.")
    annotations: str | None = Field(
        description="Their annotations, with masks or with boxes only: a file or a folder in any of the formats. null: "
        "references are only those that `refseg bank CONFIG --add` adds."
    )
    format: FormatName = Field("auto", description=_FORMAT)
    white: White = None
    boxes: BoxForm = Field(
        "auto",
        description="How boxes are written: 'xywh' (x, y, width, height), 'xyxy' (two corners), 'mask': taken from the "
        "masks where there are some; 'auto': as the format has it, but refused where masks or images contradict it.",
    )
    annotation_ids: tuple[DatasetId, ...] | None = Field(
        None, description="Exactly these annotations; null: sampling decides."
    )
    negatives: tuple[str, ...] = Field(
        (),
        description="Names of categories that show what is not to be labeled, though it resembles what is. They have "
        "references as the others do; a mask that resembles one of them more than its category is left out.",
    )
    background: Literal["auto"] | None = Field(
        None,
        description="'auto': what the reference images show outside of all annotations is not to be labeled either. It "
        "is grouped into some prototypes, of which those are left out that resemble references; the annotations of "
        "these images should be complete. null: off.",
    )
    sampling: SamplingSettings = Field(SamplingSettings(), description="How references are sampled.")
    crop: ReferenceSettings = Field(ReferenceSettings(), description="How references are cut out.")

    @property
    def source(self) -> DatasetSource:
        """The references as a dataset to index."""
        return DatasetSource(
            images=self.images, annotations=self.annotations, format=self.format, boxes=self.boxes, white=self.white
        )

    @property
    def are_sampled(self) -> bool:
        """Whether a seed draws them, so that there are other sets of them."""
        return self.named_ids is None and self.sampling.selection == "sampled"

    @property
    def named_ids(self) -> tuple[str, ...] | None:
        """The annotations that are references, None where sampling decides. Without annotations there are none."""
        return () if self.annotations is None else self.annotation_ids

    @property
    def are_novel(self) -> bool:
        """Whether the categories are all the novel categories of a benchmark."""
        sampling = self.sampling
        is_chosen = self.annotation_ids is not None or sampling.categories is not None
        return sampling.split in NOVEL_SPLITS and not is_chosen


class TargetsConfig(Settings):
    """The images to label."""

    images: str = Field(description="Folder or prefix of the images to label: a path or any fsspec URI.")
    annotations: str | None = Field(
        None,
        description="Optional annotations, as those of the references: they give the list of images, and ground truth "
        "for the evaluation.",
    )
    format: FormatName = Field("auto", description=_FORMAT)
    white: White = None
    masks_from: str | None = Field(
        None,
        description="Optional second COCO json, from which annotations without a mask take that of their id (LVIS "
        "minival, from the whole validation set); null: their box is all there is.",
    )
    image_ids: tuple[DatasetId, ...] | None = Field(None, description="Only these images; null: all.")
    limit: int | None = Field(
        None,
        ge=1,
        description="Only the first so many images, to try something out: labels of the purpose 'trial'. null: all.",
    )

    @property
    def are_all(self) -> bool:
        """Whether no image is left out."""
        return self.image_ids is None and self.limit is None

    @property
    def source(self) -> DatasetSource:
        """The targets as a dataset to index."""
        return DatasetSource(
            images=self.images,
            annotations=self.annotations,
            format=self.format,
            masks_from=self.masks_from,
            white=self.white,
            image_ids=self.image_ids,
            limit=self.limit,
            with_versions=True,
        )


class ExecutionConfig(Settings):
    """Where images are labeled. Nothing here changes the labels."""

    engine: Literal["process", "workers", "dask"] = Field(
        "process",
        description="'process': the process of the run itself; 'workers': GPU workers of the Prefect server, to whom "
        "shards are given in groups; 'dask': a Dask cluster whose workers have the resource GPU.",
    )
    minutes_per_group: float = Field(
        20,
        ge=0.1,
        le=1440,
        description="For 'workers': about how long one works on a group of shards; each group loads the models once.",
    )
    lost_after_seconds: float = Field(
        120,
        ge=30,
        le=3600,
        description="For 'workers': how long a group may give no sign of life before another worker takes it over.",
    )
    start_within_seconds: float = Field(
        300,
        ge=30,
        le=7200,
        description="For 'workers': how long a worker may take to start a group, a cold disk or the pull of an image "
        "included, before another worker takes it over.",
    )
    attempts: int = Field(
        3, ge=1, le=100, description="For 'workers': how often a shard is tried that no worker completes."
    )
    dask_address: str | None = Field(
        None,
        description="For 'dask': the scheduler, as tcp://host:8786; null: a cluster of this machine, one GPU each.",
    )


class RunConfig(Settings):
    """A labeling run: what to look for, where, with which models."""

    store: str = Field(description="Folder or prefix for everything that is made: a path or any fsspec URI.")
    references: ReferencesConfig = Field(description="The annotated examples.")
    targets: TargetsConfig = Field(description="The images to label.")
    segmenter: SegmenterConfig = Field(SegmenterConfig(), description="SAM2, which proposes masks.")
    encoder: EncoderConfig = Field(EncoderConfig(), description="DINOv2, which compares masks with references.")
    labeling: LabelingSettings = Field(LabelingSettings(), description="How images are labeled.")
    batches: BatchSettings = Field(BatchSettings(), description="How the work is cut up; never changes labels.")
    evaluation: EvaluationSettings = Field(
        EvaluationSettings(), description="How labels are compared with ground truth."
    )
    conventions: Conventions = Field(
        "corrected",
        description="'original' repeats the published code's conversions and conventions, for comparison with "
        "published numbers: detections' boxes are one pixel small and their area is that of the box; masks made from "
        "boxes of references lose their holes and a pixel to the right and below; with references.sampling.selection "
        "'all', several instances in one image become copies of the first; LVIS is evaluated as COCO; the semantic "
        "mean is over five of twenty categories; targets.masks_from is looked up by position. Labels are those of the "
        "published method.",
    )
    purpose: Purpose = Field(
        "run",
        description="What the labels are for; never changes them. Where the store holds labels of a 'run', commands "
        "such as export and show take others only with --labels.",
    )
    device: str = Field("auto", description="'auto', 'cpu', 'cuda' or 'cuda:1'.")
    pictures: str | None = Field(None, description="Folder or prefix for a picture of every labeled image; null: none.")
    execution: ExecutionConfig = Field(ExecutionConfig(), description="Where images are labeled; never changes labels.")

    @model_validator(mode="before")
    @classmethod
    def _pin_method(cls, given: Any) -> Any:
        """Takes the published method for the original conventions, where neither method nor path is given."""
        labeling = given.get("labeling") or {} if isinstance(given, dict) else None
        if (
            isinstance(labeling, dict)
            and given.get("conventions") == "original"
            and not {"method", "path"} & {*labeling}
        ):
            return given | {"labeling": labeling | {"method": "published"}}
        return given

    @property
    def models(self) -> Models:
        """The models, and where they run."""
        return Models(segmenter=self.segmenter, encoder=self.encoder, device=self.device)

    @property
    def request(self) -> Purpose:
        """What the labels are noted to be for."""
        return "trial" if self.purpose == "run" and self.targets.limit is not None else self.purpose

    @property
    def label_spec(self) -> LabelSpec:
        """Which images are labeled, with what, and how."""
        return LabelSpec(
            **dict(self.models),
            images=self.targets.images,
            labeling=self.labeling,
            batches=self.batches,
            pictures=self.pictures,
        )

    def for_service(self) -> dict[str, Any]:
        """Returns the parameter of a deployment's run: GPU workers label, unless a Dask cluster is configured."""
        engine = "dask" if self.execution.engine == "dask" else "workers"
        execution = self.execution.model_copy(update={"engine": engine})
        return self.model_copy(update={"execution": execution}).model_dump(mode="json")


PATHS = (
    "store",
    "pictures",
    "references.images",
    "references.annotations",
    "targets.images",
    "targets.annotations",
    "targets.masks_from",
    "segmenter.weights",
    "encoder.weights",
)
"""Keys whose values are places."""


@dataclass(frozen=True)
class Key:
    """A leaf of the configuration: its dotted name and its pydantic field."""

    name: str
    field: FieldInfo

    @property
    def is_list(self) -> bool:
        """Whether its value is a list."""
        return any(typing.get_origin(part) is tuple for part in _alternatives(self.field.annotation))

    @property
    def is_text(self) -> bool:
        """Whether its value is text, to be taken literally."""
        return str in _alternatives(self.field.annotation)


def keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Key]:
    """Yields every leaf of the configuration, in the order of the file."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield Key(prefix + name, field)
        else:
            yield from keys(section, f"{prefix}{name}.")


def check_config(config: RunConfig, *, source: str) -> None:
    """Checks several keys together. Raises ConfigurationError naming all problems."""
    problems = [*_unknown_models(config), *_unfit_method(config), *_unfit_places(config)]
    if problems:
        raise ConfigurationError(all_of(problems, source))


def all_of(problems: Sequence[str], source: str) -> str:
    """Returns all problems of a configuration as one message, of a line for each."""
    return "\n".join([f"{source}: {counted(len(problems), 'error')}:", *(f"  {problem}" for problem in problems)])


def _unknown_models(config: RunConfig) -> Iterator[str]:
    for kind in typing.get_args(Kind):
        model, known = getattr(config, kind).model, models_of(kind)
        if model not in known:
            hint = did_you_mean(model, known)
            yield f"{kind}.model: {brief(model)} is not known; expected one of {', '.join(known)}.{hint}"


def _unfit_method(config: RunConfig) -> Iterator[str]:
    if config.conventions == "original" and config.labeling.parts != PUBLISHED:
        yield (
            f"labeling.method: {config.labeling.method!r} is not the published method, which the conventions "
            "'original' compare with. Set it to 'published', or conventions to 'corrected'."
        )


def _unfit_places(config: RunConfig) -> Iterator[str]:
    """Prefect stores and shows a run's parameters, so no place may contain a password."""
    if config.targets.masks_from is not None and config.targets.annotations is None:
        yield "targets.masks_from: completes targets.annotations, which is null. Set both or neither."
    for name in PATHS:
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if value == "":
            yield f"{name}: is empty. Give a path or URI; '.' is the folder of the configuration file."
        elif isinstance(value, str) and holds_credentials(value):
            yield (
                f"{name}: holds a user or password, or the signature of a signed URL. Give credentials in the "
                "environment, not in the address."
            )


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Returns the model of the keys below a field; None for a leaf."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)
