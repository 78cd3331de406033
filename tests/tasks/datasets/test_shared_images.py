"""Images that are both references and targets are found by their place and by their content."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refseg_core.errors import DatasetError, counted
from refseg_core.settings import EvaluationSettings
from refseg_core.tables import Images, Metrics, References
from tasks.datasets.reference_edits import AddedReference, ReferenceEdits, edit_references
from tasks.datasets.shared_images import image_ids_with, same_images, shared_image_ids
from tasks.storage.folder import Folder
from tasks.store.lineage import references_of
from tasks.store.store import Artifact
from tests.support.projects.steps import Steps
from tests.support.samples import images_table

pytest_plugins = ["tests.support.projects.tiny_project"]


def _write(folder: Path, **contents: str) -> Folder:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_text(content)
    return Folder(str(folder))


def test_files_of_the_same_name_are_the_same_image_where_their_content_is(tmp_path: Path) -> None:
    references = _write(tmp_path / "references", a="1", b="2", c="3")
    targets = _write(tmp_path / "targets", a="1", b="other", d="3")
    images = images_table("a", "b", "c", "d")
    assert same_images(references, ["a", "b", "c"], targets, images) == [images.image_id[0]]


def test_files_in_the_same_place_are_the_same_image_though_none_is_read(tmp_path: Path) -> None:
    images = images_table("a", "b")
    folder = Folder(str(tmp_path / "absent"))
    assert same_images(folder, ["b", "b"], folder, images) == [images.image_id[1]]


def _reference_name(steps: Steps, prototypes: Artifact) -> str:
    """The name of an image that a reference lies in."""
    return str(steps.store.load(references_of(steps.store, prototypes), References).file_name[0])


def test_shared_images_are_left_out_of_the_evaluation_where_that_is_wanted(steps: Steps) -> None:
    prototypes = steps.prototypes()
    name = _reference_name(steps, prototypes)
    folder = steps.project.folder
    (folder / "targets" / name).write_bytes((folder / "references" / name).read_bytes())
    annotations = folder / "targets.json"
    annotations.write_text(annotations.read_text().replace("t1.png", name))
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    assert shared_image_ids(steps.store, prototypes, plan.dataset, steps.store.load(plan.dataset, Images)) == ["2"]
    all_images = steps.evaluate(prototypes, plan)
    others = steps.evaluate(prototypes, plan, settings=EvaluationSettings(exclude_references=True))
    assert [int(steps.store.load(one, Metrics).num_instances.max()) for one in (all_images, others)] == [10, 8]


def test_a_picture_that_was_added_is_a_target_where_a_file_of_its_name_or_size_is_the_same(steps: Steps) -> None:
    source, targets = steps.config.references.source, Path(steps.config.targets.images)
    edits, dataset = ReferenceEdits(steps.store, source), steps.dataset()
    images = steps.store.load(steps.dataset(steps.config.targets.source), Images)
    unlisted = images.replace(size=np.full(len(images), -1))
    for name, data in (
        ("t0.png", (targets / "t0.png").read_bytes()),
        ("t1.png", b"another"),
        ("copy.png", (targets / "t2.png").read_bytes()),
    ):
        edits.add(_added(edits.put_picture(name, data), name))
    chosen = edit_references(steps.store, source, dataset, steps.references())
    for known, expected in ((images, ["t0.png", "t2.png"]), (unlisted, ["t0.png"])):
        shared = image_ids_with(steps.store, *chosen, steps.dataset(steps.config.targets.source), known)
        assert [images.file_name[images.image_id == one][0] for one in shared] == expected


def _added(file_name: str, original_name: str) -> AddedReference:
    return AddedReference("", "box", file_name, original_name, 96, 128, (10, 10, 30, 30), None, "box", None)


def test_an_evaluation_of_reference_images_only_is_refused(steps: Steps) -> None:
    prototypes = steps.prototypes()
    references = steps.config.references
    names = steps.store.load(references_of(steps.store, prototypes), References).file_name
    ids = tuple(sorted({str(int(name[1]) + 1) for name in names}))  # the image r0.png has the id 1
    source = references.source.model_copy(update={"image_ids": ids})
    plan = replace(steps.plan(prototypes), dataset=steps.dataset(source))
    settings = EvaluationSettings(exclude_references=True)
    with pytest.raises(DatasetError, match=f"references lie in all of {counted(len(ids), 'image')}"):
        steps.evaluate(prototypes, plan, settings=settings)
