"""One run in one file: the configuration, its checks, and the commented file that `refseg init` writes.

The keys are stable; people script against them. Every key's meaning, bounds and default stand in the models here and
in `refseg_core/settings.py`; the file, the flags and the form in the Prefect UI are drawn from them.
"""

import difflib
import re
import reprlib
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo

from refseg_core.architectures import ENCODER_ARCHITECTURES, SEGMENTER_ARCHITECTURES
from refseg_core.errors import ConfigurationError
from refseg_core.settings import (
    AnnotationFormat,
    BatchSettings,
    Conventions,
    EvaluationSettings,
    LabelingSettings,
    ReferenceSettings,
    SamplingSettings,
    Settings,
)
from refseg_core.splits import NOVEL_SPLITS
from tasks.addresses import holds_credentials, redact_text
from tasks.sources import DatasetSource, ModelSettings


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


DatasetId = Annotated[str, BeforeValidator(_as_text)]
"""An id as a dataset writes it, number or text."""


_FORMAT = "The annotations' format; 'auto' tells by what lies there, and says what it took it for."


class SegmenterConfig(ModelSettings):
    """SAM2, which proposes masks."""

    model: str = Field("sam2_hiera_large", description="Name of the model; `refseg weights list` shows all.")


class EncoderConfig(ModelSettings):
    """DINOv2, which compares masks with references."""

    model: str = Field("dinov2_vitl14", description="Name of the model; `refseg weights list` shows all.")


class ReferencesConfig(Settings):
    """The annotated examples."""

    images: str = Field(description="Folder or prefix of the reference images: a path or any fsspec URI.")
    annotations: str = Field(
        description="Their annotations, with masks or with boxes only: a COCO json, a CVAT XML file, or a folder of "
        "PASCAL VOC XML files, YOLO .txt files, labelme .json files or mask .png files."
    )
    format: AnnotationFormat = Field("auto", description=_FORMAT)
    annotation_ids: tuple[DatasetId, ...] | None = Field(
        None, description="Exactly these annotations; null: sampling decides."
    )
    sampling: SamplingSettings = Field(SamplingSettings(), description="How references are sampled.")
    crop: ReferenceSettings = Field(ReferenceSettings(), description="How references are cut out.")

    @property
    def source(self) -> DatasetSource:
        """The references as a dataset to index."""
        return DatasetSource(images=self.images, annotations=self.annotations, format=self.format)

    @property
    def are_novel(self) -> bool:
        """Whether the categories are all of those that a benchmark calls novel."""
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
    format: AnnotationFormat = Field("auto", description=_FORMAT)
    masks_from: str | None = Field(
        None,
        description="Optional second COCO json, from which annotations without a mask take that of their id (LVIS "
        "minival, from the whole validation set); null: their box is all there is.",
    )
    image_ids: tuple[DatasetId, ...] | None = Field(None, description="Only these images; null: all.")

    @property
    def source(self) -> DatasetSource:
        """The targets as a dataset to index."""
        return DatasetSource(
            images=self.images,
            annotations=self.annotations,
            format=self.format,
            masks_from=self.masks_from,
            image_ids=self.image_ids,
            with_versions=True,
        )


class ExecutionConfig(Settings):
    """Who labels. Nothing here changes the labels."""

    engine: Literal["process", "workers", "dask"] = Field(
        "process",
        description="'process': the process of the run itself; 'workers': GPU workers of the Prefect server, to whom "
        "shards are handed in groups; 'dask': a Dask cluster whose workers have the resource GPU.",
    )
    minutes_per_group: float = Field(
        20,
        ge=0.1,
        le=1440,
        description="For 'workers': how long one works on a group of shards, about; each group loads the models anew.",
    )
    lost_after_seconds: float = Field(
        120,
        ge=30,
        le=3600,
        description="For 'workers': how long nothing is heard of a group before another worker takes it over.",
    )
    attempts: int = Field(
        3, ge=1, le=100, description="For 'workers': how often a shard is handed out that no worker gets done."
    )
    dask_address: str | None = Field(
        None,
        description="For 'dask': the scheduler, as tcp://host:8786; null: a cluster of this machine, one GPU each.",
    )


