"""Exports of folders to a bucket of a real S3 server: whole, described, and in the place of an earlier one."""

import pytest

from refseg_core.errors import ConfigurationError
from tasks.outputs.export_places import provenance_at
from tasks.outputs.exports.formats import EXPORT_FORMATS
from tasks.outputs.exports.labels import export_labels
from tasks.outputs.exports.origin import origin_of
from tasks.storage.folder import Folder
from tests.support.projects.exported import ExportProject
from tests.support.servers.object_stores import ObjectStore

pytest_plugins = ["tests.support.servers.stores"]
pytestmark = pytest.mark.slow

_FOLDERS = [form.name for form in EXPORT_FORMATS.values() if form.is_folder]


def _contents(uri: str) -> dict[str, bytes]:
    folder = Folder(uri)
    return {file.name: folder.read(file.name) for file in folder.list_files()}


def test_every_folder_in_a_bucket_is_as_on_a_disk(
    seaweedfs: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project, bucket = ExportProject(tmp_path_factory.mktemp("exports")), seaweedfs.new_bucket()
    for form in _FOLDERS:
        out, local = f"s3://{bucket}/out/{form}", f"{project.folder}/{form}"
        copied = {"images": "copy"} if EXPORT_FORMATS[form].holds_images else {}
        for place in (out, local):
            export_labels(project.run, place, form=form, **copied)
        assert _contents(out) == _contents(local)
        assert provenance_at(out)["files"] == provenance_at(local)["files"]
        assert provenance_at(out)["complete"]
    assert origin_of(f"s3://{bucket}/out/yolo/labels/train").keys == {project.run.key}


def test_an_earlier_export_in_a_bucket_is_replaced_and_other_objects_never(
    seaweedfs: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project, out = ExportProject(tmp_path_factory.mktemp("exports")), f"s3://{seaweedfs.new_bucket()}/yolo"
    export_labels(project.run, out, form="yolo")
    export_labels(project.run, out, form="yolo", split=(0.5, 0.5))
    names = set(_contents(out))
    assert {name.split("/")[1] for name in names if "/" in name} == {"train", "val"}
    assert len([name for name in names if name.startswith("labels/")]) == 4, "none of the earlier one"
    Folder(out).create("notes.txt", b"mine")
    with pytest.raises(ConfigurationError, match=r"such as 'notes\.txt'"):
        export_labels(project.run, out, form="yolo")
    with pytest.raises(ConfigurationError, match="cannot be linked"):
        export_labels(project.run, f"{out}-linked", form="yolo", images="link")
    assert set(_contents(out)) == names | {"notes.txt"}
