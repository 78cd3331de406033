"""Labels are compared with the ground truth by the protocol that fits, once for what decides the numbers."""

import json
import uuid

import numpy as np
import pytest

from refseg_core.errors import DatasetError, StoreError
from refseg_core.evaluation import protocols
from refseg_core.settings import EvaluationSettings
from refseg_core.tables import Annotations, Confusion, Decisions, Detections, Metrics, Misses
from tasks.datasets.indexed import load_dataset
from tasks.store.evaluations import load_review, protocol_of
from tasks.store.label_store import StoredLabels
from tasks.store.reviews import StoredReview
from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Artifact, Recipe, Store
from tests.refseg_core.analysis.drawn_decisions import decision
from tests.support.projects.project import CATEGORIES, Project, read_coco, write_coco
from tests.support.projects.steps import Steps, forbid, make_federated
from tests.support.samples import table_rows

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_labels_are_evaluated_over_the_prototypes_categories(steps: Steps, labeled: tuple[Artifact, LabelPlan]) -> None:
    made = load_review(steps.store, steps.evaluate(*labeled))
    metrics = made.metrics
    assert set(metrics.iou_type) == {"bbox", "segm"}
    assert {name for name in metrics.category_name if name is not None} == set(CATEGORIES.values())
    detections, _ = steps.labels(labeled[1])
    dataset = labeled[1].dataset
    expected = protocols.review(load_dataset(steps.store, dataset), detections)
    assert [type(table) for table in made.tables] == [Metrics, Confusion, Misses]
    assert all(own.equals(other) for own, other in zip(made.tables, expected.tables, strict=True))


def test_metrics_that_were_made_before_there_was_more_than_numbers_are_all_there_is(steps: Steps) -> None:
    metrics = Metrics.empty()
    old = steps.store.make(Recipe("evaluate", "metrics", version=1), lambda: [metrics])
    (kept,) = load_review(steps.store, old).tables
    assert kept.equals(metrics)


def test_ap_over_a_benchmarks_novel_categories_is_told_as_nap(
    steps: Steps, labeled: tuple[Artifact, LabelPlan]
) -> None:
    metrics = steps.evaluate(*labeled, is_novel=True)
    assert {"nAP", "nAP50"} <= set(steps.store.load(metrics, Metrics).metric)


