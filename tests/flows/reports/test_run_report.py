"""What a run on the service ends with: the same results as a run of one's own, read from the store."""

from pathlib import Path

from flows.reports.run_report import report_stored
from flows.terminal import results
from tests.support.projects.reviewable import Reviewable

pytest_plugins = ["tests.support.projects.reviewable_project"]


def _printed(store_uri: str, key: str | None) -> str:
    with results.capture() as captured:
        report_stored(store_uri, key)
    return captured.get()


def test_a_run_ends_with_counts_or_ap_paths_and_what_to_do_next(reviewable: Reviewable) -> None:
    store, run = reviewable.steps.store.uri, reviewable.run
    printed = _printed(store, run.key)
    assert "5 images: 35 instances in 5, none in 0, 0 unreadable." in printed
    assert f"{store}/labels/{run.key}/detections" in printed
    assert f"refseg review {store}" in printed
    assert "Metrics:" not in printed
    prototypes, dataset = run.prototypes(), run.requested()
    assert dataset is not None
    metrics = reviewable.steps.evaluate(prototypes, reviewable.steps.plan(prototypes))
    for key in (run.key, None):
        printed = _printed(store, key)
        assert f"Metrics:    {store}/{metrics.name}/" in printed
        assert "AP" in printed


def test_a_store_that_cannot_be_read_from_here_is_named(tmp_path: Path) -> None:
    printed = _printed(str(tmp_path / "elsewhere"), None)
    assert f"Done. The results are in {tmp_path / 'elsewhere'}, which cannot be read from here" in printed
