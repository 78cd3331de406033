"""References can be looked at as soon as they are encoded: each as the encoder sees it, and what is known of it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli.main import main
from refseg_core.errors import ConfigurationError, StoreError
from refseg_core.images import decode_image
from refseg_core.tables import ReferenceQuality
from tasks.outputs.reference_sheets import assess, draw_sheets, newest_prototypes
from tasks.storage.folder import Folder
from tasks.store.garbage import find_garbage
from tasks.store.store import Store
from tests.support.projects.project import CATEGORIES
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]


def test_there_is_a_sheet_for_each_category(steps: Steps, tmp_path: Path) -> None:
    out = tmp_path / "sheets"
    assert draw_sheets(steps.store, steps.prototypes(), Folder(str(out))) == 2
    assert sorted(path.name for path in out.iterdir()) == ["bar.jpg", "box.jpg"]
    sheet = decode_image((out / "box.jpg").read_bytes(), max_pixels=10**7)
    reds = ((sheet[..., 0] > 150) & (sheet[..., 1] < 100)).mean()
    assert reds > 0.2, "the box, which is red, fills most of its crop"


def test_sheets_are_not_written_among_the_reference_images(steps: Steps) -> None:
    with pytest.raises(ConfigurationError, match="pictures may not be written there"):
        draw_sheets(steps.store, steps.prototypes(), Folder(steps.config.references.images))


def test_a_reference_whose_image_is_gone_leaves_its_place(steps: Steps, tmp_path: Path) -> None:
    prototypes = steps.prototypes()
    for path in (steps.project.folder / "references").iterdir():
        path.unlink()
    assert draw_sheets(steps.store, prototypes, Folder(str(tmp_path / "sheets"))) == 2


def test_the_table_is_made_once_and_stays_as_long_as_labels_of_its_references(steps: Steps) -> None:
    prototypes = steps.prototypes()
    made = assess(steps.store, prototypes)
    assert assess(steps.store, prototypes) == made
    quality = steps.store.load(made, ReferenceQuality)
    assert sorted(quality.category_name) == sorted(CATEGORIES.values())
    assert any(one.name.startswith(made.name) for one in find_garbage(steps.store, min_age_hours=0))
    steps.label(prototypes, steps.plan(prototypes))
    assert not any(one.name.startswith(made.name) for one in find_garbage(steps.store, min_age_hours=0))


def test_show_draws_references_before_there_are_labels(steps: Steps, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="`refseg bank` makes references"):
        newest_prototypes(Store(str(tmp_path / "empty")))
    steps.prototypes()
    result = CliRunner().invoke(main, ["show", steps.store.uri, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.exception
    assert "No images are labeled yet. Wrote 2 sheets of references" in result.output
    assert (tmp_path / "out" / "references.jpg").exists()
    assert (tmp_path / "out" / "reference-sheets" / "box.jpg").exists()
