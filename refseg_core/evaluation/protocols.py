"""Which protocol compares labels with ground truth, and whether the ground truth allows it."""

from refseg_core.errors import DatasetError
from refseg_core.evaluation.coco import compare_coco
from refseg_core.evaluation.diagnostics import Review, diagnose
from refseg_core.evaluation.lvis import compare_lvis
from refseg_core.evaluation.semantic import evaluate_semantic
from refseg_core.evaluation.summary import InstanceComparison, summarize
from refseg_core.evaluation.voc import with_voc_ap
from refseg_core.settings import Conventions, EvaluationSettings, Protocol
from refseg_core.tables import Annotations, Categories, Detections, FederatedLabels, Images, Metrics

VERSION = 2  # of every number of an evaluation

_Given = tuple[Images, Annotations, Categories, Detections]


def choose_protocol(protocol: Protocol, conventions: Conventions, *, is_federated: bool) -> Protocol:
    """What 'auto' means for ground truth with or without LVIS's federated labels; other protocols stay.

    The published code evaluates LVIS by COCO's protocol. Raises DatasetError where LVIS's lacks its labels.
    """
    if protocol == "auto":
        return "lvis" if is_federated and conventions == "corrected" else "coco"
    if protocol == "lvis" and not is_federated:
        raise DatasetError(
            "evaluation.protocol is 'lvis', but no image entry of the targets' annotations has LVIS's "
            "neg_category_ids and not_exhaustive_category_ids, which say what counts in it. Give LVIS's own file, or "
            "set evaluation.protocol to 'auto' or 'coco'."
        )
    return protocol


def evaluate(
    images: Images,
    annotations: Annotations,
    categories: Categories,
    detections: Detections,
    *,
    federated_labels: FederatedLabels | None = None,
    settings: EvaluationSettings | None = None,
    conventions: Conventions = "corrected",
) -> Metrics:
    """The numbers of the chosen protocol over the given images and categories.

    Raises DatasetError where the protocol does not fit the ground truth.
    """
    settings = settings or EvaluationSettings()
    given = images, annotations, categories, detections
    comparison = _compare(given, federated_labels, settings, conventions)
    return summarize(comparison) if comparison else _of_pixels(given, settings, conventions)


def review(
    images: Images,
    annotations: Annotations,
    categories: Categories,
    detections: Detections,
    *,
    federated_labels: FederatedLabels | None = None,
    settings: EvaluationSettings | None = None,
    conventions: Conventions = "corrected",
    is_novel: bool = False,
) -> Review:
    """The same and what a reviewer asks beside it; `is_novel`: the categories are a benchmark's novel ones."""
    settings = settings or EvaluationSettings()
    given = images, annotations, categories, detections
    comparison = _compare(given, federated_labels, settings, conventions)
    if comparison is None:
        return Review(_of_pixels(given, settings, conventions))
    return diagnose(comparison, settings, conventions, is_novel=is_novel)


def _compare(
    given: _Given, labels: FederatedLabels | None, settings: EvaluationSettings, conventions: Conventions
) -> InstanceComparison | None:
    """The comparison of instances; None where pixels are compared."""
    protocol = choose_protocol(settings.protocol, conventions, is_federated=labels is not None)
    if protocol == "semantic":
        return None
    if protocol == "lvis" and labels is not None:
        return compare_lvis(*given, labels, conventions=conventions)
    if protocol == "voc":
        return with_voc_ap(compare_coco(*given, conventions=conventions), conventions)
    return compare_coco(*given, conventions=conventions)


def _of_pixels(given: _Given, settings: EvaluationSettings, conventions: Conventions) -> Metrics:
    return evaluate_semantic(*given, score_thresh=settings.semantic_score_thresh, conventions=conventions)
