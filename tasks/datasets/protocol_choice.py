"""By which protocol labels of an indexed dataset are evaluated."""

from refseg_core.evaluation.protocols import choose_protocol
from refseg_core.evaluation.semantic import require_masks
from refseg_core.settings import Conventions, EvaluationSettings, ProtocolName
from refseg_core.settings.choices import PROTOCOLS
from refseg_core.tables import Annotations
from tasks.datasets.indexed import is_federated
from tasks.store.store import Artifact, Store


def chosen_protocol(dataset: Artifact, settings: EvaluationSettings, conventions: Conventions) -> ProtocolName:
    """Returns the protocol that the settings choose for a dataset."""
    return choose_protocol(settings.protocol, conventions, is_federated=is_federated(dataset))


def check_protocol(store: Store, dataset: Artifact, settings: EvaluationSettings, conventions: Conventions) -> None:
    """Raises DatasetError where the dataset does not hold what the protocol compares."""
    if PROTOCOLS[chosen_protocol(dataset, settings, conventions)].of_pixels:
        require_masks(store.load(dataset, Annotations))
