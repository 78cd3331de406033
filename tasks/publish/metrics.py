"""Shows how good labels are, where there is ground truth."""

from refseg_core.evaluation import category_table, metrics_table
from refseg_core.tables import Metrics
from tasks.addresses import redact
from tasks.artifacts import Artifact, Store
from tasks.evaluate import protocol_of
from tasks.publish.markdown import code
from tasks.publish.names import artifact_name
from tasks.publish.sending import publish_table, publishing_task
from tasks.publish.tables import text_rows

_PROTOCOLS = {"coco": "COCO's protocol", "lvis": "LVIS's protocol", "semantic": "comparing pixel by pixel"}
_MOST_CATEGORIES = 2000


@publishing_task("publish metrics")
def publish_metrics(store_uri: str, metrics: Artifact) -> None:
    """The evaluation over all categories, and by category."""
    store, name = Store(store_uri), artifact_name(store_uri)
    numbers = store.load(metrics, Metrics)
    by = f"by {_PROTOCOLS[protocol_of(store, metrics)]}"
    where = f"All digits are in {code(f'{redact(store_uri)}/{metrics.name}/metrics.parquet')}."
    publish_table(f"{name}-metrics", text_rows(metrics_table(numbers), "metric"), f"The evaluation {by}. {where}")
    publish_table(
        f"{name}-metrics-by-category",
        text_rows(category_table(numbers), "category"),
        f"The evaluation of each category {by}. {where}",
        most_rows=_MOST_CATEGORIES,
    )
