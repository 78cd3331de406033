"""References are compared with one another, and what is odd about one is said in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refseg_core.analysis.reference_quality import assess_references, leave_one_out
from refseg_core.masks.rle import encode_masks
from refseg_core.table_schema import Array
from refseg_core.tables import Categories, MemoryBank, ReferenceQuality, References

_NAMES = {4: "window", 9: "door"}
_CATEGORIES = Categories(
    category_id=np.array(list(_NAMES)),
    class_index=np.arange(2, dtype=np.int32),
    name=np.array(list(_NAMES.values()), dtype=object),
    frequency=np.array([None, None], dtype=object),
)


def _bank(features: dict[int, list[list[float]]], weight: float = 100) -> MemoryBank:
    """A bank of the features of each category's references."""
    ids = [category_id for category_id, rows in features.items() for _ in rows]
    shots = [shot for rows in features.values() for shot in range(len(rows))]
    return MemoryBank(
        category_id=np.array(ids),
        shot=np.array(shots, dtype=np.int32),
        foreground_weight=np.full(len(ids), weight, dtype=np.float32),
        feature=np.array([row for rows in features.values() for row in rows], dtype=np.float32),
    )


def _references(bank: MemoryBank) -> References:
    """The references of a bank, each with an annotation of its own and a mask of the dataset."""
    num = len(bank)

    def texts(text: str) -> Array:
        return np.array([f"{text}{row}" for row in range(num)], dtype=object)

    return References(
        category_id=bank.category_id,
        shot=bank.shot,
        image_id=texts("i"),
        annotation_id=texts("a"),
        file_name=texts("f"),
        box_xyxy=np.zeros((num, 4)),
        mask_rle=np.full(num, None, dtype=object),
        mask_source=np.full(num, "dataset", dtype=object),
        mask_score=np.full(num, None, dtype=object),
    )


def _quality(bank: MemoryBank, references: References | None = None) -> ReferenceQuality:
    references = references or _references(bank)
    return assess_references(references, bank, _CATEGORIES)


def test_a_reference_that_another_category_predicts_better_is_named_with_both_numbers() -> None:
    quality = _quality(_bank({4: [[1, 0], [1, 0], [0.6, 0.8]], 9: [[0, 1], [0, 2]]}))
    assert quality.own_similarity.tolist() == pytest.approx([0.894, 0.894, 0.6, 1, 1], abs=1e-3)
    assert quality.other_similarity.tolist() == pytest.approx([0, 0, 0.8, 0.295, 0.295], abs=1e-3)
    assert quality.is_outlier.tolist() == [False, False, True, False, False]
    assert quality.advice[2] == "looks like door: 0.80 against 0.60"
    assert quality.other_category_name.tolist() == ["door", "door", "door", "window", "window"]


def test_a_reference_unlike_the_others_of_its_category_is_an_outlier_though_no_category_is_nearer() -> None:
    quality = _quality(_bank({4: [[1, 0.1, 0], [1, 0, 0.1], [1, 0.1, 0.1], [1, 0, 0], [0.3, 0, 1]], 9: [[0, -1, 0]]}))
    assert quality.is_outlier.tolist() == [False] * 4 + [True, False]
    assert quality.advice[4].startswith("unlike the other examples of window: 0.3")


def test_an_only_reference_and_an_only_category_have_nothing_to_be_compared_with() -> None:
    quality = _quality(_bank({4: [[1, 0]]}))
    assert quality.own_similarity.tolist() == [None]
    assert quality.other_category_id.tolist() == [None]
    assert quality.advice.tolist() == [""]


def test_a_copy_does_not_predict_itself() -> None:
    bank = _bank({4: [[1, 0], [1, 0], [0, 1]]})
    compared = leave_one_out(bank, np.array(["a", "a", "b"], dtype=object))
    assert compared.own.tolist() == pytest.approx([0, 0, 0])


def test_small_masks_and_unsure_ones_are_told() -> None:
    bank = _bank({4: [[1, 0], [1, 0]]}, weight=2.5)
    mask = encode_masks(np.pad(np.ones((1, 40, 50), dtype=bool), ((0, 0), (0, 60), (0, 50))))[0]
    masks = np.empty(2, dtype=object)
    masks[:] = [mask, mask]
    references = _references(bank).replace(
        mask_rle=masks,
        mask_source=np.array(["dataset", "segmenter"], dtype=object),
        mask_score=np.array([None, 0.4], dtype=object),
    )
    first, second = _quality(bank, references).advice
    assert first == "its mask covers 2.5 patches only: give a larger example, or look at its mask"
    assert second.endswith("the segmenter is unsure of its mask (0.40): give a mask")


def test_a_reference_that_the_bank_left_out_is_told() -> None:
    bank = _bank({4: [[1, 0], [1, 0]]})
    quality = _quality(bank[:1], _references(bank))
    assert quality.num_patches.tolist() == [100, 0]
    assert "left out of the bank" in quality.advice[1]


def test_one_instance_under_two_annotations_is_told_and_copies_of_one_annotation_are_not() -> None:
    bank = _bank({4: [[1, 0], [1, 0], [1, 0], [1, 1]], 9: [[1, 0]]})
    references = _references(bank)
    ids = np.array(["a0", "a0", "a2", "a3", "a4"], dtype=object)
    same = references.replace(file_name=np.array(["f", "f", "f", "g", "f"], dtype=object), annotation_id=ids)
    advice = _quality(bank, same).advice
    assert "the same instance as a2: it counts twice" in advice[0]
    assert "the same instance as a0: it counts twice" in advice[2]
    assert "the same instance" not in advice[3]
    assert "the same instance as a0 of window: one instance is of one category" in advice[4]
    assert not any("the same instance" in one for one in _quality(bank).advice)
    copies = references.replace(file_name=same.file_name, annotation_id=np.array([*["a0"] * 3, "a3", "a0"]))
    assert not any("the same instance" in one for one in _quality(bank, copies).advice)


@settings(max_examples=30)
@given(order=st.permutations(range(6)))
def test_the_order_of_references_does_not_matter(order: list[int]) -> None:
    bank = _bank({4: [[1, 0, 0.2], [1, 0.3, 0], [0.5, 0.5, 0.5]], 9: [[0, 1, 0], [0.2, 1, 0], [0, 1, 0.9]]})
    names = np.array(list("abcdef"), dtype=object)
    expected, found = leave_one_out(bank, names), leave_one_out(bank[np.array(order)], names[order])
    assert found.own.tolist() == pytest.approx(expected.own[order].tolist())
    assert found.nearest.tolist() == pytest.approx(expected.nearest[order].tolist())
