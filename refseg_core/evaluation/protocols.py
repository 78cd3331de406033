"""Which protocol compares labels with ground truth, and whether the ground truth allows it."""

from refseg_core.errors import DatasetError
from refseg_core.evaluation.coco import evaluate_coco
from refseg_core.evaluation.lvis import evaluate_lvis
from refseg_core.evaluation.semantic import evaluate_semantic
from refseg_core.settings import Conventions, EvaluationSettings, Protocol
from refseg_core.tables import Annotations, Categories, Detections, FederatedLabels, Images, Metrics


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
    protocol = choose_protocol(settings.protocol, conventions, is_federated=federated_labels is not None)
    given = images, annotations, categories, detections
    if protocol == "lvis" and federated_labels is not None:
        return evaluate_lvis(*given, federated_labels, conventions=conventions)
    if protocol == "semantic":
        return evaluate_semantic(*given, score_thresh=settings.semantic_score_thresh, conventions=conventions)
    return evaluate_coco(*given, conventions=conventions)
