"""What a run publishes arrives at a Prefect server: complete, small, in versions, and never at the cost of the run."""

import base64
import io
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import Artifact as Published
from prefect.client.schemas.sorting import FlowRunSort

from flows.pipeline import run_pipeline
from flows.review.session import Decision, ReviewSession
from flows.service.follow import _labels_key
from tasks.outputs.prefect_ui import labels as labels_module
from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.labels import publish_labels
from tasks.outputs.prefect_ui.progress import ProgressArtifact, progress_key
from tasks.outputs.prefect_ui.publishing import MOST_BYTES, is_shown
from tasks.outputs.review.instance_index import InstanceIndex
from tasks.runtime.progress import report
from tasks.store.label_store import StoredLabels
from tasks.store.reviews import StoredReview
from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Store
from tasks.store.thresholds import shown_thresholds
from tests.support.label_stores import LabelStore
from tests.support.projects.project import Project, scene, write_coco
from tests.support.samples import write_images
from tests.support.servers.prefect_harness import prefect_harness

pytest_plugins = ["tests.support.projects.tiny_project"]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("published")]

_METRICS = {"metrics", "metrics-by-category", "metrics-at-scores", "confusions"}
_PAGES = {"references", "shards", "categories", "failed", "certain", "uncertain", "summary", *_METRICS}


@pytest.fixture(scope="module", autouse=True)
def prefect() -> Iterator[None]:
    """A Prefect server of the tests' own."""
    with prefect_harness():
        yield


@flow(persist_result=False)
def publish_only_labels(store_uri: str, plan: LabelPlan, errors: dict[str, str] | None = None) -> None:
    """Publishes labels that are there."""
    publish_labels(store_uri, plan, errors)


def published(store_uri: str) -> dict[str, list[Published]]:
    """What is there of a store, the oldest version of each first, by the part of the key after its name."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(limit=200)
    name = f"{artifact_name(store_uri)}-"
    versions: dict[str, list[Published]] = {}
    for artifact in sorted(found, key=lambda artifact: str(artifact.created)):
        if artifact.key and artifact.key.startswith(name):
            versions.setdefault(artifact.key.removeprefix(name), []).append(artifact)
    return versions


@contextmanager
def without_images() -> Iterator[None]:
    """Within the block labels that no model made can be shown: their category has a name, and sheets are empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels_module, "Palette", lambda store, prototypes: SimpleNamespace(name_of={1: "thing"}))
        patch.setattr(labels_module, "_panels", lambda labels, detections: [])
        yield


def rows_of(artifact: Published) -> list[dict[str, Any]]:
    """The rows of a table."""
    rows: list[dict[str, Any]] = json.loads(str(artifact.data))
    return rows


def picture_of(artifact: Published) -> Any:
    """The picture that a page carries, int [H, W, 3]."""
    content = str(artifact.data).partition("data:image/jpeg;base64,")[2].rstrip(")")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(int)


def test_a_run_is_shown_with_everything_about_it(project: Project) -> None:
    assert is_shown()
    result = run_pipeline(project.config)
    pages = {name: versions[-1] for name, versions in published(project.config.store).items()}
    assert set(pages) - {"progress"} == _PAGES
    for name, page in pages.items():
        assert len(json.dumps(page.data)) + len(page.description or "") < MOST_BYTES, name
    assert [row["images"] for row in rows_of(pages["shards"])] == [1, 2, 2]
    assert {row["state"] for row in rows_of(pages["shards"])} == {"labeled"}
    assert {row["category"] for row in rows_of(pages["categories"])} == {"box", "bar"}
    assert rows_of(pages["failed"]) == []
    assert rows_of(pages["metrics"])[0].keys() == {"metric", "bbox", "segm"}
    assert [row["category"] for row in rows_of(pages["metrics-by-category"])] == ["box", "bar"]
    assert [row["score"] for row in rows_of(pages["metrics-at-scores"])] == ["0.3", "0.5", "0.7"] * 2
    summary = str(pages["summary"].data)
    assert result.plan.key in summary
    assert result.prototypes.name in summary
    for name in ("shards", "categories", "failed", "certain", "uncertain"):
        assert f"../artifact/{pages[name].id}" in summary
    assert (picture_of(pages["references"]) < 250).mean() > 0.2


