"""The protocol follows the ground truth unless it is chosen, and one that does not fit is refused."""

import pytest

from refseg_core.errors import DatasetError
from refseg_core.evaluation.protocols import choose_protocol, evaluate
from refseg_core.settings import Conventions, EvaluationSettings, ProtocolName
from tests.support.oracles.evaluation_cases import a_federated_case, dataset_of


@pytest.mark.parametrize(
    ("is_federated", "conventions", "expected"),
    [
        (False, "corrected", "coco"),
        (False, "original", "coco"),
        (True, "corrected", "lvis"),
        (True, "original", "coco"),
    ],
)
def test_auto_is_lvis_where_it_can_be_and_the_original_knows_only_coco(
    is_federated: bool, conventions: Conventions, expected: ProtocolName
) -> None:
    assert choose_protocol("auto", conventions, is_federated=is_federated) == expected


@pytest.mark.parametrize("conventions", ["corrected", "original"])
@pytest.mark.parametrize("protocol", ["coco", "lvis", "semantic"])
def test_what_is_chosen_stays(protocol: ProtocolName, conventions: Conventions) -> None:
    assert choose_protocol(protocol, conventions, is_federated=True) == protocol


def test_lvis_without_its_labels_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"'lvis', but no image entry.*'auto' or 'coco'"):
        choose_protocol("lvis", "corrected", is_federated=False)


@pytest.mark.parametrize(
    ("protocol", "metric"), [("auto", "APr"), ("lvis", "APr"), ("coco", "AR100"), ("semantic", "mIoU")]
)
def test_each_protocol_gives_its_numbers(protocol: ProtocolName, metric: str) -> None:
    document, detections = a_federated_case(0)
    dataset = dataset_of(document)
    metrics = evaluate(
        dataset,
        detections,
        settings=EvaluationSettings(protocol=protocol),
    )
    assert metric in set(metrics.metric)
    assert (set(metrics.iou_type) == {"semantic"}) == (protocol == "semantic")


def test_the_threshold_and_the_conventions_reach_the_protocol() -> None:
    document, detections = a_federated_case(0)
    dataset = dataset_of(document)
    values = {
        tuple(
            evaluate(
                dataset,
                detections,
                settings=EvaluationSettings(protocol="semantic", semantic_score_thresh=thresh),
                conventions=conventions,
            ).value.tolist()
        )
        for thresh in (0.2, 0.8)
        for conventions in ("corrected", "original")
    }
    assert len(values) == 4
