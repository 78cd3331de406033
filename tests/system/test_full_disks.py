"""A disk without space, and one that may only be read: the error says so, what is done stays, and a resume is exact."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from refseg_core.tables import Detections, LabeledImages
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.commands import contents, done, refseg, refused, without_prefect
from tests.support.projects.project import Project
from tests.support.samples import table_rows
from tests.support.weight_files import FILE, MODEL, publish, serving

pytest_plugins = ["tests.support.projects.tiny_project"]

_FULL = "no space left. Make room, or choose another place; what is done is kept."


@pytest.fixture(autouse=True)
def plain_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without Prefect."""
    without_prefect(monkeypatch)


class Disk:
    """A file system in memory of a size that can be changed."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def mount(self, options: str) -> str:
        """Mounts it, or mounts it anew; what went wrong, or ''."""
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr.strip()

    def resize(self, kilobytes: int) -> None:
        assert self.mount(f"remount,size={kilobytes}k") == ""

    def forbid_writing(self) -> None:
        assert self.mount("remount,ro") == ""

    def fill(self, *, free: int = 0) -> None:
        """Leaves only so many kilobytes."""
        (self.place / "filling").write_bytes(b"")
        room = os.statvfs(self.place)
        (self.place / "filling").write_bytes(bytes(max(0, room.f_bavail * room.f_bsize - free * 1024)))

    def make_room(self) -> None:
        (self.place / "filling").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 16 MB."""
    if sys.platform != "linux":
        pytest.skip("small file systems are mounted on Linux only")
    disk = Disk(tmp_path / "disk")
    disk.place.mkdir()
    try:
        problem = disk.mount("size=16m")
    except FileNotFoundError as error:
        problem = str(error)
    if problem:
        pytest.skip(f"no file system may be mounted here: {problem}")
    yield disk
    subprocess.run(["umount", "-l", str(disk.place)], check=True)


def _labels(store: Path) -> Any:
    run, _ = newest_labels(Store(str(store)))
    parts = list(run.read(run.images()))
    return (
        table_rows(Detections.concatenate([part for part, _ in parts])),
        table_rows(LabeledImages.concatenate([part for _, part in parts]), without=["seconds"]),
    )


def _whole(store: Path) -> dict[str, bytes]:
    """What is in the store, which is whole."""
    assert not store.exists() or verify_store(Store(str(store))).problems == []
    files = contents(store) if store.exists() else {}
    assert not [name for name in files if Path(name).name.startswith(".")], "half a file was left"
    return files


def _is_full(*command: str | Path) -> bool:
    """Whether the command found the disk full, and said so; else it ended well."""
    result = refseg(*command)
    if result.exit_code == 0:
        return False
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code in (1, 2)
    assert _FULL in result.stderr
    assert "Traceback" not in result.output
    return True


@pytest.mark.slow
def test_a_run_goes_on_from_disk_to_larger_disk_and_ends_exact(project: Project, disk: Disk) -> None:
    config = project.write_config(store=str(disk.place / "store"))
    kept: dict[str, bytes] = {}
    num_full = 0
    for kilobytes in (4, 24, 40, 60, 72, 84, 100, 120, 136, 160, 16_000):
        disk.resize(kilobytes)
        num_full += _is_full("run", config)
        files = _whole(disk.place / "store")
        assert {name: files[name] for name in kept} == kept
        kept = files
    assert num_full >= 8
    done(refseg("run", project.write_config(store=str(project.folder / "store"))))
    assert _labels(disk.place / "store") == _labels(project.folder / "store")
    assert set(kept) == set(contents(project.folder / "store"))


@pytest.mark.slow
def test_a_run_that_finds_the_disk_full_at_any_of_its_writes_goes_on_from_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fsync, room, num_writes = os.fsync, 10_000, 0

    def fsync(descriptor: int) -> None:
        nonlocal num_writes
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            num_writes += 1
            if num_writes > room:
                raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    done(refseg("run", project.write_config(store=str(project.folder / "undisturbed"))))
    expected, num_needed = _labels(project.folder / "undisturbed"), num_writes
    for room in range(0, num_needed, 2):
        store, num_writes = project.folder / f"store{room}", 0
        config = project.write_config(store=str(store))
        assert _is_full("run", config)
        kept = _whole(store)
        assert len(kept) == max(room - 1, 0)  # the first write only finds out whether one may
        room = 10_000  # noqa: PLW2901
        done(refseg("run", config))
        assert contents(store).items() >= kept.items()
        assert _labels(store) == expected
    assert num_needed > 20


