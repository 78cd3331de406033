"""What is kept of labels, as options say it: by the thresholds that were saved last for them, of a file, or of a text.

Not here: proposing thresholds (`tasks/outputs/propose_thresholds.py`), and keeping labels by them
(`refseg_core/analysis/label_filter.py`).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from refseg_core.analysis.label_filter import (
    LabelFilter,
    ScoreThresholds,
    parse_thresholds,
    thresholds_from,
)
from refseg_core.errors import ConfigurationError, counted, shortened
from refseg_core.settings.areas import parse_area, why_none_fits
from refseg_core.tables import CategoryThresholds
from tasks.storage.objects import read_uri
from tasks.storage.uris import redact
from tasks.storage.yaml_documents import load_yaml, why_unread
from tasks.store.lineage import labeled_categories
from tasks.store.steps import PROPOSE_THRESHOLDS
from tasks.store.store import Artifact

if TYPE_CHECKING:
    from tasks.store.label_store import StoredLabels

AUTO = "auto"
SCORE_THRESH = 0.5
"""From which score on labels are shown where nothing says another."""
_FILE_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class FilterOptions:
    """What is kept, as the options say it; None where one was not given. See `read_thresholds` and `parse_area`."""

    thresholds: str | None = None
    categories: str | None = None
    min_area: str | None = None
    max_area: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is any."""
        return self != FilterOptions()

    def filter(self, run: "StoredLabels", default: ScoreThresholds) -> LabelFilter:
        """Returns the filter for labels; `default`: the thresholds where none were given. Raises ConfigurationError."""
        chosen = LabelFilter(
            default if self.thresholds is None else read_thresholds(run, self.thresholds, default.others),
            None if self.categories is None else tuple(name.strip() for name in self.categories.split(",")),
            None if self.min_area is None else parse_area(self.min_area),
            None if self.max_area is None else parse_area(self.max_area),
        )
        if (reason := why_none_fits(self.min_area, self.max_area)) is not None:
            raise ConfigurationError(f"--min-area and --max-area: {reason}.")
        chosen.check(labeled_categories(run.store, run.prototypes()))
        return chosen


def evaluated_filter(run: "StoredLabels", options: FilterOptions | None) -> LabelFilter | None:
    """Returns what is evaluated: by the options, with saved thresholds; None where there is neither."""
    if options is None and last_proposal(run) is None:
        return None
    return (options or FilterOptions()).filter(run, shown_thresholds(run))


def shown_thresholds(run: "StoredLabels") -> ScoreThresholds:
    """Returns the thresholds by which labels are shown: those that were saved for them, else 0.5."""
    made = _all_proposals(run)
    own = _last_of(run, made)
    if own is not None:
        return _thresholds_of(run, own)
    other = _other_labels(run, made)
    source = f"as no thresholds were saved for these labels, only for the labels {other}" if other else ""
    return ScoreThresholds(SCORE_THRESH, source=source)


def saved_thresholds(run: "StoredLabels") -> ScoreThresholds | None:
    """Returns the thresholds that were saved last for labels, or None; 0.5 for categories that nothing said one for."""
    artifact = last_proposal(run)
    return None if artifact is None else _thresholds_of(run, artifact)


def _thresholds_of(run: "StoredLabels", artifact: Artifact) -> ScoreThresholds:
    table = run.store.load(artifact, CategoryThresholds)
    proposals = zip(table.category_name, table.score_thresh, strict=True)
    by_name = {str(name): float(thresh) for name, thresh in proposals if thresh is not None}
    return ScoreThresholds(SCORE_THRESH, by_name, f"saved in {artifact.name}{_of_a_part(run, artifact, table)}")


def threshold_note(run: "StoredLabels") -> str | None:
    """Returns what there is to know of saved thresholds before labels are used: see the two below; else None."""
    return outdated_thresholds(run) or unused_thresholds(run)


def unused_thresholds(run: "StoredLabels") -> str | None:
    """Returns a sentence where the store has thresholds for other labels, and none for these; else None."""
    made = _all_proposals(run)
    other = _other_labels(run, made)
    if other is None or _last_of(run, made) is not None:
        return None
    return (
        f"Thresholds: those saved for the labels {other}, which other references or settings made, are not used. "
        f"`refseg thresholds {run.as_argument()}` proposes some for these; --thresholds FILE takes those of a file."
    )


