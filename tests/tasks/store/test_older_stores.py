"""A store that an earlier version wrote: every command reads it, and the same run finds everything done in it."""

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePosixPath

import pytest

from tasks.store.garbage import find_garbage
from tasks.store.store import Store
from tests.support.commands import contents, done, refseg, without_prefect
from tests.support.servers.object_stores import Moto
from tests.support.servers.seaweedfs import Account

pytest_plugins = ["tests.support.servers.stores"]

MADE = Path(__file__).parents[2] / "support/projects/made_by_0_1_0"
_BUCKET = "harbor"
_NUM_DETECTIONS = 13  # of today's images, as the run itself said
_REPLACED = "5bfe71fa38e5223b"  # gone labels of the first run, when none were gone


@pytest.fixture(scope="module")
def harbor(moto: str) -> Iterator[None]:
    """The bucket that the project's images lie in."""
    with Moto(moto, Account("anybody", "anything")).in_environment() as server:
        filesystem = server.filesystem()
        filesystem.mkdir(_BUCKET)
        for name in ("references", "targets", "references.json", "targets.json"):
            filesystem.put(str(MADE / name), f"{_BUCKET}/{name}", recursive=(MADE / name).is_dir())
        yield


@pytest.fixture
def config(tmp_path: Path, harbor: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, in a folder with a copy of the store and the demo's models."""
    without_prefect(monkeypatch)
    shutil.copytree(MADE / "store", tmp_path / "store")
    shutil.copy(MADE / "run.yaml", tmp_path)
    (tmp_path / "weights").symlink_to(str(resources.files("refseg_core.demo") / "weights"))
    return tmp_path / "run.yaml"


@pytest.mark.parametrize("command", ["run", "bank", "label", "evaluate", "index"])
@pytest.mark.slow
def test_the_same_run_finds_everything_done(command: str, config: Path) -> None:
    store = config.parent / "store"
    done(refseg(command, config, "--labeling.method", "published"))  # the default of 0.1.0
    made = {name: data for name, data in contents(store).items() if not name.startswith("overviews/")}
    assert made == contents(MADE / "store")


def test_its_labels_are_exported(config: Path) -> None:
    file = config.parent / "labels.json"
    done(refseg("export", config.parent / "store", "--format", "coco", "--out", file))
    assert len(json.loads(file.read_bytes())["annotations"]) == _NUM_DETECTIONS


def test_its_labels_are_shown(config: Path) -> None:
    pictures = config.parent / "pictures"
    done(refseg("show", config.parent / "store", "--out", pictures))
    assert len(list((pictures / "images").iterdir())) == 4


def test_its_status_counts_every_image(config: Path) -> None:
    said = done(refseg("status", config.parent / "store"))
    assert "images   5 of 5" in said
    assert "4 ok, 0 empty, 1 unreadable" in said


def test_it_is_whole(config: Path) -> None:
    assert "damaged" not in done(refseg("verify", config.parent / "store"))


def test_its_only_garbage_is_what_the_second_run_replaced(config: Path) -> None:
    garbage = find_garbage(Store(str(config.parent / "store")), min_age_hours=0)
    assert {PurePosixPath(one.name).parent.as_posix() for one in garbage} == {f"gone_labels/{_REPLACED}"}
