"""Targets whose categories have other ids than the references': most formats have only names, and number them.

Not here: comparing labels with them (`refseg_core/evaluation/`).
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import numpy as np

from refseg_core.datasets.dataset import Dataset
from refseg_core.datasets.oddities import EXAMPLES, Oddity
from refseg_core.errors import DatasetError
from refseg_core.table_schema import Array
from refseg_core.tables import Categories

_SHOWN = 8


def numbered_as(references: Categories, targets: Dataset) -> Dataset:
    """Returns the targets with the references' category ids; see `matching_ids`, which raises DatasetError."""
    ids = matching_ids(references, targets.categories)
    if all(own == other for own, other in ids.items()):
        return targets
    labels = targets.federated_labels
    categories = targets.categories.replace(category_id=_mapped(targets.categories.category_id, ids))
    categories = categories[np.argsort(categories.category_id)]
    return replace(
        targets,
        annotations=targets.annotations.replace(category_id=_mapped(targets.annotations.category_id, ids)),
        categories=categories.replace(class_index=np.arange(len(categories), dtype=np.int32)),
        federated_labels=None if labels is None else labels.replace(category_id=_mapped(labels.category_id, ids)),
    )


def matching_ids(references: Categories, targets: Categories) -> dict[int, int]:
    """Maps the ids of the targets' categories to the references' ids of the same, or to ids that they do not use.

    Where no id has two names and no name two ids, ids say what is the same. Else names do, if those of one side are all
    among those of the other: then only the numbering differs. Raises DatasetError where neither says it.
    """
    own = targets.category_id.tolist()
    name_of = dict(zip(own, targets.name, strict=True))
    id_of = dict(zip(references.name, references.category_id.tolist(), strict=True))
    conflicts = _conflicts(id_of, name_of)
    if not conflicts:
        return {category_id: category_id for category_id in own}
    if not (id_of.keys() <= set(targets.name) or set(targets.name) <= id_of.keys()):
        raise DatasetError(
            f"References and targets number their categories differently: {'; '.join(conflicts[:_SHOWN])}. Nor are the "
            "names of one all among those of the other. Give both the same category ids, or names, or where the format "
            "has no ids the same classes.txt."
        )
    unused = count(max([*own, *id_of.values()]) + 1)
    return {category_id: id_of[name] if name in id_of else next(unused) for category_id, name in name_of.items()}


def numbered_otherwise(references: Categories, targets: Categories) -> Oddity | None:
    """Returns which categories the targets number otherwise than the references; None where there are none.

    Raises DatasetError as `matching_ids` does.
    """
    name_of = dict(zip(targets.category_id.tolist(), targets.name, strict=True))
    known = set(references.name)
    ids = matching_ids(references, targets).items()
    other = [
        f"{name_of[own]}: {number} in the references, {own} in the targets"
        for own, number in ids
        if own != number and name_of[own] in known
    ]
    what = "categories that references and targets number differently: matched by name, labels have the references' ids"
    return Oddity(what, len(other), tuple(other[:EXAMPLES])) if other else None


def _conflicts(id_of: Mapping[str, int], name_of: Mapping[int, str]) -> list[str]:
    """Ids of the references that the targets name otherwise, then names that they number otherwise."""
    other_names = [
        f"{category_id} is {name!r} in the references and {name_of[category_id]!r} in the targets"
        for name, category_id in id_of.items()
        if name_of.get(category_id, name) != name
    ]
    other_ids = [
        f"{name!r} is {id_of[name]} in the references and {category_id} in the targets"
        for category_id, name in name_of.items()
        if id_of.get(name, category_id) != category_id
    ]
    return other_names + other_ids


def _mapped(category_ids: Array, ids: Mapping[int, int]) -> Array:
    return np.array([ids[category_id] for category_id in category_ids.tolist()], dtype=np.int64)


def exported_ids(own: Categories, targets: Categories, *, from_one: bool) -> dict[int, int]:
    """Maps the ids of labeled categories to those that exports write.

    These are the ids of the targets' own file, where it has categories and numbers them in a way that can be matched;
    categories that it lacks have ids beyond its own. Else they count from 1, in the order of the labels' ids. With
    `from_one` the former count from 1 too where one of them is 0, which many tools take for background.
    """
    own_ids: list[int] = own.category_id.tolist()
    counted = {category_id: number for number, category_id in enumerate(own_ids, start=1)}
    if not len(targets):
        return counted
    try:
        matched = matching_ids(own, targets)
    except DatasetError:
        return counted
    target_of = {category_id: target_id for target_id, category_id in matched.items()}
    unused = count(max(targets.category_id.tolist()) + 1)
    ids = {category_id: target_of.get(category_id) for category_id in own_ids}
    found = {category_id: next(unused) if target is None else target for category_id, target in ids.items()}
    if not from_one or min(found.values(), default=1) > 0:
        return found
    return {category_id: number for number, category_id in enumerate(sorted(found, key=found.__getitem__), start=1)}
