"""Places where runs are killed: a pytest plugin, named in `pytest_plugins`.

Only fixtures: a test module that also imported it would have pytest complain.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.crashes.crashing import Crashing
from tests.support.crashes.killed_runs import NUM_IMAGES, Crashes, Scene
from tests.support.projects.project import Project, write_project
from tests.support.servers.object_stores import ObjectStore

_IMAGES_PER_SHARD = 3


@pytest.fixture(scope="session")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashing]:
    """The program that starts processes which die."""
    program = Crashing(tmp_path_factory.mktemp("crashing") / "log")
    yield program
    program.close()


@pytest.fixture(scope="session")
def local_scene(crashing: Crashing, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Everything lies in a local folder."""
    folder = tmp_path_factory.mktemp("scene")
    return Scene(crashing, _project(folder, tiny_weights).content, str(folder))


@pytest.fixture(scope="session")
def keeping_scene(crashing: Crashing, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Everything lies in a local folder, and proposals are kept by the default method."""
    folder = tmp_path_factory.mktemp("keeping")
    content = _project(folder, tiny_weights).content
    content["labeling"] |= {"method": "accurate", "keep_proposals": True}
    return Scene(crashing, content, str(folder))


@pytest.fixture(scope="session")
def bucket_scene(
    crashing: Crashing, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory, seaweedfs_server: ObjectStore
) -> Scene:
    """Everything but the weights lies in a bucket of a real S3 server."""
    folder = tmp_path_factory.mktemp("scene")
    place = f"s3://{seaweedfs_server.new_bucket()}"
    content = _project(folder, tiny_weights).content
    for path in (*folder.glob("*.json"), *folder.glob("*/*.png")):
        name = path.relative_to(folder)
        seaweedfs_server.filesystem().pipe_file(f"{place}/{name}", path.read_bytes())
    moved = json.loads(json.dumps(content).replace(str(folder), place))
    return Scene(crashing, moved, place, seaweedfs_server)


def _project(folder: Path, weights: Path) -> Project:
    project = write_project(folder, weights, num_targets=NUM_IMAGES)
    project.content["references"]["annotations"] = str(folder / "boxes.json")
    project.content["labeling"]["box_nms_thresh"] = 1.0  # so that images have several detections, of which some may go
    project.content["labeling"] |= {"path": "guided", "guidance_thresh": None}  # the path with most tables, all filled
    project.content["batches"]["images_per_shard"] = _IMAGES_PER_SHARD
    return project


@pytest.fixture
def on_disk(local_scene: Scene) -> Crashes:
    """Runs on a local folder."""
    local_scene.undisturbed()
    return Crashes(local_scene, local_scene.new_store())


@pytest.fixture
def keeping(keeping_scene: Scene) -> Crashes:
    """Runs on a local folder that keep proposals."""
    keeping_scene.undisturbed()
    return Crashes(keeping_scene, keeping_scene.new_store())


@pytest.fixture
def in_bucket(bucket_scene: Scene, seaweedfs: ObjectStore) -> Crashes:
    """Runs on a bucket of a real S3 server."""
    bucket_scene.undisturbed()
    return Crashes(bucket_scene, bucket_scene.new_store())