@pytest.mark.slow
@pytest.mark.parametrize("form", ["coco", "coco-results", "parquet"])
def test_an_export_to_a_full_disk_leaves_the_old_file_whole_and_no_half_one(
    form: str, project: Project, disk: Disk
) -> None:
    done(refseg("run", project.write_config()))
    out = disk.place / "out"
    export = ("export", project.folder / "store", "--format", form, "--out", out)
    done(refseg(*export))
    old = out.read_bytes()
    disk.fill()
    assert _FULL in refused(refseg(*export))
    assert set(contents(disk.place)) == {"out", "out.provenance", "filling"}
    assert out.read_bytes() == old
    disk.make_room()
    done(refseg(*export))
    assert out.read_bytes() == old


@pytest.mark.slow
def test_pictures_a_demo_and_a_configuration_on_a_full_disk(project: Project, disk: Disk) -> None:
    done(refseg("run", project.write_config()))
    disk.fill()
    for command in (
        ("show", project.folder / "store", "--out", disk.place / "pictures"),
        ("demo", "--data-only", disk.place / "demo"),
        ("init", disk.place / "run.yaml"),
    ):
        assert _FULL in refused(refseg(*command))
        assert set(contents(disk.place)) == {"filling"}


@pytest.mark.slow
def test_pictures_that_find_the_disk_full_cost_no_labels(project: Project, disk: Disk) -> None:
    disk.fill(free=24)
    changes = {"pictures": str(disk.place / "pictures")}
    assert _is_full("run", project.write_config(**changes))
    _whole(project.folder / "store")
    disk.make_room()
    done(refseg("run", project.write_config(**changes)))
    done(refseg("run", project.write_config(store=str(project.folder / "other"))))
    assert _labels(project.folder / "store") == _labels(project.folder / "other")


def test_weights_that_do_not_fit_go_on_once_there_is_room(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 2000
    with serving(data) as site:
        publish(monkeypatch, data, site.url)
        disk.fill(free=64)
        message = refused(refseg("weights", "pull", MODEL, "--to", disk.place))
        assert "No space left on device" in message
        assert "the download will continue where it stopped" in message
        assert not (disk.place / FILE).exists()
        disk.make_room()
        done(refseg("weights", "pull", MODEL, "--to", disk.place))
        assert (disk.place / FILE).read_bytes() == data
        assert site.starts[-1] > 0


# --- stores that may only be read ------------------------------------------------------------------------------------


@pytest.fixture(params=["mount", "rights"])
def forbid_writing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder, and what makes it read-only: its mount, or its rights where these bind us."""
    if request.param == "mount":
        disk: Disk = request.getfixturevalue("disk")
        yield disk.place, disk.forbid_writing
        return
    if os.geteuid() == 0:
        pytest.skip("rights do not bind root")
    folder = tmp_path / "folder"
    folder.mkdir()

    def forbid() -> None:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o555)

    yield folder, forbid
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


@pytest.mark.slow
def test_a_store_that_may_only_be_read_is_read_and_nothing_else(
    project: Project, forbid_writing: tuple[Path, Callable[[], None]]
) -> None:
    folder, forbid = forbid_writing
    store = folder / "store"
    done(refseg("run", project.write_config(store=str(store))))
    labels = _labels(store)
    (store / "dataset" / "0123456789abcdef").mkdir()
    (store / "dataset" / "0123456789abcdef" / "images.parquet").write_bytes(b"left by somebody")
    forbid()
    before = contents(store)
    for command in ("status", "verify"):
        done(refseg(command, store))
    done(refseg("export", store, "--out", project.folder / "out.json"))
    done(refseg("show", store, "--out", project.folder / "out", "--limit", "1"))
    for command in (
        ("run", project.write_config(store=str(store))),
        ("run", project.write_config(store=str(store), labeling__pred_iou_thresh=0.1)),
        ("run", project.write_config(store=str(store), targets__annotations=None)),
        ("run", project.write_config(store=str(folder / "other"))),
        ("export", store, "--out", folder / "out.json"),
        ("show", store, "--out", store / "out"),
        ("gc", store, "--yes", "--min-age", "0"),
    ):
        assert "access denied" in refused(refseg(*command))
    assert contents(store) == before
    assert _labels(store) == labels
