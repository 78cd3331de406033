"""Versions of algorithms: each rises with the numbers that its algorithm computes, and several make one."""

import re
from pathlib import Path
from types import ModuleType

import pytest

import refseg_core
from refseg_core.labeling import merging, previews, refinement, second_look
from refseg_core.labeling.batch_labeler import version_of
from refseg_core.settings import LabelingSettings
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.versions import combined
from tests.support.oracles.version_cases import CASES, numbers_of, recorded
from tests.support.oracles.version_cases import version_of as version_of_case

_RECORD = "Record its numbers: python -m tests.support.oracles.version_cases"


def test_a_change_of_any_algorithm_is_a_change_of_all() -> None:
    assert combined(1, 1, 1) == 1
    assert combined(1, 2, 1) == combined(2, 1, 1) == 2
    assert combined(3, 2) == 4


@pytest.mark.parametrize("path", LABELING_PATHS)
def test_a_change_of_merging_changes_the_labels_of_every_path(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = version_of(LabelingSettings(path=path))
    monkeypatch.setattr(merging, "VERSION", merging.VERSION + 1)
    assert version_of(LabelingSettings(path=path)) == before + 1


def test_a_change_of_previews_changes_only_the_labels_of_paths_that_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: version_of(LabelingSettings(path=path)) for path in LABELING_PATHS}
    monkeypatch.setattr(previews, "VERSION", previews.VERSION + 1)
    assert [path for path in before if version_of(LabelingSettings(path=path)) != before[path]] == ["fast"]


@pytest.mark.parametrize(
    ("module", "part"), [(second_look, {"max_second_looks": 1}), (refinement, {"max_refined_masks": 1})]
)
def test_a_change_of_a_part_changes_only_the_labels_that_have_it(
    module: ModuleType, part: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [LabelingSettings(path=path) for path in LABELING_PATHS]
    settings += [LabelingSettings(method="accurate", **dict.fromkeys(part, 0))]
    with_part = [LabelingSettings(method="accurate"), LabelingSettings(**part)]
    before = [version_of(each) for each in (*settings, *with_part)]
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    after = [version_of(each) for each in (*settings, *with_part)]
    assert after == [*before[: len(settings)], *(version + 1 for version in before[len(settings) :])]


@pytest.mark.parametrize("name", CASES)
def test_an_algorithm_computes_what_it_did_at_its_version(name: str) -> None:
    """Fails where numbers change and the version does not, and where a new version's numbers are not recorded."""
    was = recorded()[name]
    assert version_of_case(name) == was["version"], f"{name}: its version is new. {_RECORD}"
    now = numbers_of(name)
    assert now == pytest.approx(was["numbers"], rel=1e-3, abs=1e-4), (
        f"{name}: computes other numbers than version {was['version']} did, so stored results are stale. If that is "
        f"meant, count its version up, and then: {_RECORD}"
    )


def test_every_version_has_a_case() -> None:
    package = Path(refseg_core.__file__).parent
    constants = {
        f"{file.relative_to(package).with_suffix('').as_posix().replace('/', '.')}:{found}"
        for file in package.rglob("*.py")
        for found in re.findall(r"^(\w*VERSION) = \d+", file.read_text(), re.MULTILINE)
    }
    assert {name.removesuffix(":VERSION") for name in constants} == set(CASES) == set(recorded())
