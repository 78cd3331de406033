"""The pipeline, read as the method's figure: index, sample, segment, fill, postprocess, label, evaluate."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

from prefect import Task, flow, runtime
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

from flows.config.preflight import check
from flows.config.run_config import RunConfig
from flows.errors import ShardsFailedError
from flows.execution.cancellation import cancel_below, stopping_when_cancelled
from flows.execution.engines import build_bank_with_workers, label_with
from flows.execution.stopping import stopping_signal, when_stopped
from flows.oddities import report_oddities
from refseg_core.errors import counted
from tasks.datasets.promoted_references import add_promoted
from tasks.datasets.reference_edits import edit_references
from tasks.evaluate import evaluate
from tasks.fill_memory_bank import fill_memory_bank
from tasks.index_dataset import index_dataset
from tasks.models.background import BackgroundSource
from tasks.models.guidance import is_chosen
from tasks.models.loading import load_models
from tasks.outputs.prefect_ui.labels import publish_labels
from tasks.outputs.prefect_ui.metrics import publish_metrics
from tasks.outputs.prefect_ui.progress import ProgressArtifact
from tasks.outputs.prefect_ui.publishing import is_shown, shown_on
from tasks.outputs.prefect_ui.references import publish_bank
from tasks.plan_shards import find_gone_labels, plan_shards
from tasks.postprocess_memory_bank import choose_guidance_thresh, postprocess_memory_bank
from tasks.runtime.progress import ProgressStep
from tasks.sample_references import sample_references
from tasks.segment_references import segment_references
from tasks.specs import LabelJob
from tasks.storage.uris import last_name
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Artifact, NotMadeError, Store
from tasks.store.thresholds import FilterOptions, evaluated_filter

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class RunResult:
    """The results of a run: prototypes, labels, and metrics if there is ground truth."""

    prototypes: Artifact
    plan: LabelPlan
    metrics: Artifact | None


def _run_name() -> str:
    config = RunConfig.model_validate(runtime.flow_run.parameters["config"])
    return f"{runtime.flow_run.flow_name} {last_name(config.targets.images) or 'images'}"


@flow(
    name="refseg",
    flow_run_name=_run_name,
    persist_result=False,
    on_cancellation=[cancel_below],
    on_crashed=[cancel_below],
)
def run_pipeline(config: RunConfig) -> RunResult:
    """Makes labels and metrics from references and images."""
    with stopping_when_cancelled(), shown_on(runtime.flow_run.id):
        if runtime.deployment.id is not None:  # the command line has checked before Prefect was started
            check(config, partial(report_oddities, config, log.warning))
        prototypes = make_bank(config)
        plan = label_targets(config, prototypes)
        metrics = evaluate_labels(config, prototypes, plan) if config.targets.annotations else None
    return RunResult(prototypes, plan, metrics)


@flow(name="evaluate run", flow_run_name=_run_name, persist_result=False)
def evaluate_run(config: RunConfig, kept: FilterOptions | None = None) -> Artifact:
    """Compares complete labels with the targets' ground truth; `kept`: which of them count."""
    prototypes = make_bank(config)
    return evaluate_labels(config, prototypes, plan_labels(config, prototypes), kept)


def make_bank(config: RunConfig) -> Artifact:
    """Returns the prototypes, built where the models are unless the store has them."""
    if config.execution.engine == "workers" and find_bank(config) is None:
        build_bank_with_workers(config)
        if (built := find_bank(config)) is not None:  # and shown by the worker's run
            return built
    return build_bank(config)


def find_bank(config: RunConfig) -> Artifact | None:
    """Returns the prototypes if the store has them, which needs no model."""
    try:
        return make_prototypes(config, Store(config.store, find_only=True))
    except NotMadeError:
        return None


@flow(name="build bank", flow_run_name=_run_name, persist_result=False)
def build_bank(config: RunConfig) -> Artifact:
    """Makes one prototype per category from annotated examples."""
    with stopping_when_cancelled(), _progress(config, ProgressStep.FILL_MEMORY_BANK):
        prototypes = make_prototypes(config, Store(config.store))
    if is_shown():
        publish_bank(config.store, prototypes)
    return prototypes