def test_the_page_of_the_run_itself_shows_all_of_it(project: Project) -> None:
    run_pipeline(project.config)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=20)
        run = next(run for run in runs if run.parent_task_run_id is None)
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), limit=200)
    name = f"{artifact_name(project.config.store)}-"
    assert {str(artifact.key).removeprefix(name) for artifact in found} == _PAGES | {"progress"}
    assert _labels_key(run.id, project.config.store) in str(published(project.config.store)["summary"][-1].data)


def test_the_summary_shows_labels_by_what_people_decided(project: Project) -> None:
    config = project.config_with({"targets.annotations": None})
    plan = run_pipeline(config).plan
    before = published(config.store)["summary"][-1]
    run = StoredLabels(Store(config.store), plan.key)
    index = InstanceIndex(run, shown_thresholds(run))
    session = ReviewSession(index, StoredReview.open(run))
    session.decide(
        *(Decision(f"{row:032d}", "Anna", "reject", one) for row, one in enumerate(index.instances.identity))
    )
    publish_only_labels(config.store, plan)
    after = published(config.store)["summary"][-1]
    assert after.description != before.description
    assert {row["instances"] for row in rows_of(published(config.store)["categories"][-1])} <= {0}


def test_the_next_run_of_a_store_makes_new_versions_of_the_same(project: Project) -> None:
    config = project.config_with({"targets.annotations": None})
    run_pipeline(config)
    project.add_target("new.png", seed=50)
    run_pipeline(config)
    versions = published(config.store)
    versions.pop("progress")  # every step that takes long has its own
    expected = dict.fromkeys(_PAGES - _METRICS, 2)
    assert {name: len(found) for name, found in versions.items()} == expected
    before, after = versions["summary"]
    assert str(before.description).startswith("5 of 5 images")
    assert str(after.description).startswith("6 of 6 images")


def test_failed_images_are_listed_with_their_reasons(project: Project) -> None:
    config = project.config_with({"targets.annotations": None})
    (project.folder / "targets" / "broken *.png").write_bytes(b"no image")
    run_pipeline(config)
    pages = published(config.store)
    (row,) = rows_of(pages["failed"][-1])
    assert row["image"] == "broken *.png"
    assert row["reason"]
    assert "1 unreadable" in str(pages["summary"][-1].data)


def test_names_are_not_taken_for_markup(project: Project) -> None:
    names = {3: "<img src=x>", 8: "[bar](http://127.0.0.1)"}
    for file, images in (("references.json", ["r0.png", "r1.png"]), ("targets.json", ["t0.png", "t1.png"])):
        write_coco(project.folder / file, images, with_masks=True, categories=names)
    run_pipeline(project.config)
    pages = published(project.config.store)
    assert {row["category"] for row in rows_of(pages["categories"][-1])} == set(names.values())
    shown = str(pages["references"][-1].description)
    assert r"\<img src=x\>" in shown
    assert r"\[bar\]\(" in shown


def test_shards_that_are_missing_or_failed_come_first_with_their_reasons() -> None:
    nights = LabelStore()
    shards = nights.begin_night(*"abcdefg")
    nights.commit(shards[1])
    dataset = nights.run.requested()
    assert dataset is not None
    with without_images():
        publish_only_labels(
            nights.store.uri, LabelPlan(dataset, nights.run.key, tuple(shards)), {shards[2].name: "no memory"}
        )
    pages = published(nights.store.uri)
    rows = rows_of(pages["shards"][-1])
    assert [(row["shard"], row["state"]) for row in rows] == [
        (shards[2].name, "failed"),
        (shards[0].name, "missing"),
        (shards[3].name, "missing"),
        (shards[1].name, "labeled"),
    ]
    assert rows[0]["by, or reason"] == "no memory"
    assert "3 shards are not labeled" in str(pages["summary"][-1].data)


def test_many_shards_are_a_table_of_the_most_telling_ones() -> None:
    nights = LabelStore(images_per_shard=1)
    shards = nights.begin_night(*(f"image-{number:04d}.jpg" for number in range(1200)))
    for shard in shards[:4]:
        nights.commit(shard)
    dataset = nights.run.requested()
    assert dataset is not None
    with without_images():
        publish_only_labels(nights.store.uri, LabelPlan(dataset, nights.run.key, tuple(shards)))
    table = published(nights.store.uri)["shards"][-1]
    assert len(rows_of(table)) == 500
    assert "The first 500 of 1,200 rows" in str(table.description)
    assert len(str(table.data)) < MOST_BYTES


