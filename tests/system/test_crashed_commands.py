"""Commands that are killed leave no half file and no broken store; the same command goes on from there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from refseg_core.errors import StoreError
from tasks.outputs.export_places import provenance_uri
from tasks.storage.folder import Folder
from tasks.storage.objects import read_uri
from tasks.store.garbage import find_garbage, remove
from tasks.store.label_store import newest_labels
from tasks.store.status import store_status
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.counts import count
from tests.support.crashes.crashing import Attempt, Death
from tests.support.crashes.killed_runs import Crashes, contents, visible_names
from tests.support.label_stores import LabelStore
from tests.support.weight_files import FILE, MODEL, Site, digest, serving

pytest_plugins = [
    "tests.support.crashes.crash_scenes",
    "tests.support.servers.stores",
    "tests.support.projects.tiny_project",
]
pytestmark = pytest.mark.slow

# --- refseg run ------------------------------------------------------------------------------------------------------

_MOST_SECONDS = 300


def _start(config: Path, prefect: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.crashes.crashing", "command", "0", os.devnull, "run", str(config)],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PREFECT_HOME": str(prefect)},
        start_new_session=True,
    )


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Ends the command with everything that it started, such as Prefect's server, which outlives a killed one."""
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _kill_when(process: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> None:
    """Kills the command, and nothing else of what it started, when it is time."""
    deadline = time.monotonic() + _MOST_SECONDS
    while not is_time():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_the_command_itself_goes_on_where_it_was_killed(on_disk: Crashes, tmp_path: Path) -> None:
    config = on_disk.scene.write_config(tmp_path / "run.yaml", store=on_disk.store)
    prefect = tmp_path / "prefect"
    with _ended(_start(config, prefect)) as process:
        _kill_when(process, lambda: any("/shards/" in name for name in visible_names(on_disk.store)))
    count("crash tests: kills")
    on_disk.assert_whole()
    with _ended(_start(config, prefect)) as process:
        assert process.wait(_MOST_SECONDS) == 0
    on_disk.assert_exact()


# --- refseg export ---------------------------------------------------------------------------------------------------

_NUM_CHUNKS = {"coco": 2, "coco-results": 1, "parquet": 3}  # at least


def _export(crashes: Crashes, out: str, form: str, death: Death | None = None) -> Attempt:
    store = crashes.scene.undisturbed().store
    key = newest_labels(Store(store))[0].key
    arguments = {"store": store, "key": key, "out": out, "form": form}
    return Attempt("export", arguments, crashes.scene.environment, death)


def _moments_of_export(form: str) -> list[Death]:
    return [Death("write", when="before"), *(Death("write", nth=1 + number) for number in range(_NUM_CHUNKS[form]))]


@pytest.mark.parametrize("form", _NUM_CHUNKS)
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "replaced"])
def test_a_killed_export_leaves_the_old_file_or_none(
    form: str, old: bytes | None, on_disk: Crashes, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out" / "labels", tmp_path / "whole"
    if old is not None:
        out.parent.mkdir()
        out.write_bytes(old)
        Path(provenance_uri(str(out))).write_text(json.dumps({"format": form}))
    renames = [Death("rename", when="before", nth=1 + number) for number in range(2)]  # of the provenance, of the file
    for death in (*_moments_of_export(form), *renames):
        (outcome,) = on_disk.make(_export(on_disk, str(out), form, death))
        assert outcome.is_killed
        assert out.exists() == (old is not None)
        assert set(visible_names(str(out.parent))) <= {"labels", "labels.provenance"}
        assert old is None or out.read_bytes() == old
    on_disk.make(_export(on_disk, str(out), form), _export(on_disk, str(whole), form))
    assert out.read_bytes() == whole.read_bytes()


def test_a_killed_export_of_a_folder_leaves_the_old_one_or_none(on_disk: Crashes, tmp_path: Path) -> None:
    out, whole = tmp_path / "out" / "yolo", tmp_path / "whole"
    deaths = [Death("write", nth=1 + number) for number in (0, 1, 4)]
    for death in deaths:
        (outcome,) = on_disk.make(_export(on_disk, str(out), "yolo", death))
        assert outcome.is_killed
        assert not out.exists()
    on_disk.make(_export(on_disk, str(out), "yolo"), _export(on_disk, str(whole), "yolo"))
    exported = contents(str(whole))
    assert contents(str(out)) == exported
    assert {"data.yaml"} < exported.keys()
    for death in deaths:
        (outcome,) = on_disk.make(_export(on_disk, str(out), "yolo", death))
        assert outcome.is_killed
        assert contents(str(out)) == exported
    assert len([path for path in out.parent.iterdir() if path.name.startswith(".yolo.")]) == 1, "of the last kill"
    on_disk.make(_export(on_disk, str(out), "yolo"))
    assert contents(str(out)) == exported
    assert {path.name for path in out.parent.iterdir()} == {"yolo", "yolo.provenance"}


def test_a_killed_export_to_a_bucket_leaves_the_old_object(in_bucket: Crashes) -> None:
    out, whole = Folder(in_bucket.store).join("out"), Folder(in_bucket.store).join("whole")
    Folder(in_bucket.store).create("out", b"old")
    Folder(in_bucket.store).create("out.provenance", json.dumps({"format": "coco"}).encode())
    for death in (*_moments_of_export("coco"), Death("call", r"/out$", when="before")):
        (outcome,) = in_bucket.make(_export(in_bucket, out, "coco", death))
        assert outcome.is_killed
        assert read_uri(out) == b"old"
    in_bucket.make(_export(in_bucket, out, "coco"), _export(in_bucket, whole, "coco"))
    assert read_uri(out) == read_uri(whole)


# --- refseg gc -------------------------------------------------------------------------------------------------------


@pytest.fixture
def labels(tmp_path: Path) -> LabelStore:
    """Labels of two nights, of which some images are gone, and other labels beside them."""
    labels = LabelStore(Store(str(tmp_path / "store")))
    labels.night("a", "b", "c")
    labels.night("b", "d", "e")
    labels.gone()
    LabelStore(labels.store, recipe_version=2).night("a")
    return labels


def _killed_removals(
    whole: LabelStore, crashes: Crashes, **options: object
) -> Iterator[tuple[LabelStore, Callable[[], object]]]:
    """The store after each of the deletions, when the process was killed, and what repeats the command."""
    num_objects = len(find_garbage(whole.store, **options))  # type: ignore[arg-type]
    assert num_objects > 1
    for number in range(1, num_objects + 1):
        store = f"{whole.store.uri}-{number}"
        shutil.copytree(whole.store.uri, store)
        arguments = {"store": store, **options}
        (outcome,) = crashes.make(Attempt("collect", arguments, death=Death("delete", nth=number)))
        assert outcome.is_killed
        assert verify_store(Store(store)).problems == []
        store_status(Store(store))
        yield (
            LabelStore(Store(store)),
            lambda arguments=arguments: crashes.make(Attempt("collect", arguments)),
        )


def _last_night(labels: LabelStore) -> list[str]:
    return sorted(labels.labels()[1].image_id)


def test_a_killed_removal_of_gone_labels_loses_nothing_else_and_is_finished_by_the_next(
    labels: LabelStore, on_disk: Crashes
) -> None:
    options = {"gone": True, "min_age_hours": 0}
    for killed, repeat in _killed_removals(labels, on_disk, **options):
        assert _last_night(killed) == ["b", "d", "e"]
        repeat()
        assert find_garbage(killed.store, **options) == []  # type: ignore[arg-type]
        assert _last_night(killed) == ["b", "d", "e"]


def test_after_a_killed_removal_of_gone_labels_images_that_come_back_are_labeled_again(
    labels: LabelStore, on_disk: Crashes
) -> None:
    for killed, _ in _killed_removals(labels, on_disk, gone=True):
        killed.night("a", "b", "c", "d", "f")
        assert _last_night(killed) == ["a", "b", "c", "d", "f"]
        assert verify_store(killed.store).problems == []


def test_a_killed_removal_of_labels_is_finished_by_the_same_command(labels: LabelStore, on_disk: Crashes) -> None:
    keys = [labels.run.key]
    whole = Store(f"{labels.store.uri}-whole")
    shutil.copytree(labels.store.uri, whole.uri)
    remove(whole, find_garbage(whole, min_age_hours=0, labels=keys))
    recipe = f"labels/{keys[0]}/recipe.json"
    for killed, repeat in _killed_removals(labels, on_disk, labels=keys):
        if killed.store.folder.read_if_there(recipe):
            repeat()
        remove(killed.store, find_garbage(killed.store, min_age_hours=0))  # as all do after a day
        with pytest.raises(StoreError, match="has no labels"):
            find_garbage(killed.store, labels=keys)
        assert contents(killed.store.uri) == contents(whole.uri)


def test_after_a_killed_removal_of_labels_other_images_are_labeled_as_in_a_new_store(
    labels: LabelStore, on_disk: Crashes
) -> None:
    """They are planned anew, into shards of the same names."""
    for killed, _ in _killed_removals(labels, on_disk, labels=[labels.run.key]):
        killed.night("x", "a", "y", "b")
        assert _last_night(killed) == ["a", "b", "x", "y"]
        killed.night("x", "a", "y", "b", "c", "d")
        assert _last_night(killed) == ["a", "b", "c", "d", "x", "y"]
        assert verify_store(killed.store).problems == []


# --- refseg weights pull ---------------------------------------------------------------------------------------------

_CHUNK = 1 << 20
_PAYLOAD = os.urandom(11 * _CHUNK + 12345)
_MOMENTS_OF_DOWNLOADS = {
    "before the first byte": Death("download"),
    "after the first chunk": Death("download", nth=2),
    "half way through": Death("download", nth=7),
    "before the file gets its name": Death("rename", when="before"),
    "after the file got its name": Death("rename"),
}


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(_PAYLOAD) as site:
        yield site


def _pull(site: Site, folder: Path, death: Death | None = None) -> Attempt:
    pinned = {"url": site.url, "size": len(_PAYLOAD), "sha256": digest(_PAYLOAD)}
    return Attempt("pull", {"folder": str(folder), "model": MODEL, **pinned}, death=death)


@pytest.mark.parametrize("death", _MOMENTS_OF_DOWNLOADS.values(), ids=_MOMENTS_OF_DOWNLOADS)
def test_a_killed_download_goes_on_where_it_stopped(death: Death, site: Site, tmp_path: Path, on_disk: Crashes) -> None:
    target, part = tmp_path / FILE, tmp_path / f"{FILE}.part"
    (outcome,) = on_disk.make(_pull(site, tmp_path, death))
    assert outcome.is_killed
    kept = (target if target.exists() else part).read_bytes()
    assert kept == _PAYLOAD[: len(kept)]
    assert not target.exists() or kept == _PAYLOAD
    site.requests.clear()
    on_disk.make(_pull(site, tmp_path))
    assert target.read_bytes() == _PAYLOAD
    assert not part.exists()
    assert min(site.starts, default=len(_PAYLOAD)) == len(kept)


def test_who_waits_for_a_download_that_is_killed_takes_it_over(site: Site, tmp_path: Path, on_disk: Crashes) -> None:
    """Each would be killed after five chunks; eleven and a bit there are."""
    outcomes = on_disk.make(*(_pull(site, tmp_path, Death("download", nth=6)) for _ in range(3)))
    assert sorted(outcome.is_killed for outcome in outcomes) == [False, True, True]
    assert (tmp_path / FILE).read_bytes() == _PAYLOAD
    assert {5 * _CHUNK, 10 * _CHUNK} <= set(site.starts)
