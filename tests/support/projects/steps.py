"""The steps of a run, each to be called on its own: what a task makes, from what, and that it makes it once."""

import json
from pathlib import Path
from typing import Any

import pytest

from refseg_core.analysis.label_filter import LabelFilter
from refseg_core.settings import Conventions, EvaluationSettings, SamplingSettings
from refseg_core.tables import Detections, LabeledImages
from tasks.evaluate import evaluate
from tasks.fill_memory_bank import fill_memory_bank
from tasks.index_dataset import index_dataset
from tasks.label_shard import label_shard
from tasks.plan_shards import plan_shards
from tasks.postprocess_memory_bank import postprocess_memory_bank
from tasks.sample_references import sample_references
from tasks.segment_references import segment_references
from tasks.specs import DatasetSource, LabelJob
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import LabelPlan
from tasks.store.store import Artifact, Store
from tests.support.projects.project import Project, read_coco


class Steps:
    """The steps of a project's run, each callable on its own with something changed."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.config = project.config
        self.store = Store(self.config.store)

    def elsewhere(self) -> "Steps":
        """The same in another store, where nothing is made yet."""
        content = self.project.content | {"store": str(self.project.folder / "elsewhere")}
        return Steps(Project(self.project.folder, content))

    def dataset(self, source: DatasetSource | None = None) -> Artifact:
        return index_dataset.fn(self.store, source or self.config.references.source)

    def references(
        self,
        settings: SamplingSettings | None = None,
        ids: list[str] | None = None,
        conventions: Conventions = "corrected",
    ) -> Artifact:
        settings = settings or SamplingSettings()
        return sample_references.fn(self.store, self.dataset(), settings, ids, conventions=conventions)

    def boxes_only(self) -> tuple[Artifact, Artifact]:
        source = DatasetSource(
            images=self.config.references.images, annotations=str(self.project.folder / "boxes.json")
        )
        dataset = self.dataset(source)
        return dataset, sample_references.fn(self.store, dataset, SamplingSettings())

    def segment(self, dataset: Artifact, references: Artifact, conventions: Conventions = "corrected") -> Artifact:
        return segment_references.fn(
            self.store,
            dataset=dataset,
            references=references,
            images_uri=self.config.references.images,
            models=self.config.models,
            conventions=conventions,
        )

    def fill(self, dataset: Artifact, references: Artifact) -> Artifact:
        return fill_memory_bank.fn(
            self.store,
            dataset=dataset,
            references=references,
            images_uri=self.config.references.images,
            settings=self.config.references.crop,
            models=self.config.models,
            all_views=self.config.labeling.parts.all_views,
        )

    def prototypes(self) -> Artifact:
        references = self.references()
        return postprocess_memory_bank.fn(self.store, references, self.fill(self.dataset(), references))

    def plan(self, prototypes: Artifact, **changes: Any) -> LabelPlan:
        return plan_shards.fn(
            self.store,
            dataset=self.dataset(self.config.targets.source),
            prototypes=prototypes,
            spec=self.config.label_spec.model_copy(update=changes),
        )

    def label(self, prototypes: Artifact, plan: LabelPlan, **changes: Any) -> list[dict[str, int]]:
        given: dict[str, Any] = {
            "store": self.store.uri,
            "key": plan.key,
            "prototypes": prototypes.name,
        }
        job = LabelJob(**dict(self.config.label_spec) | given | changes)
        return [label_shard.fn(job, shard) for shard in plan.pending]

    def labels(self, plan: LabelPlan) -> tuple[Detections, LabeledImages]:
        parts = list(StoredLabels(self.store, plan.key).read())
        return Detections.concatenate([part for part, _ in parts]), LabeledImages.concatenate([p for _, p in parts])

    def evaluate(
        self,
        prototypes: Artifact,
        plan: LabelPlan,
        conventions: Conventions = "corrected",
        settings: EvaluationSettings | None = None,
        *,
        is_novel: bool = False,
        kept: LabelFilter | None = None,
    ) -> Artifact:
        return evaluate.fn(
            self.store,
            dataset=plan.dataset,
            prototypes=prototypes,
            labels_key=plan.key,
            settings=settings or EvaluationSettings(),
            conventions=conventions,
            is_novel=is_novel,
            kept=kept,
        )

    def manifest(self, artifact: Artifact) -> dict[str, Any]:
        manifest = self.store.manifest(artifact.name)
        assert manifest is not None
        return manifest


def forbid(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} was called again")

    monkeypatch.setattr(module, name, again)


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[object, ...]]:
    """Has a function of a module note what it is called with from now on, and returns the notes."""
    calls: list[tuple[object, ...]] = []
    function = getattr(module, name)

    def noting(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, noting)
    return calls


def make_federated(path: Path) -> None:
    content = read_coco(path)
    for image in content["images"]:
        image |= {"neg_category_ids": [8], "not_exhaustive_category_ids": [3]}
    content["categories"][0]["frequency"] = "r"
    path.write_text(json.dumps(content))
