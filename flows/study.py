"""The reference-set study: the pipeline for each number of references and each seed, and what that says together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flows import pipeline
from flows.config.run_config import RunConfig
from flows.pipeline import RunResult
from flows.terminal import messages
from refseg_core.analysis.reference_study import Outcome
from refseg_core.errors import ConfigurationError, DatasetError, StoreError
from refseg_core.tables import Metrics
from tasks.index_dataset import index_dataset
from tasks.outputs.prefect_ui.throughput import duration
from tasks.runtime import progress
from tasks.storage.uris import redact
from tasks.store.label_store import newest_labels
from tasks.store.store import Artifact, Store


@dataclass(frozen=True)
class StudyRun:
    """One of a study's runs: what it reached, and what of the store it is."""

    outcome: Outcome
    prototypes: str
    labels: str
    metrics: str


def plan_study(config: RunConfig, seeds: Sequence[int], shots: Sequence[int]) -> list[RunConfig]:
    """The configurations to run, by ascending number of references; only the sampling differs.

    Raises ConfigurationError where the configuration has nothing to compare with, or nothing to sample.
    """
    sampling = config.references.sampling
    if config.targets.annotations is None:
        raise ConfigurationError("targets.annotations is null: a study compares labels with ground truth.")
    if config.references.annotation_ids is not None:
        raise ConfigurationError("references.annotation_ids: names the references, and a study samples them. Set null.")
    if sampling.selection != "sampled":
        raise ConfigurationError(f"references.sampling.selection: a study needs 'sampled', got {sampling.selection!r}.")
    return [_with(config, num_shots, seed) for num_shots in sorted(shots) for seed in seeds]


def _with(config: RunConfig, num_shots: int, seed: int) -> RunConfig:
    """The run with other references, and without pictures, which each run would draw over the last one's."""
    sampling = config.references.sampling.model_copy(update={"num_shots": num_shots, "seed": seed})
    references = config.references.model_copy(update={"sampling": sampling})
    return config.model_copy(update={"references": references, "pictures": None})


def run_study(configs: Sequence[RunConfig]) -> list[StudyRun]:
    """Runs all that is not done yet."""
    messages.print(_cost(configs), style="dim")
    progress.report("study", total=len(configs))
    return list(_runs(configs))


def _runs(configs: Sequence[RunConfig]) -> Iterator[StudyRun]:
    for config in configs:
        result = pipeline.run_pipeline(config)
        run = _study_run(config, result)
        told = ", ".join(f"{metric} {value:.3f}" for metric, value in run.outcome.values.items())
        messages.print(f"shots {run.outcome.shots}, seed {run.outcome.seed}: {told}")
        progress.report("study", advanced=1)
        yield run


def _study_run(config: RunConfig, result: RunResult) -> StudyRun:
    assert result.metrics is not None  # there is ground truth: see plan_study
    sampling = config.references.sampling
    outcome = Outcome(sampling.num_shots, sampling.seed, headline_numbers(config.store, result.metrics))
    return StudyRun(outcome, result.prototypes.name, f"labels/{result.plan.key}", result.metrics.name)


def _cost(configs: Sequence[RunConfig]) -> str:
    """What is ahead, by what the newest labels of the store took."""
    config = configs[0]
    targets = index_dataset.fn(Store(config.store), config.targets.source, conventions=config.conventions)
    num_images = targets.num_rows["images"]
    seconds = seconds_per_image(config.store)
    ahead = f"{len(configs)} runs of {num_images:,} images each; what the store holds is not done again."
    if seconds is None:
        return ahead
    total = duration(seconds * num_images * len(configs))
    return f"{ahead} At {seconds:.2g} s an image, as the newest labels took, all are {total}."


_HEADLINES = ("AP", "mIoU")


def headline_numbers(store_uri: str, metrics: Artifact) -> dict[str, float]:
    """AP by IoU type, or mIoU, over all categories. Raises DatasetError where there is no ground truth for them."""
    table = Store(store_uri).load(metrics, Metrics)
    numbers = {f"{kind} {name}": value for name in _HEADLINES for kind, value in table.overall(name).items()}
    if min(numbers.values()) < 0:
        raise DatasetError(
            f"{redact(store_uri)}/{metrics.name}: the targets' annotations hold no instance of the referenced "
            "categories, so that nothing tells how good labels are."
        )
    return numbers


def seconds_per_image(store_uri: str) -> float | None:
    """What the newest labels of the store took; None where there are none."""
    try:
        return newest_labels(Store(store_uri))[0].seconds_per_image()
    except StoreError:
        return None
