"""Step 4: aggregates the memory bank into one prototype per category. Method, section 5.

Instances that show what is not to be labeled have nothing in common: each of them is a prototype of its own.
"""

import numpy as np

from refseg_core.errors import UnusableReferenceError
from refseg_core.tables import MemoryBank, Prototypes

VERSION = 1  # of prototypes


def postprocess_memory_bank(bank: MemoryBank) -> Prototypes:
    """Returns the normalized mean of each category's features, by ascending category id.

    The features themselves are not normalized before the mean, so a reference with larger features weighs more.
    Raises UnusableReferenceError for categories whose mean is zero or not finite.
    """
    category_ids, class_indices, counts = np.unique(bank.category_id, return_inverse=True, return_counts=True)
    sums = np.zeros((len(category_ids), bank.feature.shape[1]))
    np.add.at(sums, class_indices, bank.feature)
    means = sums / counts[:, None]
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        lost = category_ids[~(np.isfinite(lengths) & (lengths > 0))[:, 0]].tolist()
        raise UnusableReferenceError(
            f"The references of categories {lost} have no features: their masks cover no patch. Give them larger "
            "references."
        )
    return Prototypes(category_id=category_ids, num_references=counts, prototype=means / lengths)


def single_prototypes(bank: MemoryBank) -> Prototypes:
    """Returns the normalized feature of each reference, in the order of the bank: several of one category.

    Raises UnusableReferenceError as `postprocess_memory_bank` does, with rows instead of categories.
    """
    each = postprocess_memory_bank(bank.replace(category_id=np.arange(len(bank))))
    return each.replace(category_id=bank.category_id)