def make_prototypes(config: RunConfig, store: Store) -> Artifact:
    """Makes the prototypes in this process, and the threshold of guided prompts, unless the store has them."""
    dataset = _call(index_dataset, store)(store, config.references.source)
    references = _call(sample_references, store)(
        store,
        dataset,
        config.references.sampling,
        config.references.named_ids,
        conventions=config.conventions,
    )
    promoted_negatives = add_promoted(store, config.references.source, dataset)
    dataset, references = edit_references(store, config.references.source, dataset, references)
    references = _call(segment_references, store)(
        store,
        dataset=dataset,
        references=references,
        images_uri=config.references.images,
        models=config.models,
        conventions=config.conventions,
    )
    bank = _call(fill_memory_bank, store)(
        store,
        dataset=dataset,
        references=references,
        images_uri=config.references.images,
        settings=config.references.crop,
        models=config.models,
        all_views=config.labeling.parts.all_views,
    )
    prototypes = _call(postprocess_memory_bank, store)(
        store,
        references,
        bank,
        dataset=dataset,
        negatives=config.references.negatives,
        single_negatives=promoted_negatives,
        background=_background(config, dataset),
    )
    if is_chosen(config.labeling):
        _call(choose_guidance_thresh, store)(
            store, prototypes=prototypes, images_uri=config.references.images, models=config.models
        )
    return prototypes


def _background(config: RunConfig, dataset: Artifact) -> BackgroundSource | None:
    if config.references.background is None:
        return None
    return BackgroundSource(dataset, config.references.images, config.models)


def _call(task: Task[P, R], store: Store) -> Callable[P, R]:
    """Returns the task as Prefect runs and shows it within a flow, else the function that it is made from."""
    return task.fn if store.find_only or FlowRunContext.get() is None else task


@flow(name="label", flow_run_name=_run_name, persist_result=False)
def label_targets(config: RunConfig, prototypes: Artifact) -> LabelPlan:
    """Labels every image that is not labeled yet, by shards; a failed shard does not stop the others."""
    if config.execution.engine == "process" and not config.labeling.keep_proposals:
        # So that faulty weights are reported before planning. With what is kept, models may not be needed.
        load_models(config.models)
    plan = plan_labels(config, prototypes)
    try:
        with _progress(config, ProgressStep.LABEL, total=sum(len(shard) for shard in plan.pending)):
            label_with(config.execution, label_job(config, prototypes, plan), plan.pending)
    except ShardsFailedError as error:
        _publish(config, plan, error.reason_of)
        raise
    except (KeyboardInterrupt, TerminationSignal):
        if stopping_signal() is not None:  # a command's; a worker, or the program that runs this, says what follows
            when_stopped(_kept(config, plan))
        raise
    if config.targets.are_all:  # else the other images are not gone, only not selected
        plan = replace(plan, gone=find_gone_labels(Store(config.store), dataset=plan.dataset, labels_key=plan.key))
    _publish(config, plan)
    return plan


def _kept(config: RunConfig, plan: LabelPlan) -> str:
    num_left = sum(len(shard) for shard in StoredLabels(Store(config.store), plan.key).pending(plan.pending))
    num_images = plan.dataset.num_rows["images"]
    return f"{num_images - num_left:,} of {counted(num_images, 'image')} kept"


def _publish(config: RunConfig, plan: LabelPlan, reason_of: Mapping[str, str] | None = None) -> None:
    if is_shown():
        publish_labels(config.store, plan, reason_of)


def _progress(config: RunConfig, step: ProgressStep, total: int | None = None) -> AbstractContextManager[object]:
    """Shows the run's progress in the Prefect UI, if there is a lasting one."""
    return ProgressArtifact(config.store, step=step, total=total) if is_shown() else nullcontext()


def label_job(config: RunConfig, prototypes: Artifact, plan: LabelPlan) -> LabelJob:
    """Returns what the labeling of each shard has in common."""
    return LabelJob(**dict(config.label_spec), store=config.store, key=plan.key, prototypes=prototypes.name)


def plan_labels(config: RunConfig, prototypes: Artifact) -> LabelPlan:
    """Plans the images that the configuration selects and that are not labeled yet."""
    store = Store(config.store)
    return plan_shards(
        store,
        dataset=index_dataset(store, config.targets.source, conventions=config.conventions),
        prototypes=prototypes,
        spec=config.label_spec,
        purpose=config.request,
    )


@flow(name="evaluate", flow_run_name=_run_name, persist_result=False)
def evaluate_labels(
    config: RunConfig, prototypes: Artifact, plan: LabelPlan, kept: FilterOptions | None = None
) -> Artifact:
    """Compares the labels with the targets' ground truth, at the thresholds that were saved for them if there are any.

    `kept`: options that say otherwise.
    """
    run = StoredLabels(Store(config.store), plan.key)
    metrics = evaluate(
        Store(config.store),
        dataset=plan.dataset,
        prototypes=prototypes,
        labels_key=plan.key,
        settings=config.evaluation,
        conventions=config.conventions,
        is_novel=config.references.are_novel,
        kept=evaluated_filter(run, kept),
    )
    if is_shown():
        publish_metrics(config.store, metrics)
    return metrics
