"""A run that publishes what people see of it: `python -m tests.shown_run run.yaml`."""

import sys

from prefect import flow

from flows.configuration import RunConfig, load_config
from flows.pipeline import build_bank, evaluate_labels, label_targets
from tasks.publish import ProgressArtifact, publish_bank, publish_labels, publish_metrics


@flow(name="shown run", flow_run_name="label {name}", persist_result=False)
def shown_run(config: RunConfig, name: str) -> None:
    """The whole pipeline, and everything about it in the UI."""
    prototypes = build_bank(config)
    publish_bank(config.store, prototypes)
    with ProgressArtifact(config.store, seconds=1), ProgressArtifact(config.store, "worker 1", seconds=1):
        plan = label_targets(config, prototypes)
    publish_labels(config.store, plan)
    publish_metrics(config.store, evaluate_labels(config, prototypes, plan))


if __name__ == "__main__":
    shown_run(load_config(sys.argv[1]), "demo scenes")
