"""Groups of vectors that point alike: k-means on the unit sphere.

Shapes: N vectors of C channels and unit length, K groups.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_ITERATIONS = 25


def clusters(features_NC: Floats, number: int, generator: np.random.Generator) -> Rows:
    """Returns the group of each vector, int64 [N]: of at most `number`, begun far apart."""
    similarity_NN = features_NC @ features_NC.T
    centers = [int(generator.integers(len(features_NC)))]
    for _ in range(min(number, len(features_NC)) - 1):
        distance_N = np.maximum(1 - similarity_NN[:, centers].max(axis=1), 0)
        distance_N[centers] = 0
        if distance_N.sum() == 0:  # all vectors are alike
            break
        centers.append(int(generator.choice(len(features_NC), p=distance_N / distance_N.sum())))
    centers_KC = features_NC[centers]
    cluster_N = np.zeros(len(features_NC), dtype=np.int64)
    for _ in range(_ITERATIONS):
        cluster_N = (features_NC @ centers_KC.T).argmax(axis=1)
        sums_KC = np.zeros_like(centers_KC)
        np.add.at(sums_KC, cluster_N, features_NC)
        lengths_K1 = np.linalg.norm(sums_KC, axis=1, keepdims=True)
        moved_KC = np.where(lengths_K1 > 0, sums_KC / np.maximum(lengths_K1, 1e-12), centers_KC)
        if np.array_equal(moved_KC, centers_KC):
            break
        centers_KC = moved_KC
    return cluster_N