class RunConfig(Settings):
    """A labelling run: what to look for, where, with which models."""

    store: str = Field(description="Folder or prefix for everything that is made: a path or any fsspec URI.")
    references: ReferencesConfig = Field(description="The annotated examples.")
    targets: TargetsConfig = Field(description="The images to label.")
    segmenter: SegmenterConfig = Field(SegmenterConfig(), description="SAM2, which proposes masks.")
    encoder: EncoderConfig = Field(EncoderConfig(), description="DINOv2, which compares masks with references.")
    labeling: LabelingSettings = Field(LabelingSettings(), description="How images are labelled.")
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
        "mean is over five of twenty categories; targets.masks_from is looked up by position.",
    )
    device: str = Field("auto", description="'auto', 'cpu', 'cuda' or 'cuda:1'.")
    pictures: str | None = Field(
        None, description="Folder or prefix for a picture of every labelled image; null: none."
    )
    execution: ExecutionConfig = Field(ExecutionConfig(), description="Who labels; never changes labels.")


@dataclass(frozen=True)
class Key:
    """A leaf of the configuration: its dotted name and what pydantic knows of it."""

    name: str
    field: FieldInfo

    @property
    def is_list(self) -> bool:
        """Whether its value is a list."""
        return any(typing.get_origin(part) is tuple for part in _alternatives(self.field.annotation))

    @property
    def is_text(self) -> bool:
        """Whether its value is text, to be taken as it stands."""
        return str in _alternatives(self.field.annotation)


def keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[Key]:
    """Every leaf of the configuration, in the order of the file."""
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is None:
            yield Key(prefix + name, field)
        else:
            yield from keys(section, f"{prefix}{name}.")


def load_config(path: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Reads a configuration file; relative paths in it are relative to its folder. Overrides go by dotted key.

    Raises ConfigurationError naming every wrong key and value at once.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file. `refseg init {path}` writes one to fill in; `refseg demo` needs none."
        ) from None
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
        # PyYAML raises ValueError and AttributeError for dates and numbers that are none.
        raise ConfigurationError(f"{path}: cannot be read as YAML: {_reason(error)}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path}: expected keys such as store, references and targets, got {type(content).__name__}."
        )
    return load_content(content, overrides or {}, source=path, base=file.resolve().parent)


def load_content(content: dict[str, Any], overrides: Mapping[str, Any], *, source: str, base: Path) -> RunConfig:
    """The configuration of a content whose relative paths are relative to `base`; overrides go by dotted key."""
    _resolve_paths(content, base)
    for name, value in overrides.items():
        _override(content, name, value)
    return parse_config(content, source=source)


def _reason(error: Exception) -> str:
    """What is wrong with a file and where, without repeating its lines: they may hold secrets."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    return redact_text(str(error) or type(error).__name__)


def parse_config(content: Mapping[str, Any], *, source: str) -> RunConfig:
    """Checks a configuration. Raises ConfigurationError naming every wrong key and value at once."""
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        listed = "\n".join(f"  {_describe(problem)}" for problem in error.errors())
        raise ConfigurationError(f"{source}: {error.error_count()} wrong:\n{listed}") from None
    check_config(config, source=source)
    return config


def check_config(config: RunConfig, *, source: str) -> None:
    """Checks what no single key can tell. Raises ConfigurationError naming everything that is wrong."""
    problems = [*_unknown_models(config), *_masks_of_nothing(config), *_unfit_places(config)]
    if problems:
        raise ConfigurationError("\n".join([f"{source}: {len(problems)} wrong:", *problems]))


def _unknown_models(config: RunConfig) -> Iterator[str]:
    for name, model, known in (
        ("segmenter.model", config.segmenter.model, SEGMENTER_ARCHITECTURES),
        ("encoder.model", config.encoder.model, ENCODER_ARCHITECTURES),
    ):
        if model not in known:
            yield f"  {name}: {model!r} is not known; expected one of {', '.join(known)}."


def _masks_of_nothing(config: RunConfig) -> Iterator[str]:
    if config.targets.masks_from is not None and config.targets.annotations is None:
        yield "  targets.masks_from: completes targets.annotations, which is null. Set both or neither."


def _unfit_places(config: RunConfig) -> Iterator[str]:
    """Prefect keeps a run's parameters and shows them, so no place may carry a password."""
    for name in _PATHS:
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        if value == "":
            yield f"  {name}: is empty. Give a path or URI; '.' is the folder of the configuration file."
        elif isinstance(value, str) and holds_credentials(value):
            yield (
                f"  {name}: holds a user or password, or the signature of a signed URL. Give credentials in the "
                "environment, not in the address."
            )


