"""What reference images show outside of all annotations, as a few prototypes of what is not to be labeled.

The patches there are grouped by likeness; each group's mean is a prototype. A group that most references of a category
resemble more than the category itself is left out: instances may be missing among the annotations, and some objects
cannot be told from what they lie on.

Shapes: H, W image (px), g patch grid side, P = g * g patches, N patches of all images, C channels, R references,
J prototypes.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.masks.rle import Masks
from refseg_core.references.clustering import Floats, clusters
from refseg_core.tables import MemoryBank, NegativePrototypes

VERSION = 1  # of the prototypes

NUM_GROUPS = 16
_MOST_PATCHES = 4096  # that are grouped: their similarities to one another are 64 MiB
_PATCHES_OF_GROUP, _FEWEST_PATCHES = 8, 4  # on average at least, and of each
_ALONE = 0.1  # by how much a reference is more like a prototype that it alone has made
_MOST_TAKEN = 0.5  # of a category's references may be more like a group than like their category


class SeenReferences(NamedTuple):
    """References in their whole images: categories [R], features [R, C] of unit length, similarities to their own."""

    category_id: npt.NDArray[np.int64]
    feature_RC: Floats
    own_R: Floats

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Returns those of several images."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls._fields))


def patches_outside(features_PC: Tensor, annotated_HW: Masks) -> Floats:
    """Returns the features of the patches that hold nothing annotated, float32 [at most P, C], unit length."""
    side = round(len(features_PC) ** 0.5)
    inside_P = F.adaptive_max_pool2d(torch.from_numpy(annotated_HW.astype(np.float32))[None], side).flatten() > 0
    outside_NC: Floats = F.normalize(features_PC[~inside_P.to(features_PC.device)], dim=1).cpu().numpy()
    return outside_NC


def seen_references(pooled: Sequence[Tensor | None], bank: MemoryBank, rows: Sequence[int]) -> SeenReferences:
    """Compares references in their whole images with the others of their category, or with themselves, less a margin.

    `pooled`: the mean feature [C] of each, None where it covers hardly any patch: it is left out. `rows`: where the
    bank has them.
    """
    seen = [(row, feature_C) for row, feature_C in zip(rows, pooled, strict=True) if feature_C is not None]
    features = [F.normalize(feature_C, dim=0).cpu().numpy() for _, feature_C in seen]
    feature_RC = np.array(features, dtype=np.float32).reshape(-1, bank.feature.shape[1])
    own = [_own_similarity(feature_C, bank, row) for feature_C, (row, _) in zip(feature_RC, seen, strict=True)]
    category_id = bank.category_id[np.array([row for row, _ in seen], dtype=np.int64)]
    return SeenReferences(category_id, feature_RC, np.array(own, dtype=np.float32))


def background_prototypes(patches_NC: Floats, references: SeenReferences, *, seed: int = 0) -> NegativePrototypes:
    """Returns the background in at most 16 prototypes, with ids below 0; `num_references` counts patches.

    `patches_NC`: of all images, unit length, in an order that does not depend on that of the references.
    """
    generator = np.random.default_rng(seed)
    drawn = np.sort(generator.permutation(len(patches_NC))[:_MOST_PATCHES])
    if not len(drawn):
        return NegativePrototypes.empty()
    number = max(1, min(NUM_GROUPS, len(drawn) // _PATCHES_OF_GROUP))
    cluster_N = clusters(patches_NC[drawn], number, generator)
    counts = np.bincount(cluster_N)
    means_JC = np.stack([patches_NC[drawn][cluster_N == group].mean(axis=0) for group in np.flatnonzero(counts)])
    means_JC /= np.maximum(np.linalg.norm(means_JC, axis=1, keepdims=True), 1e-12)
    counts_J = counts[counts > 0]
    kept = np.flatnonzero((counts_J >= _FEWEST_PATCHES) & ~_takes_references(means_JC, references))
    return NegativePrototypes(
        category_id=-1 - np.arange(len(kept)), num_references=counts_J[kept], prototype=means_JC[kept]
    )


def _own_similarity(feature_C: Floats, bank: MemoryBank, row: int) -> float:
    """Returns the cosine of a reference in its image with its category."""
    of_category = bank.category_id == bank.category_id[row]
    others = of_category & (np.arange(len(bank)) != row)
    mean_C = bank.feature[others if others.any() else of_category].mean(axis=0)
    cosine = float(feature_C @ mean_C / max(float(np.linalg.norm(mean_C)), 1e-12))
    return cosine if others.any() else cosine - _ALONE


def _takes_references(means_JC: Floats, references: SeenReferences) -> npt.NDArray[np.bool_]:
    """Returns which groups [J] more than half of the references of some category resemble more than the category."""
    is_nearer_JR = means_JC @ references.feature_RC.T >= references.own_R
    taken_J = np.zeros(len(means_JC), dtype=bool)
    for category_id in np.unique(references.category_id):
        taken_J |= is_nearer_JR[:, references.category_id == category_id].mean(axis=1) > _MOST_TAKEN
    return taken_J
