"""The status of a store: what was made, by whom and from what, and how far each labeling is. Changes nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from refseg_core.analysis.decisions import standing
from refseg_core.analysis.label_statistics import PromptShare
from refseg_core.settings.labeling_methods import LABELING_METHODS, MethodParts
from tasks.runtime.progress import ProgressStep, report
from tasks.store.kept_proposals import KeptStatus, kept_status
from tasks.store.label_store import FOLDER, STATUSES, StoredLabels, count_statuses, points_per_image
from tasks.store.reviews import StoredReview
from tasks.store.shard_plans import Wanted
from tasks.store.steps import ARTIFACT_FOLDERS, KEEP_PROPOSALS, REVIEW
from tasks.store.store import Store, size_of


@dataclass(frozen=True)
class Provenance:
    """Who made something, when, with which version, and from what."""

    created: str
    created_by: str
    refseg_version: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    weights: Mapping[str, str]


@dataclass(frozen=True)
class ArtifactStatus(Provenance):
    """An artifact as its manifest describes it; `size` in bytes."""

    name: str
    step: str
    num_rows: Mapping[str, int]
    size: int


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be labeled, and why."""

    image_id: str
    error: str


@dataclass(frozen=True)
class LabelsStatus(Provenance):
    """How far the labels of one recipe are, for the dataset that was requested last; `size` in bytes.

    `purpose`: what that request was for, 'run' where it was for several things.
    `num_images` counts its images, `images` those that were worked on by what became of them. `prompted` tells how much
    of them was prompted, on the path `guided`.
    """

    key: str
    method: str
    path: str
    purpose: str
    dataset: str | None
    num_images: int
    num_shards: int
    missing_shards: tuple[str, ...]
    images: Mapping[str, int]
    num_detections: int
    prompted: str | None
    size: int
    last_commit: str | None
    failed: tuple[FailedImage, ...]

    @property
    def num_labeled(self) -> int:
        """How many images were worked on."""
        return sum(self.images.values())

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return not self.missing_shards and self.num_labeled == self.num_images


@dataclass(frozen=True)
class ReviewStatus:
    """What people have decided on the instances of an image folder: how many of them by which verdict, and who."""

    key: str
    images: str
    verdicts: Mapping[str, int]
    reviewers: tuple[str, ...]
    last_decision: str


@dataclass(frozen=True)
class StoreStatus:
    """Everything a store holds, in the order of the steps, then by age."""

    artifacts: tuple[ArtifactStatus, ...]
    labels: tuple[LabelsStatus, ...]
    reviews: tuple[ReviewStatus, ...] = ()
    kept: tuple[KeptStatus, ...] = ()


def store_status(store: Store) -> StoreStatus:
    """Looks at every manifest."""
    folders = [folder for folder in ARTIFACT_FOLDERS if folder != KEEP_PROPOSALS.folder]  # an artifact for each image
    artifacts = [_artifact_status(folder, one) for folder in folders for one in store.manifests(folder)]
    labels = [_labels_status(store, recipe) for recipe in store.manifests(FOLDER, "recipe.json")]
    reviews = [_review_status(store, recipe) for recipe in store.manifests(REVIEW.folder, "recipe.json")]
    decided = tuple(review for review in reviews if review is not None)
    return StoreStatus(tuple(artifacts), tuple(labels), decided, tuple(kept_status(store)))


def _review_status(store: Store, recipe: Mapping[str, Any]) -> ReviewStatus | None:
    """Returns what was decided, or None where nothing was yet."""
    decisions = StoredReview(store, recipe["key"]).read()
    if not len(decisions):
        return None
    return ReviewStatus(
        key=recipe["key"],
        images=recipe["settings"]["images"],
        verdicts=dict(Counter(standing(decisions).verdict.tolist()).most_common()),
        reviewers=tuple(sorted(set(decisions.reviewer))),
        last_decision=max(decisions.decided_at),
    )


def _artifact_status(folder: str, manifest: Mapping[str, Any]) -> ArtifactStatus:
    return ArtifactStatus(
        name=f"{folder}/{manifest['key']}",
        step=manifest["step"],
        num_rows={part["table"]: part["num_rows"] for part in manifest["tables"]},
        size=size_of(manifest),
        **_provenance(manifest),
    )


def _provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {known.name: manifest[known.name] for known in fields(Provenance)}


def _labels_status(store: Store, recipe: Mapping[str, Any]) -> LabelsStatus:
    run = StoredLabels(store, recipe["key"])
    dataset, images = run.requested(), run.images()
    points = points_per_image(recipe)
    wanted, found = Wanted(images), _ShardCounts(is_guided=points is not None)
    report(ProgressStep.READ_STATUS, total=len(images))
    for shard, num_wanted, manifest in run.shards_with_manifests(wanted):
        report(ProgressStep.READ_STATUS, advanced=num_wanted)
        if manifest is None:
            found.missing.append(shard.name)
        else:
            found.add(run, manifest, wanted if num_wanted < len(shard) else None)
    return LabelsStatus(
        key=recipe["key"],
        method=_method(recipe["settings"]),
        path=recipe["settings"].get("path", "exact"),
        **_provenance(recipe),
        purpose=run.purpose(),
        dataset=None if dataset is None else dataset.name,
        num_images=len(images),
        num_shards=len(found.missing) + found.num_done,
        missing_shards=tuple(found.missing),
        images={status: found.images[status] for status in STATUSES},
        num_detections=found.num_detections,
        prompted=found.prompts.describe(points) if points else None,
        size=found.size,
        last_commit=found.last_commit,
        failed=tuple(found.failed),
    )


def _method(settings: Mapping[str, Any]) -> str:
    """Returns the name of the labeling method whose parts a recipe has."""
    parts = MethodParts(**settings.get("parts", {}))
    return next((name for name, one in LABELING_METHODS.items() if one.parts == parts), "parts of its own")


@dataclass
class _ShardCounts:
    """Counts of the wanted images in shards."""

    is_guided: bool
    missing: list[str] = field(default_factory=list)
    num_done: int = 0
    images: Counter[str] = field(default_factory=Counter)
    num_detections: int = 0
    prompts: PromptShare = PromptShare()
    size: int = 0
    last_commit: str | None = None
    failed: list[FailedImage] = field(default_factory=list)

    def add(self, run: StoredLabels, manifest: Mapping[str, Any], wanted: Wanted | None) -> None:
        """Counts a labeled shard; where only some of its images are wanted, `wanted` says which."""
        self.num_done += 1
        self.size += size_of(manifest)
        self.last_commit = max(self.last_commit or "", str(manifest["created"]))
        if wanted is None and not manifest["images"]["unreadable"] and ("prompts" in manifest or not self.is_guided):
            self.images.update(manifest["images"])
            self.prompts = self.prompts.plus(PromptShare(**manifest.get("prompts", {})))
            self.num_detections += manifest["tables"][0]["num_rows"]
            return
        labeled = run.read_labeled_images_of(manifest)
        labeled = labeled if wanted is None else wanted.among(labeled)
        self.images.update(count_statuses(labeled))
        self.num_detections += int(labeled.num_detections.sum())
        if self.is_guided:
            self.prompts = self.prompts.plus(PromptShare.of(labeled))
        unreadable = labeled[labeled.status == "unreadable"]
        self.failed += map(FailedImage, unreadable.image_id, unreadable.error)
