"""Runs a benchmark over the pipeline, resuming unfinished runs, and stores the numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow

from flows.benchmarks.comparison import RunOutcome, as_text, compare_with_published
from flows.benchmarks.data_check import check_data, check_runs
from flows.benchmarks.spec import Benchmark, Point, Value, load_benchmark
from flows.config.run_config import RunConfig
from flows.execution.cancellation import stopping_when_cancelled
from flows.pipeline import run_pipeline
from refseg_core.tables import Images, Metrics
from tasks.outputs.prefect_ui.metrics import publish_benchmark
from tasks.outputs.prefect_ui.publishing import is_shown
from tasks.runtime.progress import ProgressStep, report
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import LabelPlan
from tasks.store.steps import BENCHMARK
from tasks.store.store import Artifact, Recipe, Store

_PERCENT = 100


@dataclass(frozen=True)
class Plan:
    """A benchmark and its runs, each a point and its configuration."""

    benchmark: Benchmark
    corrected: bool
    store: str
    runs: tuple[tuple[Point, RunConfig], ...]


def plan_benchmark(
    name: str,
    data: str,
    store: str,
    *,
    chosen: Mapping[str, tuple[Value, ...]] | None = None,
    corrected: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """Returns the checked runs of a benchmark on the data in a folder.

    `chosen`: values of axes, such as shots and seeds; None: all. `changes`: overrides of the run configuration, by
    dotted key. Raises DatasetError naming all missing data.
    """
    benchmark = load_benchmark(name)
    points = benchmark.points(chosen or {})
    check_data(benchmark, points, Path(data))
    configs = [
        benchmark.run_config(point, data=Path(data), store=store, corrected=corrected, changes=changes or {})
        for point in points
    ]
    runs = tuple(zip(points, configs, strict=True))
    check_runs(benchmark, runs, Path(data))
    return Plan(benchmark, corrected, store, runs)


@flow(name="benchmark", flow_run_name="benchmark {name}", persist_result=False)
def run_benchmark(
    name: str,
    data: str,
    store: str,
    chosen: dict[str, tuple[Value, ...]] | None = None,
    *,
    corrected: bool = False,
    changes: dict[str, Any] | None = None,
) -> Artifact:
    """Runs a published benchmark; the store then holds a table of its numbers and the published ones.

    Args:
        name: The benchmark, such as coco-fewshot; `refseg benchmark` lists all.
        data: The folder with its data, as the worker that orchestrates and the GPU workers see it.
        store: Folder or prefix for all results.
        chosen: Values of its axes, such as {"shots": [1, 5], "seed": [33]}; empty for all.
        corrected: Use corrected conventions instead of the published code's.
        changes: Overrides of the run configuration, by dotted key.
    """
    with stopping_when_cancelled():
        return run_plan(plan_benchmark(name, data, store, chosen=chosen, corrected=corrected, changes=changes))


def run_plan(plan: Plan) -> Artifact:
    """Runs what is not finished and stores the table."""
    report(ProgressStep.BENCHMARK, total=len(plan.runs))
    store = Store(plan.store)
    outcomes, inputs = [], {}
    for number, (point, config) in enumerate(plan.runs):
        result = run_pipeline(config)
        assert result.metrics is not None, "every benchmark has ground truth"
        numbers = store.load(result.metrics, Metrics).overall(plan.benchmark.metric)
        percent = {kind: _PERCENT * value for kind, value in numbers.items()}
        outcomes.append(RunOutcome(point, percent, _seconds_per_image(store, result.plan)))
        inputs[f"run {number}"] = result.metrics.name
        report(ProgressStep.BENCHMARK, advanced=1)
    table = compare_with_published(plan.benchmark, outcomes, corrected=plan.corrected)
    settings = plan.benchmark.model_dump(mode="json") | {"corrected": plan.corrected}
    recipe = Recipe(*BENCHMARK, version=1, settings=settings, inputs=inputs)
    artifact = store.make(recipe, lambda: [table])
    if is_shown():
        publish_benchmark(plan.store, plan.benchmark.title, as_text(table))
    return artifact


def _seconds_per_image(store: Store, plan: LabelPlan) -> float:
    """Returns the mean seconds of the models per readable image."""
    rows = StoredLabels(store, plan.key).read_labeled_images(store.load(plan.dataset, Images))
    seconds = np.concatenate([labeled.seconds[labeled.status != "unreadable"] for labeled in rows])
    return float(seconds.mean()) if len(seconds) else 0.0
