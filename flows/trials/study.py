"""The reference-set study: runs the pipeline for each number of references and each seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flows import pipeline
from flows.config.run_config import RunConfig
from flows.pipeline import RunResult
from flows.terminal import messages
from refseg_core.analysis.reference_study import Outcome
from refseg_core.errors import ConfigurationError, DatasetError, StoreError, counted
from refseg_core.tables import Metrics
from tasks.index_dataset import index_dataset
from tasks.outputs.prefect_ui.throughput import duration
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.uris import redact
from tasks.store.label_store import newest_labels
from tasks.store.store import Artifact, Store


@dataclass(frozen=True)
class StudyRun:
    """A run of a study: its metrics, and its artifacts in the store."""

    outcome: Outcome
    prototypes: str
    labels: str
    metrics: str


def plan_study(config: RunConfig, seeds: Sequence[int], shots: Sequence[int]) -> list[RunConfig]:
    """Returns the configurations to run, by ascending number of references; only the sampling differs.

    Raises ConfigurationError if there is no ground truth, or if the references are not sampled.
    """
    sampling = config.references.sampling
    check_has_truth(config)
    if config.references.annotations is None:
        raise ConfigurationError("references.annotations is null: a study samples references from annotations.")
    if config.references.annotation_ids is not None:
        raise ConfigurationError("references.annotation_ids: names the references, and a study samples them. Set null.")
    if sampling.selection != "sampled":
        raise ConfigurationError(f"references.sampling.selection: a study needs 'sampled', got {sampling.selection!r}.")
    return [_with(config, num_shots, seed) for num_shots in sorted(shots) for seed in seeds]


def check_has_truth(config: RunConfig) -> None:
    """Raises ConfigurationError if there is no ground truth to compare labels with."""
    if config.targets.annotations is None:
        raise ConfigurationError("targets.annotations is null: this compares labels with ground truth.")


def _with(config: RunConfig, num_shots: int, seed: int) -> RunConfig:
    """Returns the run with other references, as part of a study, and without pictures, which runs would overwrite."""
    sampling = config.references.sampling.model_copy(update={"num_shots": num_shots, "seed": seed})
    references = config.references.model_copy(update={"sampling": sampling})
    return config.model_copy(update={"references": references, "pictures": None, "purpose": "study"})


def run_study(configs: Sequence[RunConfig]) -> list[StudyRun]:
    """Runs all configurations that are not finished."""
    messages.print(_cost(configs), style="dim")
    report(ProgressStep.STUDY, total=len(configs))
    return list(_runs(configs))


def _runs(configs: Sequence[RunConfig]) -> Iterator[StudyRun]:
    for config in configs:
        result = pipeline.run_pipeline(config)
        run = _study_run(config, result)
        values = ", ".join(f"{metric} {value:.3f}" for metric, value in run.outcome.values.items())
        messages.print(f"shots {run.outcome.shots}, seed {run.outcome.seed}: {values}")
        report(ProgressStep.STUDY, advanced=1)
        yield run


def _study_run(config: RunConfig, result: RunResult) -> StudyRun:
    assert result.metrics is not None  # there is ground truth: see plan_study
    sampling = config.references.sampling
    outcome = Outcome(sampling.num_shots, sampling.seed, headline_numbers(config.store, result.metrics))
    return StudyRun(outcome, result.prototypes.name, f"labels/{result.plan.key}", result.metrics.name)


def _cost(configs: Sequence[RunConfig]) -> str:
    """Returns the expected time, from the newest labels of the store."""
    config = configs[0]
    targets = index_dataset.fn(Store(config.store), config.targets.source, conventions=config.conventions)
    num_images = targets.num_rows["images"]
    seconds = seconds_per_image(config.store)
    runs = f"{counted(len(configs), 'run')} of {counted(num_images, 'image')} each; finished ones are not repeated."
    if seconds is None:
        return runs
    total = duration(seconds * num_images * len(configs))
    return f"{runs} At {seconds:.2g} s per image, as for the newest labels, all take {total}."


_HEADLINES = ("AP", "mIoU")


def headline_numbers(store_uri: str, metrics: Artifact) -> dict[str, float]:
    """Returns AP by IoU type, or mIoU, over all categories. Raises DatasetError without ground truth for them."""
    table = Store(store_uri).load(metrics, Metrics)
    numbers = {f"{kind} {name}": value for name in _HEADLINES for kind, value in table.overall(name).items()}
    if min(numbers.values()) < 0:
        raise DatasetError(
            f"{redact(store_uri)}/{metrics.name}: the targets' annotations hold no instance of the referenced "
            "categories, so that labels cannot be evaluated."
        )
    return numbers


def seconds_per_image(store_uri: str) -> float | None:
    """Returns the speed of the newest labels of the store, None if there are none."""
    try:
        return newest_labels(Store(store_uri))[0].seconds_per_image()
    except StoreError:
        return None
