"""Thresholds are proposed from what is known of labels, saved, and used wherever labels are shown and evaluated."""

import numpy as np
import pytest

from flows.reports.threshold_report import counts_of
from refseg_core.analysis.decisions import instance_ids
from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.settings import SamplingSettings
from refseg_core.settings.areas import Area
from refseg_core.tables import CategoryThresholds, Decisions, Metrics, References, ThresholdCurves
from tasks.outputs.propose_thresholds import propose_thresholds
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.store.label_store import StoredLabels
from tasks.store.lineage import references_of
from tasks.store.reviews import StoredReview
from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Artifact
from tasks.store.thresholds import evaluated_filter, last_proposal, outdated_thresholds, shown_thresholds
from tests.support.projects.project import CATEGORIES
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


@pytest.fixture
def run(steps: Steps, labeled: tuple[Artifact, LabelPlan]) -> StoredLabels:
    return StoredLabels(steps.store, labeled[1].key)


def test_ground_truth_says_the_threshold_of_the_best_f1(
    steps: Steps, labeled: tuple[Artifact, LabelPlan], run: StoredLabels
) -> None:
    table = run.store.load(propose_thresholds(run), CategoryThresholds)
    assert table.category_name.tolist() == list(CATEGORIES.values())
    assert table.evidence.tolist() == ["ground truth"] * 2
    assert counts_of(table, 0)[0] == f"{table.num_instances[0]}"
    assert table.num_instances.tolist() == [5, 5]
    kept = LabelFilter(shown_thresholds(run))
    assert kept.thresholds.by_name == dict(zip(table.category_name, table.score_thresh, strict=True))
    metrics = steps.store.load(steps.evaluate(*labeled, kept=kept), Metrics)
    own = {
        (name, category): value
        for kind, name, category, value in zip(
            metrics.iou_type, metrics.metric, metrics.category_name, metrics.value.tolist(), strict=True
        )
        if kind == "segm" and name.endswith("@own")
    }
    for row, name in enumerate(table.category_name):
        assert own["F1@own", name] == pytest.approx(table.f1[row])
        assert own["recall@own", name] == pytest.approx(table.recall[row])
        assert own["score_thresh@own", name] == table.score_thresh[row]
    assert ("F1@own", None) in own


def test_curves_fall_in_recall_and_end_where_labels_do(run: StoredLabels) -> None:
    curves = run.store.load(propose_thresholds(run), ThresholdCurves)
    for category_id in CATEGORIES:
        own = curves[curves.category_id == category_id]
        assert (np.diff(own.score) < 0).all()
        assert (np.diff(own.recall) >= 0).all()


@pytest.mark.slow
def test_the_last_proposal_counts_and_equal_ones_are_made_once(run: StoredLabels) -> None:
    first = propose_thresholds(run)
    assert propose_thresholds(run) == first == last_proposal(run)
    precise = propose_thresholds(run, 0.9)
    assert precise != first
    assert last_proposal(run) == precise
    again = propose_thresholds(run)
    assert last_proposal(run) == again
    assert run.store.load(again, CategoryThresholds).equals(run.store.load(first, CategoryThresholds))


def test_labels_of_some_images_are_enough(steps: Steps) -> None:
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, LabelPlan(plan.dataset, plan.key, plan.pending[:1]))
    run = StoredLabels(steps.store, plan.key)
    some = propose_thresholds(run)
    table = run.store.load(some, CategoryThresholds)
    assert (table.num_instances.tolist(), table.num_images.tolist()) == ([2, 2], [2, 2])
    assert outdated_thresholds(run) is None
    steps.label(prototypes, LabelPlan(plan.dataset, plan.key, plan.pending[1:]))
    assert shown_thresholds(run).source == f"saved in {some.name}, proposed from 2 of 5 labeled images"
    assert "proposed when 2 of the 5 images were labeled. `refseg thresholds" in (outdated_thresholds(run) or "")
    assert run.store.load(propose_thresholds(run), CategoryThresholds).num_instances.tolist() == [5, 5]
    assert outdated_thresholds(run) is None


