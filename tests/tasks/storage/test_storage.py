"""One contract for folders that every backend keeps, and the message when a place cannot be used."""

import errno
import os
import shlex
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError
from hypothesis import given
from hypothesis import strategies as st

from refseg_core.errors import StoreError
from tasks.storage import folder as folder_module
from tasks.storage import objects
from tasks.storage.folder import Folder
from tasks.storage.listing import FileInfo
from tasks.storage.objects import open_uri, read_uri, uri_size, write_uri
from tasks.storage.retry import ATTEMPTS_VARIABLE
from tasks.storage.uris import redact, typed
from tests.support.servers.fault_proxy import Fault, FaultProxy, Request, Rule
from tests.support.servers.object_stores import Moto, ObjectStore, forget_connections
from tests.support.servers.seaweedfs import ADMIN, READER, STRANGER, Account

pytest_plugins = ["tests.support.servers.stores"]

_THREADS = 8


@pytest.fixture
def folder(empty_uri: str) -> Folder:
    return Folder(empty_uri)


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads are interrupted as often as possible, so that races that can happen do."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def _at_once(action: Callable[[int], bool], num_threads: int = _THREADS) -> list[bool]:
    """What several threads get that start together."""
    barrier = threading.Barrier(num_threads)

    def act(number: int) -> bool:
        barrier.wait()
        return action(number)

    with ThreadPoolExecutor(num_threads) as threads:
        return list(threads.map(act, range(num_threads)))


def _create_as(uri: str, name: str, writer: int) -> bool:
    return Folder(uri).create(name, b"%d" % writer)


# --- creating --------------------------------------------------------------------------------------------------------


def test_what_is_created_is_read_back(folder: Folder) -> None:
    data = bytes(range(256)) * 100
    assert folder.create("deep/er/object.bin", data)
    assert folder.read("deep/er/object.bin") == data
    assert folder.read_if_there("deep/er/object.bin") == data
    assert folder.read_start("deep/er/object.bin", 3) == data[:3]
    assert folder.read_start("deep/er/object.bin", len(data) + 9) == data
    assert folder.create("empty", b"")
    assert folder.read_start("empty", 9) == b""
    assert read_uri(folder.join("deep/er/object.bin")) == data
    assert uri_size(folder.join("deep/er/object.bin")) == len(data)


def test_an_empty_object_is_an_object(folder: Folder) -> None:
    assert folder.create("empty", b"")
    assert folder.read("empty") == b""
    assert not folder.create("empty", b"more")


def test_create_never_overwrites(folder: Folder) -> None:
    assert folder.create("object", b"first")
    assert not folder.create("object", b"second")
    assert folder.read("object") == b"first"


def test_an_equal_object_that_is_there_already_counts_as_ours(folder: Folder) -> None:
    folder.create("object", b"same")
    assert folder.create("object", b"same")


@pytest.mark.slow
def test_of_several_writers_at_once_exactly_one_creates(folder: Folder, restless_threads: None) -> None:
    for attempt in range(3 if folder.uri.startswith("s3") else 30):
        name = f"object-{attempt}"
        won = _at_once(partial(_create_as, folder.uri, name))
        assert won.count(True) == 1
        assert folder.read(name) == b"%d" % won.index(True)


@pytest.mark.slow
def test_of_two_writers_at_once_exactly_one_creates_however_often(seaweedfs: ObjectStore) -> None:
    """Many attempts: with more writers the server has the losers wait for seconds."""
    uri = f"s3://{seaweedfs.new_bucket()}/folder"
    for attempt in range(100):
        won = _at_once(partial(_create_as, uri, f"object-{attempt}"), num_threads=2)
        assert sorted(won) == [False, True]
        assert Folder(uri).read(f"object-{attempt}") == b"%d" % won.index(True)


def test_writers_of_equal_content_at_once_all_own_it(folder: Folder) -> None:
    assert all(_at_once(lambda _: Folder(folder.uri).create("object", b"same")))


def test_a_reader_sees_all_of_an_object_or_none(folder: Folder) -> None:
    data = os.urandom(1 << 20)
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(folder.create, "object", data)
        seen = set()
        while not writing.done():
            seen.add(folder.read_if_there("object"))
    assert seen <= {None, data}


def test_a_local_writer_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = Folder(str(tmp_path))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        folder.create("object", b"data")
    assert folder.list_files() == []