def test_the_evaluation_is_made_once_for_each_convention(
    steps: Steps, labeled: tuple[Artifact, LabelPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected = steps.evaluate(*labeled)
    original = steps.evaluate(*labeled, "original")
    assert corrected.key != original.key
    forbid(monkeypatch, protocols, "review")
    assert steps.evaluate(*labeled) == corrected


def test_only_what_decides_the_numbers_is_in_the_metrics_key(steps: Steps, labeled: tuple[Artifact, LabelPlan]) -> None:
    coco = steps.evaluate(*labeled)
    chosen = EvaluationSettings(protocol="coco", semantic_score_thresh=0.1, score_threshes=(0.7, 0.3, 0.5))
    assert steps.evaluate(*labeled, settings=chosen) == coco
    assert steps.evaluate(*labeled, settings=EvaluationSettings(score_threshes=(0.3,))) != coco
    semantic = [
        steps.evaluate(*labeled, settings=EvaluationSettings(protocol="semantic", semantic_score_thresh=thresh))
        for thresh in (0.0, 0.5)
    ]
    assert len({artifact.key for artifact in (coco, *semantic)}) == 3
    assert [protocol_of(steps.store, one) for one in (coco, *semantic)] == ["coco", "semantic", "semantic"]
    assert set(steps.store.load(semantic[0], Metrics).iou_type) == {"semantic"}


def test_lvis_is_evaluated_by_its_own_protocol_and_originally_by_cocos(steps: Steps) -> None:
    make_federated(steps.project.folder / "targets.json")
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    metrics = steps.evaluate(prototypes, plan)
    assert protocol_of(steps.store, metrics) == "lvis"
    table = steps.store.load(metrics, Metrics)
    value_of = dict(zip(table.metric, table.value.tolist(), strict=True))
    assert value_of["APr"] >= 0, "the targets, not the references, say how frequent a category is"
    assert value_of["APf"] == -1
    original = steps.evaluate(prototypes, plan, "original")
    assert protocol_of(steps.store, original) == "coco"
    assert "APr" not in steps.store.load(original, Metrics).metric


def test_incomplete_labels_are_not_evaluated(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, LabelPlan(plan.dataset, plan.key, plan.pending[:1]))
    with pytest.raises(StoreError, match="only 2 of 5 images are labeled"):
        steps.evaluate(prototypes, plan)
    other = steps.plan(prototypes, labeling=steps.config.labeling.model_copy(update={"points_per_side": 7}))
    with pytest.raises(StoreError, match=rf"only 0 of 5 .*also holds labels {plan.key} \(.*points_per_side"):
        steps.evaluate(prototypes, other)


def test_an_evaluation_may_be_of_some_of_the_labeled_images(steps: Steps, labeled: tuple[Artifact, LabelPlan]) -> None:
    prototypes, plan = labeled
    some = steps.dataset(steps.config.targets.source.model_copy(update={"image_ids": ("2", "3")}))
    metrics = steps.store.load(steps.evaluate(prototypes, LabelPlan(some, plan.key, ())), Metrics)
    overall = metrics[np.array([category is None for category in metrics.category_id])]
    assert set(overall.num_instances.tolist()) == {4}


def test_categories_that_targets_number_differently_are_an_error_that_names_them(steps: Steps) -> None:
    names = [f"t{number}.png" for number in range(5)]
    write_coco(steps.project.folder / "targets.json", names, with_masks=True, categories={3: "bar", 8: "bar stool"})
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    with pytest.raises(DatasetError, match=r"3 is 'box' in the references and 'bar' in the targets.*8 is 'bar'"):
        steps.evaluate(prototypes, plan)


def test_targets_that_number_the_same_names_differently_are_evaluated_by_name(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    numbers = table_rows(steps.store.load(steps.evaluate(prototypes, plan), Metrics))
    path = steps.project.folder / "targets.json"
    content = read_coco(path)
    other_id = {3: 0, 8: 3}
    for one in content["annotations"]:
        one["category_id"] = other_id[one["category_id"]]
    for one in content["categories"]:
        one["id"] = other_id[one["id"]]
    path.write_text(json.dumps(content))
    renumbered = LabelPlan(steps.dataset(steps.config.targets.source), plan.key, ())
    assert table_rows(steps.store.load(steps.evaluate(prototypes, renumbered), Metrics)) == numbers


def test_categories_that_only_the_targets_have_are_left_out(steps: Steps) -> None:
    path = steps.project.folder / "targets.json"
    content = read_coco(path)
    content["categories"].append({"id": 99, "name": "unknown"})
    content["annotations"][0]["category_id"] = 99
    path.write_text(json.dumps(content))
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    metrics = steps.store.load(steps.evaluate(prototypes, plan), Metrics)
    assert "unknown" not in set(metrics.category_name)


def test_messages_show_no_secret(project: Project) -> None:
    steps = Steps(project)
    steps.store = Store(f"memory://user:hunter2@{uuid.uuid4().hex}/store")
    prototypes = steps.prototypes()
    with pytest.raises(StoreError, match="only 0 of 5 images are labeled") as caught:
        steps.evaluate(prototypes, steps.plan(prototypes))
    assert "hunter2" not in str(caught.value)


def _decide(verdict: str, instances: Detections | Annotations) -> Decisions:
    """The same verdict on every instance."""
    columns = (instances.image_id, instances.category_id.tolist(), instances.mask_rle)
    names = ({"category_name": CATEGORIES[one], "found_category_name": CATEGORIES[one]} for one in columns[1])
    rows = [
        decision(verdict, mask, image_id=image_id, category=category, image_version="", **named)
        for image_id, category, mask, named in zip(*columns, names, strict=True)
    ]
    return Decisions.concatenate(rows)


@pytest.mark.slow
def test_labels_are_evaluated_by_what_people_decided_on_them(steps: Steps, labeled: tuple[Artifact, LabelPlan]) -> None:
    before = steps.evaluate(*labeled)
    assert steps.store.load(before, Metrics).overall("AP")["segm"] < 0.1
    review = StoredReview.open(StoredLabels(steps.store, labeled[1].key))
    rejected, added = (
        _decide("reject", steps.labels(labeled[1])[0]),
        _decide("add", steps.store.load(labeled[1].dataset, Annotations)),
    )
    review.append(rejected)
    review.append(added)
    after = steps.evaluate(*labeled)
    assert steps.store.load(after, Metrics).overall("AP")["segm"] == 1
    review.append(_decide("undecided", steps.store.load(labeled[1].dataset, Annotations)[:1]))
    undone = steps.evaluate(*labeled)
    assert len({before.key, after.key, undone.key}) == 3
    review.append(added.replace(decided_at=np.full(len(added), "2027", dtype=object)))
    assert steps.evaluate(*labeled).key == undone.key, (
        "decisions that are there twice count once, from the first time on"
    )