def test_what_cannot_be_shown_is_a_warning_and_the_run_goes_on(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    result = run_pipeline(project.config)
    for part in (project.folder / "store" / "labels" / result.plan.key / "detections").iterdir():
        part.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        publish_only_labels(project.config.store, result.plan)
    assert "publish labels: not shown in the Prefect UI: StoreError" in caplog.text
    assert len(published(project.config.store)["summary"]) == 1  # of the run, while the labels were whole


def test_images_that_are_gone_since_leave_a_gap_in_the_sheets_only(project: Project) -> None:
    result = run_pipeline(project.config)
    for image in (project.folder / "targets").iterdir():
        image.unlink()
    publish_only_labels(project.config.store, result.plan)
    pages = published(project.config.store)
    assert {"certain", "uncertain", "summary", "shards"} <= set(pages)
    assert (picture_of(pages["certain"][-1]) < 128).any()  # it says that there is nothing to show


def test_sheets_of_large_noisy_images_are_small_too(project: Project) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    noise[100:400, 100:300], noise[100:500, 500:700] = (230, 60, 40), (40, 90, 230)
    write_images(project.folder / "references", {"r0.png": noise, "r1.png": noise[::-1].copy()})
    write_images(project.folder / "targets", {f"t{number}.png": noise for number in range(5)})
    config = project.config_with({"targets.annotations": None})
    file = project.folder / "references.json"
    file.write_text(file.read_text().replace(str(scene(0).shape[0]), "600").replace(str(scene(0).shape[1]), "800"))
    run_pipeline(config)
    for name, versions in published(config.store).items():
        assert len(json.dumps(versions[-1].data)) < MOST_BYTES, name


@flow(persist_result=False)
def advance(store_uri: str, worker: str | None, seconds: list[float]) -> None:
    """Does a part of eight every so many seconds."""
    with ProgressArtifact(store_uri, worker, seconds=0.2):
        report("label", total=8)
        for pause in seconds:
            time.sleep(pause)
            report("label", advanced=1)


def test_progress_ends_where_the_work_ended_and_says_how_fast_it_was() -> None:
    advance("s3://bucket/ends", "gpu*1", [0.05] * 8)
    (artifact,) = published("s3://bucket/ends")["progress-gpu-1"]
    assert artifact.type == "progress"
    assert artifact.data == 100
    assert str(artifact.description).startswith(r"gpu\*1: 8 of 8 images in ")
    assert artifact.flow_run_id is not None


def test_progress_of_each_run_is_a_version_of_its_own() -> None:
    for number in (2, 4):
        advance("s3://bucket/versions", None, [0.01] * number)
    assert [artifact.data for artifact in published("s3://bucket/versions")["progress"]] == [25, 50]


def test_progress_is_a_sign_of_life_also_when_nothing_goes_on() -> None:
    seen: list[tuple[Any, Any]] = []

    @flow(persist_result=False)
    def wait() -> None:
        with ProgressArtifact("s3://bucket/alive", total=8, seconds=0.2), get_client(sync_client=True) as client:
            end = time.monotonic() + 60
            while time.monotonic() < end and len({updated for updated, _ in seen}) < 4:
                found = [
                    one for one in client.read_artifacts(limit=200) if one.key == progress_key("s3://bucket/alive")
                ]
                seen.extend((artifact.updated, artifact.data) for artifact in found)
                time.sleep(0.1)

    wait()
    times = sorted({updated for updated, _ in seen})
    assert len(times) >= 4
    assert {data for _, data in seen} == {0}
    assert all(isinstance(moment, datetime) for moment in times)


def test_progress_leaves_no_event_for_each_update(monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: list[str] = []
    monkeypatch.setattr("prefect.events.utilities.emit_event", lambda event, **_: emitted.append(event))
    advance("s3://bucket/quiet", None, [0.3] * 5)
    assert emitted.count("prefect.artifact.updated") == 0
    assert emitted.count("prefect.artifact.created") == 1


def test_work_that_fails_leaves_how_far_it_came() -> None:
    @flow(persist_result=False)
    def fail() -> None:
        with ProgressArtifact("s3://bucket/fails", total=8):
            report("label", advanced=2)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    (artifact,) = published("s3://bucket/fails")["progress"]
    assert artifact.data == 25
    assert str(artifact.description).startswith("2 of 8 images in")