def template() -> str:
    """The file that `refseg init` writes: every key with its meaning, bounds and default."""
    lines = [
        "# refseg: one run. Fill in the paths; everything else has the published defaults.",
        "# Paths are relative to this file, or URIs such as s3://bucket/prefix. `refseg run THIS_FILE` does the rest.",
    ]
    return "\n".join([*lines, *_lines(RunConfig, None)]) + "\n"


_COMMENT_WIDTH = 100
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 200
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//|:)")  # a scheme, or chained ones
_EXAMPLES = {
    "store": "runs/boats",
    "references.images": "references",
    "references.annotations": "references.json",
    "targets.images": "images",
}
_PATHS = (
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


def _lines(model: type[BaseModel], defaults: BaseModel | None, indent: int = 0, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        section, dotted = _section(field), f"{prefix}{name}"
        default = field.default if defaults is None else getattr(defaults, name)
        if section is None:
            yield from _key_lines(dotted, field, default, " " * indent)
            continue
        if indent == 0:
            yield ""
        yield from _comment(str(field.description), " " * indent)
        yield f"{' ' * indent}{name}:"
        yield from _lines(section, default if isinstance(default, BaseModel) else None, indent + 2, f"{dotted}.")


def _key_lines(name: str, field: FieldInfo, default: Any, space: str) -> Iterator[str]:
    yield from _comment(f"{field.description}{_bounds(field)}", space)
    written = yaml.safe_dump(_EXAMPLES.get(name, default), default_flow_style=True).removesuffix("...\n").strip()
    yield f"{space}{name.rpartition('.')[2]}: {written}"


def _comment(text: str, space: str) -> list[str]:
    indent = f"{space}# "
    return textwrap.wrap(text, _COMMENT_WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _bounds(field: FieldInfo) -> str:
    limits = {type(limit).__name__: limit for limit in field.metadata}
    low, high = getattr(limits.get("Ge"), "ge", None), getattr(limits.get("Le"), "le", None)
    if low is None:
        return ""
    return f" At least {low}." if high is None else f" From {low} to {high}."


def _section(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _describe(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("tuple", "function")))
    if problem["type"] == "extra_forbidden":
        return f"{name}: no such key. {_nearest(name)}"
    if problem["type"] == "missing":
        return f"{name}: is missing and has no default."
    return f"{name}: {problem['msg']}, got {_brief(problem['input'])}."


def _brief(value: Any) -> str:
    """A value as a message can hold it: not long, whatever YAML's references make of it, and without secrets."""
    return redact_text(_BRIEF.repr(value))


def _nearest(name: str) -> str:
    known = [key.name for key in keys()] + list(RunConfig.model_fields)
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(RunConfig.model_fields)}."


def _override(content: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{section}: expected keys below it, got {_brief(inner)}.")
        content = inner
    content[last] = value


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    for name in _PATHS:
        *sections, last = name.split(".")
        inner: Any = content
        for section in sections:
            inner = inner.get(section) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get(last), str):
            inner[last] = _below(folder, inner[last])


def _below(folder: Path, path: str) -> str:
    if not path or _URI.match(path):
        return path
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigurationError(f"{path}: nobody of that name has a home here. Give the whole path.") from error
