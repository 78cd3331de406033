"""What is kept of labels is read from saved thresholds, files and texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.errors import ConfigurationError, NotFoundError
from refseg_core.settings.areas import Area
from refseg_core.tables import CategoryThresholds
from tasks.store.garbage import find_garbage
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import LabelPlan
from tasks.store.steps import PROPOSE_THRESHOLDS
from tasks.store.store import Artifact, Recipe
from tasks.store.thresholds import (
    FilterOptions,
    last_proposal,
    read_thresholds,
    saved_thresholds,
    shards_hash,
    shown_thresholds,
    unused_thresholds,
)
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


@pytest.fixture
def run(steps: Steps) -> StoredLabels:
    """Labels that are planned; none is made yet."""
    plan: LabelPlan = steps.plan(steps.prototypes())
    return StoredLabels(steps.store, plan.key)


_MEASURES = ("thresh_low", "thresh_high", "precision", "precision_low", "precision_high", "recall", "f1")


def _save(run: StoredLabels, number: int, **thresholds: float | None) -> Artifact:
    no_value = np.array([None] * len(thresholds), dtype=object)
    columns: dict[str, Any] = dict.fromkeys(_MEASURES, no_value)
    zeros = np.zeros(len(thresholds), dtype=np.int64)
    table = CategoryThresholds(
        category_id=np.arange(len(thresholds)),
        category_name=np.array(list(thresholds), dtype=object),
        score_thresh=np.array(list(thresholds.values()), dtype=object),
        evidence=np.array(["reviews"] * len(thresholds), dtype=object),
        num_instances=zeros,
        num_labels=zeros,
        num_images=np.array([None] * len(thresholds), dtype=object),
        **columns,
    )
    settings = {"number": number, "shards": shards_hash(run)}
    recipe = Recipe(*PROPOSE_THRESHOLDS, version=1, settings=settings, inputs={"labels": run.root})
    return run.store.make(recipe, lambda: [table])


def test_the_thresholds_that_were_saved_last_for_the_labels_count(run: StoredLabels) -> None:
    assert saved_thresholds(run) is None
    _save(run, 1, box=0.2)
    last = _save(run, 2, box=0.3, bar=None)
    _save(StoredLabels(run.store, "other"), 3, box=0.4)
    assert last_proposal(run) == last
    expected = ScoreThresholds(0.5, {"box": 0.3}, f"saved in {last.name}")
    assert saved_thresholds(run) == shown_thresholds(run) == expected
    assert read_thresholds(run, "auto", 0.0) == expected, "where no label is left out without thresholds, too"
    assert unused_thresholds(run) is None


def test_thresholds_of_other_labels_are_not_used_and_that_is_told(run: StoredLabels) -> None:
    assert unused_thresholds(run) is None
    assert shown_thresholds(run).source == ""
    _save(run, 1, box=0.2)
    later = StoredLabels(run.store, "later")
    only = f"only for the labels {run.key}"
    assert (
        shown_thresholds(later).describe()
        == f"a score of at least 0.5, as no thresholds were saved for these labels, {only}"
    )
    note = unused_thresholds(later)
    assert note is not None
    assert f"saved for the labels {run.key}" in note
    assert f"`refseg thresholds {run.store.uri} --labels later` proposes some" in note
    with pytest.raises(ConfigurationError, match=rf"{only}\. Propose some with `refseg thresholds \S+ --labels later`"):
        read_thresholds(later, "auto", 0.5)


def test_saved_thresholds_stay_as_long_as_their_labels(run: StoredLabels) -> None:
    saved = _save(run, 1, box=0.2)
    assert not [one for one in find_garbage(run.store, min_age_hours=0) if one.name.startswith(saved.name)]
    removed = {one.name for one in find_garbage(run.store, min_age_hours=0, labels=[run.key])}
    assert f"{saved.name}/manifest.json" in removed


def test_auto_without_saved_thresholds_says_how_to_get_some(run: StoredLabels) -> None:
    with pytest.raises(ConfigurationError, match=rf"no thresholds for the labels {run.key} yet.*`refseg thresholds"):
        read_thresholds(run, "auto", 0.5)


def test_thresholds_are_read_from_a_file(run: StoredLabels, tmp_path: Path) -> None:
    for name, text in (("own.json", '{"*": 0.4, "box": 0.3}'), ("own.yaml", "'*': 0.4\nbox: 0.3")):
        (tmp_path / name).write_text(text)
        assert read_thresholds(run, str(tmp_path / name), 0.5) == ScoreThresholds(0.4, {"box": 0.3})
    (tmp_path / "bad.yaml").write_text("[")
    with pytest.raises(ConfigurationError, match=r"bad\.yaml: cannot be read as json or YAML"):
        read_thresholds(run, str(tmp_path / "bad.yaml"), 0.5)
    (tmp_path / "list.json").write_text("[0.4]")
    with pytest.raises(ConfigurationError, match=r"list\.json: expected names of categories with scores"):
        read_thresholds(run, str(tmp_path / "list.json"), 0.5)
    with pytest.raises(NotFoundError, match=r"absent\.json"):
        read_thresholds(run, str(tmp_path / "absent.json"), 0.5)
    with pytest.raises(ConfigurationError, match="is a folder; expected a json or YAML file of names and scores"):
        read_thresholds(run, str(tmp_path), 0.5)


def test_options_make_one_filter(run: StoredLabels) -> None:
    default = ScoreThresholds(0.5, {"box": 0.1})
    assert FilterOptions().filter(run, default) == LabelFilter(default)
    given = FilterOptions("bar=0.2", "box, bar", "10", "50%").filter(run, default)
    assert given == LabelFilter(ScoreThresholds(0.5, {"bar": 0.2}), ("box", "bar"), Area(10), Area(0.5, is_share=True))
    with pytest.raises(ConfigurationError, match=r"'boat': no such category; the references have box, bar\."):
        FilterOptions(categories="boat").filter(run, default)
