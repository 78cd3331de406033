"""Shows a benchmark's numbers beside the published ones."""

from collections.abc import Sequence

from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.publishing import publish_table, publishing_task
from tasks.outputs.prefect_ui.rows import text_rows


@publishing_task("publish benchmark")
def publish_benchmark(store_uri: str, title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """The table, header first."""
    publish_table(f"{artifact_name(store_uri)}-benchmark", text_rows(list(rows), "row"), f"{title}, in percent.")