def test_a_local_writer_that_is_killed_leaves_no_object(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from tasks.storage.folder import Folder\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Folder(sys.argv[1]).create('object', b'data')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert Folder(str(tmp_path)).read_if_there("object") is None
    assert Folder(str(tmp_path)).create("object", b"data")


# --- reading many, deleting ------------------------------------------------------------------------------------------


def test_many_objects_are_read_in_order_and_those_that_are_absent_are_none(folder: Folder) -> None:
    names = [f"{number:03}" for number in range(40)]
    for name in names[::2]:
        folder.create(name, name.encode())
    expected = [name.encode() if number % 2 == 0 else None for number, name in enumerate(names)]
    assert list(folder.read_many(names)) == expected
    assert list(folder.read_many(reversed(names))) == expected[::-1]
    assert list(folder.read_many([])) == []


def test_what_is_deleted_is_absent_and_may_be_gone_already_or_come_again(folder: Folder) -> None:
    folder.create("a/b", b"first")
    folder.create("a/c", b"other")
    for _ in range(2):
        folder.delete("a/b")
        assert folder.read_if_there("a/b") is None
    assert [file.name for file in folder.list_files()] == ["a/c"]
    assert folder.create("a/b", b"second")
    assert folder.read("a/b") == b"second"


# --- reading what is not there ---------------------------------------------------------------------------------------


def test_an_absent_object_is_none_or_an_error_that_names_it(folder: Folder) -> None:
    assert folder.read_if_there("folder/absent") is None
    for read in (folder.read, lambda name: open_uri(folder.join(name)), lambda name: uri_size(folder.join(name))):
        with pytest.raises(StoreError, match=r"folder/absent: not found"):
            read("folder/absent")


def test_an_absent_folder_is_an_error_to_list_but_has_no_folders(folder: Folder) -> None:
    for look in (folder.list_files, partial(folder.list_names, ""), folder.check_readable):
        with pytest.raises(StoreError, match="not found"):
            look()
    assert folder.list_folders() == []


def test_a_folder_is_no_object(folder: Folder) -> None:
    folder.create("a/b", b"")
    with pytest.raises(StoreError, match="not found"):
        folder.read("a")


# --- listing ---------------------------------------------------------------------------------------------------------


def test_files_are_listed_by_name_at_any_depth_with_their_sizes(folder: Folder) -> None:
    for name in ("b.jpg", "a/z.jpg", "a/b/c.jpg", "Z.jpg", "ä ö#1.jpg"):
        folder.create(name, name.encode())
    files = folder.list_files()
    assert [file.name for file in files] == sorted(["b.jpg", "a/z.jpg", "a/b/c.jpg", "Z.jpg", "ä ö#1.jpg"])
    assert [file.size for file in files] == [len(file.name.encode()) for file in files]
    assert all(file.version for file in files)
    assert all(folder.read(file.name) == file.name.encode() for file in files)


def test_suffixes_select_files_in_any_case(folder: Folder) -> None:
    for name in ("a.jpg", "b.JPG", "c.Jpeg", "d.txt", "jpg", "e.jpg.tmp"):
        folder.create(name, b"")
    assert [file.name for file in folder.list_files((".jpg", ".jpeg"))] == ["a.jpg", "b.JPG", "c.Jpeg"]


def test_a_folder_whose_name_begins_alike_is_another_folder_and_one_below_too(folder: Folder) -> None:
    folder.create("images/a", b"")
    folder.create("images2/b", b"")
    assert [file.name for file in Folder(folder.join("images")).list_files()] == ["a"]
    folder.create("images/b.txt", b"")
    folder.create("images/of/c.txt", b"")
    names = Folder(folder.join("images"))
    assert (names.list_names(""), names.list_names(".txt"), names.list_names(".x")) == (["a", "b.txt"], ["b.txt"], [])
    assert folder.list_folders() == ["images", "images2"]


def test_a_slash_at_the_end_of_a_folder_changes_nothing(folder: Folder) -> None:
    folder.create("images/a", b"data")
    slashed = Folder(folder.join("images/"))
    assert [file.name for file in slashed.list_files()] == ["a"]
    assert slashed.read("a") == read_uri(slashed.join("a")) == b"data"


def test_a_listing_shows_what_another_wrote_meanwhile(folder: Folder) -> None:
    folder.create("a", b"")
    assert [file.name for file in folder.list_files()] == ["a"]
    Folder(folder.uri).create("b", b"")
    assert [file.name for file in folder.list_files()] == ["a", "b"]


@pytest.mark.slow
def test_a_bucket_by_its_other_name_is_read_and_listed_alike(s3: Moto) -> None:
    bucket = s3.new_bucket()
    folder = Folder(f"s3a://{bucket}/folder")
    folder.create("a", b"data")
    assert folder.list_folders() == []
    s3.filesystem().pipe_file(f"{bucket}/folder/b/c", b"other")  # as another process does
    assert folder.list_folders() == ["b"]
    assert [file.name for file in folder.list_files()] == ["a", "b/c"]
    assert folder.read("a") == b"data"


def test_the_version_of_a_file_changes_with_its_content_only(folder: Folder) -> None:
    def listed() -> FileInfo:
        (file,) = folder.list_files()
        return file

    folder.replace("a", b"one")
    if folder.uri.startswith(("/", "file:")):  # clocks of file systems are coarse
        os.utime(Path(folder.uri.removeprefix("file://")) / "a", (1, 1))
    before = listed()
    assert listed() == before
    folder.replace("a", b"two")
    assert listed().version != before.version


_MANY = tuple(f"{number % 7}/{number:04}" for number in range(1001))  # one more than a page of a listing holds


def _assert_all_are_listed(folder: Folder) -> None:
    assert [file.name for file in folder.list_files()] == sorted(_MANY)
    assert folder.list_folders() == [str(number) for number in range(7)]


@pytest.mark.parametrize("empty_uri", ["path", "file", "memory"], indirect=True)  # of a bucket below, with faults
def test_of_many_files_each_is_listed_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for name in _MANY:
        folder.replace(name, b"")
    _assert_all_are_listed(folder)


@pytest.mark.slow
def test_a_listing_of_several_pages_is_whole_or_fails_whatever_happens_to_a_page(
    seaweedfs: ObjectStore, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(f"s3://{seaweedfs.new_bucket()}/folder")
    folder._filesystem.pipe({folder._at(name): b"" for name in _MANY})
    fault_proxy.forget_requests()
    _assert_all_are_listed(folder)
    assert fault_proxy.count_requests() == 2 + 1  # pages of files, and of folders
    faults = (Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.LOSE_REPLY, Fault.CUT_BODY)
    for fault in faults:
        fault_proxy.rules = [Rule(fault, nth=2)]
        _assert_all_are_listed(folder)
    monkeypatch.setenv(ATTEMPTS_VARIABLE, "1")
    for fault in faults:
        fault_proxy.rules = [lambda request, fault=fault: fault if "continuation-token" in request.query else None]
        with pytest.raises((OSError, BotoCoreError)):
            folder.list_files()


_STRANGE_NAMES = (
    "100%41.png",
    "a+b&c=d;e,f.png",
    "it's (1) [x] {y}!~@$.png",
    "ü/é e\u0301.png",
    " begins and ends with a space ",
    "日本 語/犬 🐕.png",
)


def test_names_of_any_letters_are_kept_as_they_are(folder: Folder) -> None:
    for name in _STRANGE_NAMES:
        assert folder.create(name, name.encode())
        assert not folder.create(name, b"other")
        assert read_uri(folder.join(name)) == name.encode()
    assert [file.name for file in folder.list_files()] == sorted(_STRANGE_NAMES)
    assert list(folder.read_many(_STRANGE_NAMES)) == [name.encode() for name in _STRANGE_NAMES]
    assert folder.list_folders() == ["ü", "日本 語"]
    for name in _STRANGE_NAMES:
        folder.delete(name)
    assert folder.read_if_there(_STRANGE_NAMES[0]) is None


def _mark_folder(folder: Folder, name: str) -> None:
    """As some programs do: in a bucket by an empty object whose name ends in a slash."""
    filesystem, path = folder._filesystem, f"{folder._path}/{name}".rstrip("/")
    if folder.uri.startswith("s3"):
        bucket, key, _ = filesystem.split_path(path)
        filesystem.call_s3("put_object", Bucket=bucket, Key=f"{key}/")
    else:
        filesystem.makedirs(path, exist_ok=True)


def test_a_marked_folder_is_a_folder_and_no_file(folder: Folder) -> None:
    _mark_folder(folder, "")
    folder.check_readable()
    assert folder.list_files() == []
    assert folder.list_folders() == []
    _mark_folder(folder, "images")
    folder.create("images/a.png", b"data")
    assert [file.name for file in folder.list_files()] == ["images/a.png"]
    assert [file.name for file in Folder(folder.join("images")).list_files()] == ["a.png"]
    assert folder.list_folders() == ["images"]
    assert folder.holds_files((".png",))


def test_listing_a_file_as_if_it_were_a_folder_is_an_error(folder: Folder) -> None:
    folder.create("file.jpg", b"")
    with pytest.raises(StoreError, match=r"file\.jpg"):
        Folder(folder.join("file.jpg")).list_files()


# --- replacing and streaming -----------------------------------------------------------------------------------------


def test_replace_overwrites(folder: Folder) -> None:
    folder.replace("page", b"longer first")
    folder.replace("page", b"second")
    assert folder.read("page") == b"second"


def test_whether_a_folder_may_be_written_is_found_out_without_leaving_anything(folder: Folder) -> None:
    folder.check_writable()
    folder.create("object", b"data")
    folder.check_writable()
    assert [file.name for file in folder.list_files()] == ["object"]


def test_write_uri_joins_its_chunks_and_overwrites(folder: Folder) -> None:
    write_uri(folder.join("deep/out"), (b"%d," % number for number in range(1000)))
    write_uri(folder.join("deep/out"), iter([b"a", b"", b"bc"]))
    assert folder.read("deep/out") == b"abc"


def test_write_uri_leaves_what_was_there_when_its_chunks_fail(folder: Folder) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("half way")

    folder.create("out", b"old")
    for name in ("out", "fresh"):
        with pytest.raises(RuntimeError, match="half way"):
            write_uri(folder.join(name), chunks())
    assert folder.read("out") == b"old"
    assert [file.name for file in folder.list_files()] == ["out"]


def test_an_opened_object_is_seekable(folder: Folder) -> None:
    folder.create("object", b"0123456789")
    with open_uri(folder.join("object")) as file:
        assert file.seek(4) == 4
        assert file.read(3) == b"456"
        file.seek(-2, os.SEEK_END)
        assert file.read() == b"89"


# --- faults ----------------------------------------------------------------------------------------------------------

_ACTIONS: dict[str, Callable[[Folder], object]] = {
    "read": lambda folder: folder.read("a"),
    "read_if_there": lambda folder: folder.read_if_there("a"),
    "create": lambda folder: folder.create("b", b""),
    "replace": lambda folder: folder.replace("b", b""),
    "list_files": lambda folder: folder.list_files(),
    "list_folders": lambda folder: folder.list_folders(),
    "check_readable": lambda folder: folder.check_readable(),
    "check_writable": lambda folder: folder.check_writable(),
    "read_many": lambda folder: list(folder.read_many(["a"])),
    "delete": lambda folder: folder.delete("a"),
    "open_uri": lambda folder: open_uri(folder.join("a")),
    "read_uri": lambda folder: read_uri(folder.join("a")),
    "uri_size": lambda folder: uri_size(folder.join("a")),
    "write_uri": lambda folder: write_uri(folder.join("a"), [b""]),
}


@pytest.mark.parametrize("action", _ACTIONS.values(), ids=_ACTIONS)
@pytest.mark.slow
def test_refused_credentials_are_a_store_error_that_names_the_place(
    action: Callable[[Folder], object], s3: Moto
) -> None:
    folder = Folder(f"s3://{s3.new_bucket()}/folder")
    folder.create("a", b"")
    with s3.knowing_nobody(), pytest.raises(StoreError, match=rf"{folder.uri}.*denied.*credentials"):
        action(folder)


@pytest.mark.slow
def test_a_store_that_may_only_be_read_is_read_and_refuses_writers(seaweedfs: ObjectStore) -> None:
    uri = f"s3://{seaweedfs.new_bucket()}/folder"
    Folder(uri).create("a", b"data")
    with seaweedfs.used_by(READER).in_environment():
        folder = Folder(uri)
        assert folder.read("a") == b"data"
        assert [file.name for file in folder.list_files()] == ["a"]
        for name in ("create", "replace", "write_uri", "delete", "check_writable"):
            with pytest.raises(StoreError, match=rf"{folder.uri}/.*denied"):
                _ACTIONS[name](folder)
    assert [Folder(uri).read_if_there(name) for name in "ab"] == [b"data", None]


@pytest.mark.slow
@pytest.mark.parametrize("account", [STRANGER, ADMIN._replace(secret="wrong")], ids=["unknown key", "wrong secret"])
def test_whom_a_real_server_does_not_know_it_denies_everything(seaweedfs: ObjectStore, account: Account) -> None:
    folder = Folder(f"s3://{seaweedfs.new_bucket()}/folder")
    folder.create("a", b"")
    with seaweedfs.used_by(account).in_environment():
        for action in _ACTIONS.values():
            with pytest.raises(StoreError, match=rf"{folder.uri}.*denied"):
                action(Folder(folder.uri))
        with pytest.raises(StoreError, match="denied"):  # of the bucket as a whole, too
            Folder(folder.uri.removesuffix("/folder")).check_readable()


@pytest.mark.parametrize("name", sorted(_ACTIONS.keys() - {"read_if_there", "read_many", "delete", "list_folders"}))
@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_a_store_error_that_names_it(name: str, s3: Moto) -> None:
    with pytest.raises(StoreError, match=r"s3://no-such-bucket-at-all/folder.*not found.*bucket"):
        _ACTIONS[name](Folder("s3://no-such-bucket-at-all/folder"))


@pytest.fixture
def no_credentials(s3: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    forget_connections()
    yield
    forget_connections()


def test_missing_credentials_are_a_store_error(no_credentials: None) -> None:
    for action in _ACTIONS.values():
        with pytest.raises(StoreError, match="credentials"):
            action(Folder("s3://bucket/folder"))


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EPERM, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.slow
def test_a_local_folder_that_may_not_be_written_is_a_store_error(
    fault: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    folder = Folder(str(tmp_path / "folder"))
    monkeypatch.setattr(Path, "mkdir", refuse)
    for write in (folder.create, folder.replace, lambda name, data: write_uri(folder.join(name), [data])):
        with pytest.raises(StoreError, match=r"folder/object"):
            write("object", b"data")


@pytest.mark.parametrize("empty_uri", ["path", "memory"], indirect=True)  # a bucket allows objects below objects
@pytest.mark.parametrize("name", ["create", "replace", "write_uri", "check_writable"])
def test_a_folder_below_a_file_is_a_store_error(name: str, empty_uri: str) -> None:
    Folder(empty_uri).create("file", b"")
    with pytest.raises(StoreError, match="file"):
        _ACTIONS[name](Folder(f"{empty_uri}/file"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried twice."""
    monkeypatch.setenv(ATTEMPTS_VARIABLE, "1")


@pytest.mark.slow
def test_a_server_that_only_fails_is_asked_as_often_as_patience_says_and_not_more(
    seaweedfs: ObjectStore, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own patience would multiply ours: a writer waited for a server that is gone for twelve minutes."""
    monkeypatch.setenv(ATTEMPTS_VARIABLE, "3")
    folder = Folder(f"s3://{seaweedfs.new_bucket()}/folder")
    fault_proxy.rules = [Rule(Fault.INTERNAL_ERROR)]
    for name, num_requests in (("read", 3), ("list_files", 3), ("replace", 3), ("delete", 3), ("create", 6)):
        fault_proxy.forget_requests()
        with pytest.raises(OSError, match="internal error"):
            _ACTIONS[name](folder)
        assert fault_proxy.count_requests() == num_requests, name


@pytest.mark.slow
def test_a_large_object_is_replaced_whole_or_stays_as_it_was_whatever_happens_to_a_part(
    seaweedfs: ObjectStore, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(objects._UPLOAD_OPTIONS, "s3", {"chunksize": 5 << 20})
    new = [bytes([number]) * (1 << 20) for number in range(12)]  # three parts
    uri = f"s3://{seaweedfs.new_bucket()}/folder/out"
    for method, query in [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId")]:
        write_uri(uri, [b"old"])
        fault_proxy.rules = [_the_first(Fault.INTERNAL_ERROR, method, query)]
        with monkeypatch.context() as impatience, pytest.raises(OSError, match="internal error"):
            impatience.setenv(ATTEMPTS_VARIABLE, "1")
            write_uri(uri, new)
        assert read_uri(uri) == b"old"
        for fault in (Fault.INTERNAL_ERROR, Fault.LOSE_REPLY):
            fault_proxy.rules = [_the_first(fault, method, query)]
            write_uri(uri, [*new, fault.name.encode()])
            assert read_uri(uri) == b"".join([*new, fault.name.encode()])


def _the_first(fault: Fault, method: str, query: str) -> Callable[[Request], Fault | None]:
    """The fault for the first such request."""
    met: list[Request] = []

    def rule(request: Request) -> Fault | None:
        if met or request.method != method or query not in request.query:
            return None
        met.append(request)
        return fault

    return rule


@pytest.mark.slow
@pytest.mark.parametrize("below", ["", "/folder"], ids=["bucket", "folder"])
def test_a_place_that_cannot_be_asked_for_now_is_not_taken_to_be_absent(
    below: str, seaweedfs: ObjectStore, fault_proxy: FaultProxy
) -> None:
    folder = Folder(f"s3://{seaweedfs.new_bucket()}{below}")
    folder.create("a.png", b"")
    for fault in (Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.LOSE_REPLY, Fault.CUT_BODY):
        fault_proxy.rules = [Rule(fault, nth=1)]
        folder.check_readable()
        fault_proxy.rules = [Rule(fault, nth=range(1, 3))]
        assert folder.holds_files((".png",))


@pytest.mark.usefixtures("impatient")
def test_a_passing_fault_comes_as_it_is_so_that_it_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed_out(*_: object) -> None:
        raise TimeoutError("the disk sleeps")

    folder = Folder(str(tmp_path))
    monkeypatch.setattr(os, "fsync", timed_out)
    with pytest.raises(TimeoutError, match="the disk sleeps"):
        folder.create("object", b"data")


@pytest.mark.usefixtures("impatient")
def test_a_lost_race_that_the_server_reports_as_some_other_fault_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    folder.create("object", b"theirs")

    def general_fault(*_: object) -> None:
        raise OSError(errno.EINVAL, "Precondition failed")  # SeaweedFS through s3fs

    monkeypatch.setattr(folder_module, "create_local", general_fault)
    assert not folder.create("object", b"ours")
    assert folder.create("object", b"theirs")
    with pytest.raises(OSError, match="Precondition failed"):
        folder.create("other", b"ours")


@pytest.mark.parametrize("uri", ["gopher9://host/folder", "s4://bucket/prefix"])
def test_an_unknown_scheme_is_a_store_error_that_shows_a_right_one(uri: str) -> None:
    for use in (Folder, open_uri, uri_size, read_uri, lambda uri: write_uri(uri, [])):
        with pytest.raises(StoreError, match=rf"{uri}: cannot be opened: .* Use a path or a URI such as file:///"):
            use(uri)


def test_a_password_in_an_address_of_s3_is_named_and_not_taken_for_the_bucket() -> None:
    with pytest.raises(StoreError, match=r"^s3://bucket/a: cannot be opened: it holds a user or password") as caught:
        Folder("s3://KEY:hunter2@bucket/a")
    assert "hunter2" not in str(caught.value)


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://user:pass@bucket/a/b", "s3://bucket/a/b"),
        ("https://host:8080/a?X-Amz-Signature=secret&x=1#part", "https://host:8080/a"),
        ("https://pass@host/a", "https://host/a"),
        ("ftp://user:p@ss@host/a", "ftp://host/a"),
        ("simplecache::s3://user:pass@bucket/a", "simplecache::s3://bucket/a"),
        ("s3://bucket/a b/ü", "s3://bucket/a b/ü"),
        ("file:///data/a", "file:///data/a"),
        ("memory://a/b", "memory://a/b"),
        ("/data/what? #1@home", "/data/what? #1@home"),
        ("relative/path", "relative/path"),
        ("C:\\data", "C:\\data"),
    ],
)
def test_redacted_uris_show_the_place_and_no_secret(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@given(st.sampled_from(["s3", "https", "ftp", "abfs"]), st.text("abcXYZ019-_.~!$&'()*+,;=:@", min_size=1))
def test_no_password_survives_redaction(scheme: str, password: str) -> None:
    assert redact(f"{scheme}://user:{password}@host/path?token={password}") == f"{scheme}://host/path"


def test_messages_show_no_secret() -> None:
    with pytest.raises(StoreError) as caught:
        open_uri("gopher9://user:hunter2@host/path?token=hunter2")
    assert "hunter2" not in str(caught.value)


# --- memory ---------------------------------------------------------------------------------------------------------


def test_the_store_in_memory_is_shared_between_folders_of_one_process() -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    Folder(uri).create("a", b"1")
    assert Folder(uri).read("a") == b"1"


@pytest.mark.parametrize("address", ["/tmp/odd ünï/日 #1/store", "s3://bucket/st ü", "it's", "runs/boats"])
def test_a_command_with_an_address_can_be_pasted(address: str) -> None:
    assert shlex.split(f"refseg show {typed(address)} --out x") == ["refseg", "show", address, "--out", "x"]
    assert typed("s3://me:secret@bucket/runs/boats") == "s3://bucket/runs/boats"
