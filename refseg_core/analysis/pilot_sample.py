"""Which images of a dataset tell most about references when only some are labeled.

Images are spread over the clusters of what the encoder sees in them, and over those that probably show each category
and those that probably do not, by the largest similarity of any patch with its prototype: the first show what is
missed, the others what is found where nothing is.

Shapes: N images, n of them chosen, P patches, C channels, K categories, M = 2 * K needs.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from refseg_core.references.clustering import Floats, Rows, clusters

VERSION = 1  # of which images are chosen

_PRESENT_QUANTILE, _ABSENT_QUANTILE = 0.9, 0.5
_IMAGES_PER_CLUSTER = 4  # of those chosen


class ImageDescription(NamedTuple):
    """An image in short: the mean of its patches' features, float32 [C], unit length, and its similarities [K]."""

    feature_C: Floats
    similarity_K: Floats


class ChosenImages(NamedTuple):
    """The chosen images in the order of choice, their clusters, and what each was chosen for, all [n].

    class_index_n: the category; is_present_n: whether the image probably shows it.
    """

    row_n: Rows
    cluster_n: Rows
    class_index_n: Rows
    is_present_n: npt.NDArray[np.bool_]


def describe_image(features_PC: Tensor, prototypes_KC: Tensor) -> ImageDescription:
    """Describes an image by its patch features and the prototypes, which have unit length."""
    unit_PC = F.normalize(features_PC, dim=1)
    similarity_K = (unit_PC @ prototypes_KC.T).amax(dim=0)
    feature_C = F.normalize(unit_PC.mean(dim=0), dim=0)
    return ImageDescription(feature_C.float().cpu().numpy(), similarity_K.float().cpu().numpy())


def choose_images(features_NC: Floats, similarity_NK: Floats, number: int, seed: int) -> ChosenImages:
    """Chooses `number` images, all where there are no more.

    One after the other is taken for the category that fewest of the chosen show, or lack, whichever is rarer; of the
    images that serve, one of the cluster with the fewest chosen, the most or the least similar first.
    """
    generator = np.random.default_rng(seed)
    num_images, num_categories = similarity_NK.shape
    cluster_N = clusters(features_NC, max(1, min(number, num_images) // _IMAGES_PER_CLUSTER), generator)
    serves_NM, rank_NM = _needs(similarity_NK)
    tie_M = generator.permutation(2 * num_categories)
    is_left_N: npt.NDArray[np.bool_] = np.ones(num_images, dtype=bool)
    served_M = np.zeros(2 * num_categories)
    chosen_of_cluster = np.zeros(cluster_N.max(initial=0) + 1)
    rows: list[int] = []
    needs: list[int] = []
    for _ in range(min(number, num_images)):
        can_serve_M: npt.NDArray[np.bool_] = np.any(serves_NM[is_left_N], axis=0)
        need = int(np.lexsort((tie_M, served_M, ~can_serve_M))[0])
        able_N = np.flatnonzero(is_left_N & (serves_NM[:, need] | ~can_serve_M[need]))
        best = np.lexsort((-rank_NM[able_N, need], chosen_of_cluster[cluster_N[able_N]]))[0]
        row = int(able_N[best])
        is_left_N[row] = False
        served_M += serves_NM[row]
        chosen_of_cluster[cluster_N[row]] += 1
        rows.append(row)
        needs.append(need)
    row_n, need_n = np.array(rows, dtype=np.int64), np.array(needs, dtype=np.int64)
    return ChosenImages(row_n, cluster_N[row_n], need_n % num_categories, need_n < num_categories)


def _needs(similarity_NK: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Returns which images serve each need, bool [N, M], and how well: the categories present, then absent."""
    present_K, absent_K = np.quantile(similarity_NK, [_PRESENT_QUANTILE, _ABSENT_QUANTILE], axis=0)
    serves_NM = np.concatenate([similarity_NK >= present_K, similarity_NK <= absent_K], axis=1)
    return serves_NM, np.concatenate([similarity_NK, -similarity_NK], axis=1)
