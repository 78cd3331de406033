"""Which protocol compares labels with ground truth, and whether the ground truth allows it.

Each protocol of `refseg_core/settings/choices.py` names a function here that puts it together.
"""

from collections.abc import Callable
from typing import NamedTuple

from refseg_core.datasets.dataset import Dataset
from refseg_core.errors import DatasetError
from refseg_core.evaluation.coco import compare_coco
from refseg_core.evaluation.diagnostics import Review, diagnose
from refseg_core.evaluation.lvis import compare_lvis
from refseg_core.evaluation.matching import CategoryMatches
from refseg_core.evaluation.semantic import evaluate_semantic
from refseg_core.evaluation.summary import InstanceComparison, summarize
from refseg_core.evaluation.voc import with_voc_ap
from refseg_core.settings import Conventions, EvaluationSettings, ProtocolName
from refseg_core.settings.choices import PROTOCOLS
from refseg_core.tables import Detections, Metrics

VERSION = 2  # of every number of an evaluation


class Compared(NamedTuple):
    """Ground truth and labels, and how they are compared."""

    truth: Dataset
    detections: Detections
    settings: EvaluationSettings
    conventions: Conventions


def by_coco(given: Compared) -> InstanceComparison:
    """Compares as COCO does."""
    return compare_coco(given.truth, given.detections, conventions=given.conventions)


def by_voc(given: Compared) -> InstanceComparison:
    """Compares as COCO does, and adds VOC's AP."""
    return with_voc_ap(by_coco(given), given.conventions)


def by_lvis(given: Compared) -> InstanceComparison:
    """Compares as LVIS does."""
    return compare_lvis(given.truth, given.detections, conventions=given.conventions)


def by_semantic(given: Compared) -> Metrics:
    """Compares pixels."""
    thresh = given.settings.semantic_score_thresh
    return evaluate_semantic(given.truth, given.detections, score_thresh=thresh, conventions=given.conventions)


def choose_protocol(protocol: ProtocolName, conventions: Conventions, *, is_federated: bool) -> ProtocolName:
    """Returns what 'auto' means for ground truth with or without LVIS's federated labels; other protocols stay.

    The published code evaluates LVIS by COCO's protocol. Raises DatasetError if the labels that it needs are missing.
    """
    if protocol == "auto":
        return "lvis" if is_federated and conventions == "corrected" else "coco"
    if PROTOCOLS[protocol].needs_federated_labels and not is_federated:
        raise DatasetError(
            f"evaluation.protocol is '{protocol}', but no image entry of the targets' annotations has LVIS's "
            "neg_category_ids and not_exhaustive_category_ids, which say what counts in it. Give LVIS's own file, or "
            "set evaluation.protocol to 'auto' or 'coco'."
        )
    return protocol


def evaluate(
    truth: Dataset,
    detections: Detections,
    *,
    settings: EvaluationSettings | None = None,
    conventions: Conventions = "corrected",
) -> Metrics:
    """Returns the numbers of the chosen protocol over the images and categories of the ground truth.

    Raises DatasetError if the protocol does not fit the ground truth.
    """
    compared = _compare(Compared(truth, detections, settings or EvaluationSettings(), conventions))
    return compared if isinstance(compared, Metrics) else summarize(compared)


def review(
    truth: Dataset,
    detections: Detections,
    *,
    settings: EvaluationSettings | None = None,
    conventions: Conventions = "corrected",
    is_novel: bool = False,
    thresh_of: Callable[[str], float] | None = None,
) -> Review:
    """Returns the same with what explains it, as `diagnose` says."""
    settings = settings or EvaluationSettings()
    compared = _compare(Compared(truth, detections, settings, conventions))
    if isinstance(compared, Metrics):
        return Review(compared)
    return diagnose(compared, settings, conventions, is_novel=is_novel, thresh_of=thresh_of)


def match_instances(truth: Dataset, detections: Detections, conventions: Conventions) -> list[CategoryMatches]:
    """Returns what became of the detections of each category, by ascending id: of masks where there are any.

    Compared as LVIS does where the ground truth has its federated labels, else as COCO does.
    """
    given = Compared(truth, detections, EvaluationSettings(), conventions)
    comparison = by_coco(given) if truth.federated_labels is None else by_lvis(given)
    return list(comparison.matches.values())[-1]


def _compare(given: Compared) -> InstanceComparison | Metrics:
    """Returns the comparison of instances, or the metrics of a protocol that compares something else."""
    is_federated = given.truth.federated_labels is not None
    protocol = choose_protocol(given.settings.protocol, given.conventions, is_federated=is_federated)
    compared: InstanceComparison | Metrics = PROTOCOLS[protocol].load()(given)
    return compared