def _all_proposals(run: "StoredLabels") -> list[dict[str, Any]]:
    """Returns the manifests of all thresholds of the store, oldest first."""
    return run.store.manifests(PROPOSE_THRESHOLDS.folder)


def _other_labels(run: "StoredLabels", made: list[dict[str, Any]]) -> str | None:
    """Returns the key of the other labels that thresholds were saved for last, None where there are none."""
    made_for = [str(one["inputs"].get("labels")) for one in made]
    return next((root.rpartition("/")[2] for root in reversed(made_for) if root != run.root), None)


def outdated_thresholds(run: "StoredLabels") -> str | None:
    """Returns a sentence where more images are labeled than when the saved thresholds were proposed; else None."""
    artifact = last_proposal(run)
    if artifact is None or not _is_of_a_part(run, artifact):
        return None
    then, now = _num_then(run.store.load(artifact, CategoryThresholds)), counted(num_labeled(run), "image")
    return (
        f"Thresholds: those saved in {artifact.name} are in use, proposed when {then or 'fewer'} of the {now} were "
        f"labeled. `refseg thresholds {run.as_argument()}` proposes them from all."
    )


def _of_a_part(run: "StoredLabels", artifact: Artifact, table: CategoryThresholds) -> str:
    """Returns from how many of the images thresholds were proposed, in words; '' where no more are labeled now."""
    if not _is_of_a_part(run, artifact):
        return ""
    return f", proposed from {_num_then(table) or 'fewer'} of {counted(num_labeled(run), 'labeled image')}"


def _is_of_a_part(run: "StoredLabels", artifact: Artifact) -> bool:
    return bool((run.store.manifest(artifact.name) or {})["settings"].get("shards") != shards_hash(run))


def _num_then(table: CategoryThresholds) -> int | None:
    """Returns how many images were labeled when thresholds were proposed; None where older tables do not say it."""
    return int(table.num_images[0]) if len(table) and table.num_images[0] is not None else None


def shards_hash(run: "StoredLabels") -> str:
    """Returns the hash of the names of all shards that are labeled: another where more are."""
    names = ",".join(sorted(run.store.listed(f"{run.root}/shards", ".json")))
    return hashlib.sha256(names.encode()).hexdigest()


def num_labeled(run: "StoredLabels") -> int:
    """Returns how many of the current images are labeled."""
    return sum(len(labeled) for labeled in run.read_labeled_images(run.images()))


def last_proposal(run: "StoredLabels") -> Artifact | None:
    """Returns the thresholds that were saved last for labels, or None where there are none."""
    return _last_of(run, _all_proposals(run))


def _last_of(run: "StoredLabels", made: list[dict[str, Any]]) -> Artifact | None:
    own = [one for one in made if one["inputs"].get("labels") == run.root]
    if not own:
        return None
    last = max(own, key=lambda one: (one["settings"]["number"], one["key"]))
    return run.store.named(f"{PROPOSE_THRESHOLDS.folder}/{last['key']}")


def read_thresholds(run: "StoredLabels", text: str, others: float) -> ScoreThresholds:
    """Returns the thresholds of a text: 'auto', a json or YAML file of names and scores, a score, or names with scores.

    `others`: the threshold of categories that scores or a file do not name; saved ones have their own. Raises
    ConfigurationError.
    """
    if text == AUTO:
        saved = saved_thresholds(run)
        if saved is None:
            other = _other_labels(run, _all_proposals(run))
            raise ConfigurationError(
                f"--thresholds auto: {redact(run.store.uri)} has no thresholds for the labels {run.key} yet"
                f"{f', only for the labels {other}' if other else ''}. Propose some with "
                f"`refseg thresholds {run.as_argument()}`, or give scores, as 0.4 or car=0.39,window=0.26."
            )
        return saved
    if _is_folder(text):
        raise ConfigurationError(
            f"--thresholds {shortened(text)!r}: is a folder; expected a json or YAML file of names and scores, or "
            "scores, as 0.4 or car=0.39,window=0.26."
        )
    return _read_file(text, others) if text.endswith(_FILE_SUFFIXES) else parse_thresholds(text, others)


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # such as too long for a path
        return False


def _read_file(uri: str, others: float) -> ScoreThresholds:
    place = f"--thresholds {redact(uri)}"
    try:
        content = load_yaml(read_uri(uri))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{place}: cannot be read as json or YAML: {why_unread(error)}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{place}: expected names of categories with scores, as car: 0.39; got {shortened(str(content))!r}."
        )
    return thresholds_from(content, place, others)
