"""The pipeline, read as the method's figure: index, sample, segment, fill, postprocess, label, evaluate."""

from dataclasses import dataclass, replace
from typing import cast

from prefect import flow

from flows.configuration import RunConfig
from flows.errors import ShardsFailedError
from tasks.artifacts import Artifact
from tasks.evaluate import evaluate
from tasks.faults import reason
from tasks.fill_memory_bank import fill_memory_bank
from tasks.find_gone_labels import find_gone_labels
from tasks.index_dataset import index_dataset
from tasks.label_shard import label_shard
from tasks.plan_shards import LabelPlan, plan_shards
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.sample_references import sample_references
from tasks.segment_references import segment_references


@dataclass(frozen=True)
class RunResult:
    """What a run made: prototypes, labels, and the metrics where there is ground truth."""

    prototypes: Artifact
    plan: LabelPlan
    metrics: Artifact | None


@flow(name="refseg", persist_result=False)
def run_pipeline(config: RunConfig) -> RunResult:
    """From references and images to labels and metrics."""
    prototypes = build_bank(config)
    plan = label_targets(config, prototypes)
    metrics = evaluate_labels(config, prototypes, plan) if config.targets.annotations else None
    return RunResult(prototypes, plan, metrics)


@flow(name="build bank", persist_result=False)
def build_bank(config: RunConfig) -> Artifact:
    """From annotated examples to one prototype per category."""
    store, images_uri = config.store, config.references.images
    dataset = index_dataset(store, config.references.source)
    references = sample_references(
        store,
        dataset,
        config.references.sampling,
        config.references.annotation_ids,
        conventions=config.conventions,
    )
    references = segment_references(
        store,
        dataset=dataset,
        references=references,
        images_uri=images_uri,
        segmenter=config.segmenter,
        device=config.device,
        conventions=config.conventions,
    )
    bank = fill_memory_bank(
        store,
        dataset=dataset,
        references=references,
        images_uri=images_uri,
        settings=config.references.crop,
        encoder=config.encoder,
        device=config.device,
    )
    return postprocess_memory_bank(store, references, bank)


@flow(name="label", persist_result=False)
def label_targets(config: RunConfig, prototypes: Artifact) -> LabelPlan:
    """Labels every image that is not labelled yet, shard by shard; a shard that fails does not stop the others."""
    store, images_uri = config.store, config.targets.images
    plan = plan_labels(config, prototypes)
    states = [
        label_shard(
            store,
            shard,
            key=plan.key,
            prototypes=prototypes,
            images_uri=images_uri,
            labeling=config.labeling,
            batches=config.batches,
            segmenter=config.segmenter,
            encoder=config.encoder,
            device=config.device,
            pictures_uri=config.pictures,
            return_state=True,
        )
        for shard in plan.pending
    ]
    failed = {shard.name: state for shard, state in zip(plan.pending, states, strict=True) if not state.is_completed()}
    if failed:
        first = cast(Exception, next(iter(failed.values())).result(raise_on_failure=False))
        raise ShardsFailedError(
            f"{len(failed)} of {len(states)} shards could not be labelled: {', '.join(list(failed)[:8])}. "
            f"The first: {reason(first)}. What is labelled is kept; the same command goes on from there."
        )
    if config.targets.image_ids is not None:
        return plan  # the others are not gone, they were not asked for
    return replace(plan, gone=find_gone_labels(store, dataset=plan.dataset, labels_key=plan.key))


def plan_labels(config: RunConfig, prototypes: Artifact) -> LabelPlan:
    """Which images the configuration asks to label, and what of that is still to do."""
    return plan_shards(
        config.store,
        dataset=index_dataset(config.store, config.targets.source, conventions=config.conventions),
        prototypes=prototypes,
        images_uri=config.targets.images,
        labeling=config.labeling,
        batches=config.batches,
        segmenter=config.segmenter,
        encoder=config.encoder,
        device=config.device,
    )


@flow(name="evaluate", persist_result=False)
def evaluate_labels(config: RunConfig, prototypes: Artifact, plan: LabelPlan) -> Artifact:
    """Compares the labels with the targets' ground truth."""
    return evaluate(
        config.store,
        dataset=plan.dataset,
        prototypes=prototypes,
        labels_key=plan.key,
        settings=config.evaluation,
        conventions=config.conventions,
    )
