"""Shows how good labels are, where there is ground truth, and the numbers of benchmarks."""

from collections.abc import Sequence

from refseg_core.evaluation.diagnostics import Review
from refseg_core.evaluation.report import (
    category_table,
    confusion_table,
    findings,
    metrics_table,
    score_table,
)
from refseg_core.settings.choices import PROTOCOLS
from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.markdown import code, escaped
from tasks.outputs.prefect_ui.publishing import publish_table, publishing_task
from tasks.outputs.prefect_ui.rows import text_rows
from tasks.storage.uris import redact
from tasks.store.evaluations import load_review, protocol_of
from tasks.store.store import Artifact, Store

_MOST_CATEGORIES = 2000


@publishing_task("publish metrics")
def publish_metrics(store_uri: str, metrics: Artifact) -> None:
    """The evaluation over all categories, at scores, by category, and what is taken for what."""
    store, name = Store(store_uri), artifact_name(store_uri)
    review = load_review(store, metrics)
    by = PROTOCOLS[protocol_of(store, metrics)].how
    where = f"All digits are in {code(f'{redact(store_uri)}/{metrics.name}/metrics.parquet')}."
    sentences = " ".join(escaped(sentence) for sentence in findings(review))
    publish_table(
        f"{name}-metrics",
        text_rows(metrics_table(review.metrics), "metric"),
        f"The evaluation {by}. {sentences} {where}",
    )
    publish_table(
        f"{name}-metrics-by-category",
        text_rows(category_table(review.metrics), "category"),
        f"The evaluation of each category {by}. {where}",
        most_rows=_MOST_CATEGORIES,
    )
    if review.confusion is not None:
        _publish_mistakes(name, review)


@publishing_task("publish benchmark")
def publish_benchmark(store_uri: str, title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """A benchmark's numbers next to the published ones, header first."""
    publish_table(f"{artifact_name(store_uri)}-benchmark", text_rows(rows, "row"), f"{title}, in percent.")


def _publish_mistakes(name: str, review: Review) -> None:
    publish_table(
        f"{name}-metrics-at-scores",
        text_rows(score_table(review.metrics), "compared"),
        "What labels of a score and above are worth, at an IoU of 0.5.",
    )
    publish_table(
        f"{name}-confusions",
        text_rows(confusion_table(review), "category"),
        "What lies on instances of a category though it is of another: the most frequent.",
    )