def _decide(run: StoredLabels, right: set[int]) -> None:
    """A person looks at every label; those of the categories named are right."""
    for number, (detections, _) in enumerate(run.read()):
        one = np.ones(len(detections), dtype=bool)
        texts = {name: np.full(len(one), "", dtype=object) for name in ("image_version", "labels_key")}
        names = np.array([CATEGORIES[category] for category in detections.category_id.tolist()], dtype=object)
        none = np.full(len(one), None, dtype=object)
        StoredReview.open(run).append(
            Decisions(
                decision_id=np.array([f"{number}-{row}" for row in range(len(one))], dtype=object),
                decided_at=np.full(len(one), f"2026-11-29T05:20:0{number}.000000Z", dtype=object),
                reviewer=np.full(len(one), "ann", dtype=object),
                source=np.full(len(one), "review", dtype=object),
                verdict=np.where(np.isin(detections.category_id, list(right)), "accept", "reject").astype(object),
                image_id=detections.image_id,
                instance_id=np.array(instance_ids(detections), dtype=object),
                mask_rle=detections.mask_rle,
                found_category_id=detections.category_id.astype(object),
                found_category_name=names,
                score=detections.score.astype(object),
                predicted_iou=detections.predicted_iou,
                category_id=detections.category_id,
                category_name=names,
                new_mask_rle=none,
                merged_into=none,
                is_audit=one,
                **texts,
            )
        )


def test_without_ground_truth_reviews_say_it(steps: Steps) -> None:
    steps.config = steps.project.config_with({"targets.annotations": None})
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    run = StoredLabels(steps.store, plan.key)
    _decide(run, right={3})
    table = run.store.load(propose_thresholds(run), CategoryThresholds)
    assert table.evidence.tolist() == ["reviews"] * 2
    box, bar = range(2)
    assert table.precision[box] == 1
    assert table.precision_low[box] > 0.5
    assert table.recall[box] == 1
    assert not table.precision[bar]


@pytest.mark.parametrize(("method", "share"), [("accurate", 0.7), ("published", 0.75)])
def test_without_either_the_references_let_one_guess(steps: Steps, method: str, share: float) -> None:
    labeling = {
        "method": method,
        "path": "guided",
        "guidance_thresh": None,
        "points_per_side": 3,
        "pred_iou_thresh": 0.0,
    }
    steps.config = steps.project.config_with({"targets.annotations": None, "labeling": labeling})
    references = steps.references(SamplingSettings(num_shots=2))
    bank = steps.fill(steps.dataset(), references)
    prototypes = postprocess_memory_bank.fn(steps.store, references, bank)
    run = StoredLabels(steps.store, steps.plan(prototypes).key)
    table = run.store.load(propose_thresholds(run), CategoryThresholds)
    assert table.evidence.tolist() == ["references"] * 2
    assert counts_of(table, 0) == ("-", "-"), "no instance and no label says it"
    assert table.score_thresh.tolist() == pytest.approx([share] * 2, abs=0.02), "the references are almost the same"
    assert table.precision.tolist() == [None, None]
    precise = run.store.load(propose_thresholds(run, 0.9), CategoryThresholds)
    assert precise.evidence.tolist() == ["none"] * 2, "references do not say which precision a score has"
    assert shown_thresholds(run).by_name == {}


def test_images_of_references_do_not_decide_thresholds(steps: Steps) -> None:
    prototypes = steps.prototypes()
    name = str(steps.store.load(references_of(steps.store, prototypes), References).file_name[0])
    folder = steps.project.folder
    (folder / "targets" / name).write_bytes((folder / "references" / name).read_bytes())
    annotations = folder / "targets.json"
    annotations.write_text(annotations.read_text().replace("t1.png", name))
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    run = StoredLabels(steps.store, plan.key)
    assert run.store.load(propose_thresholds(run), CategoryThresholds).num_instances.tolist() == [4, 4]


def test_what_is_evaluated_follows_options_then_saved_thresholds(run: StoredLabels) -> None:
    assert evaluated_filter(run, None) is None
    saved = propose_thresholds(run)
    kept = evaluated_filter(run, None)
    assert kept is not None
    assert kept.thresholds.source == f"saved in {saved.name}"


def test_categories_and_areas_decide_the_numbers_and_their_key(
    steps: Steps, labeled: tuple[Artifact, LabelPlan]
) -> None:
    plain = steps.evaluate(*labeled)
    box = steps.evaluate(*labeled, kept=LabelFilter(ScoreThresholds(0.5), ("box",)))
    none = steps.evaluate(*labeled, kept=LabelFilter(ScoreThresholds(0.5), None, Area(1.0, is_share=True)))
    assert len({plain.key, box.key, none.key}) == 3
    assert set(steps.store.load(box, Metrics).category_name) == {"box", None}
    assert max(steps.store.load(none, Metrics).overall("AP").values()) == 0
