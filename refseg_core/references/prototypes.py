"""Step 4: aggregates the memory bank into one prototype per category. Method, section 5."""

import numpy as np

from refseg_core.tables import MemoryBank, Prototypes

VERSION = 1  # of prototypes


def postprocess_memory_bank(bank: MemoryBank) -> Prototypes:
    """The normalized mean of each category's features, by ascending category id.

    The features themselves are not normalized before the mean, so a reference with larger features weighs more.
    """
    category_ids, class_indices, counts = np.unique(bank.category_id, return_inverse=True, return_counts=True)
    sums = np.zeros((len(category_ids), bank.feature.shape[1]))
    np.add.at(sums, class_indices, bank.feature)
    means = sums / counts[:, None]
    return Prototypes(
        category_id=category_ids,
        num_references=counts,
        prototype=means / np.linalg.norm(means, axis=1, keepdims=True),
    )
