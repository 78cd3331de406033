"""Versions of algorithms, made one."""

import pytest

from refseg_core.labeling import merging, previews
from refseg_core.labeling.batch_labeler import version_of
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.versions import combined


def test_a_change_of_any_algorithm_is_a_change_of_all() -> None:
    assert combined(1, 1, 1) == 1
    assert combined(1, 2, 1) == combined(2, 1, 1) == 2
    assert combined(3, 2) == 4


@pytest.mark.parametrize("path", LABELING_PATHS)
def test_a_change_of_merging_changes_the_labels_of_every_path(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = version_of(path)
    monkeypatch.setattr(merging, "VERSION", merging.VERSION + 1)
    assert version_of(path) == before + 1


def test_a_change_of_previews_changes_only_the_labels_of_paths_that_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: version_of(path) for path in LABELING_PATHS}
    monkeypatch.setattr(previews, "VERSION", previews.VERSION + 1)
    assert [path for path in before if version_of(path) != before[path]] == ["fast", "turbo"]
