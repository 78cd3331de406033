"""Weights are found, checked, loaded and downloaded whole, or an error says what to put where."""

import errno
import fcntl
import hashlib
import io
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from torch import Tensor, nn

from refseg_core.architectures import ENCODER_ARCHITECTURES, SEGMENTER_ARCHITECTURES
from refseg_core.encoder import build_encoder
from refseg_core.errors import RefsegError, WeightsError
from refseg_core.registry import REGISTRY, PublishedWeights
from refseg_core.segmenter import build_segmenter
from tasks.weights import (
    ListedWeights,
    list_weights,
    load_weights,
    locate_weights,
    pull_weights,
    weights_folder,
)

MODEL = "sam2_hiera_tiny"
FILE = "sam2_hiera_tiny.pt"
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}


def _saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _same(state: Any, expected: dict[str, Tensor]) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder, empty."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("REFSEG_WEIGHTS", str(folder))
    return folder


def _publish(
    monkeypatch: pytest.MonkeyPatch, data: bytes, url: str = "http://127.0.0.1:9/none", **changes: Any
) -> None:
    """Has the registry pin `data` at `url` as the weights of MODEL."""
    pinned = {"url": url, "size": len(data), "sha256": _digest(data)} | changes
    monkeypatch.setitem(REGISTRY, MODEL, REGISTRY[MODEL]._replace(**pinned))


# --- loading a file of the user's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["path", "file", "memory"])
def test_weights_are_read_from_a_path_or_any_uri(scheme: str, tmp_path: Path) -> None:
    data = _saved(STATE)
    uri = {
        "path": str(tmp_path / "own.pt"),
        "file": f"file://{tmp_path}/own.pt",
        "memory": "memory://bucket/own.pt",
    }[scheme]
    with fsspec.open(uri, "wb") as file:
        file.write(data)
    loaded = load_weights(MODEL, uri)
    assert _same(loaded.state, STATE)
    assert loaded.sha256 == _digest(data)
    assert loaded.source == uri


@pytest.mark.parametrize(
    "data",
    [
        _saved({"model": STATE}),
        _saved(STATE, _use_new_zipfile_serialization=False),
        _saved(nn.ModuleDict({"a": nn.Linear(3, 2)}).state_dict()),
    ],
    ids=["below 'model'", "old file format", "ordered dictionary"],
)
def test_the_official_forms_are_unpacked(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.pt").write_bytes(data)
    state = load_weights(MODEL, str(tmp_path / "own.pt")).state
    assert state.keys() == STATE.keys()
    assert state["a.weight"].shape == (2, 3)


class _Dangerous:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-unpickling",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"this is no weights file",
        b"<html>404</html>" * 100,
        _saved(STATE)[:-100],
        _saved(STATE)[:50],
        _saved(STATE, _use_new_zipfile_serialization=False)[:200],
        pickle.dumps(_Dangerous()),
        _saved(nn.Linear(2, 2)),
        _saved([torch.zeros(2)]),
        _saved(torch.zeros(2)),
        _saved({}),
        _saved({"model": {}}),
        _saved({"step": 3, "a": torch.zeros(2)}),
        _saved({"teacher": STATE}),
        _saved({"model": {"inner": STATE}}),
        _saved({0: torch.zeros(2)}),
    ],
)
def test_anything_but_tensors_by_name_is_refused(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.pt").write_bytes(data)
    with pytest.raises(WeightsError, match=r"own\.pt"):
        load_weights(MODEL, str(tmp_path / "own.pt"))
    assert not (tmp_path / "made-by-unpickling").exists()


def test_the_error_names_what_is_not_a_tensor(tmp_path: Path) -> None:
    (tmp_path / "own.pt").write_bytes(_saved({"optimizer": {"lr": 1}, "a": torch.zeros(2)}))
    with pytest.raises(WeightsError, match=r"'optimizer'.*state_dict\(\)"):
        load_weights(MODEL, str(tmp_path / "own.pt"))


Find = Callable[[str, str | None], object]
both_ways_of_finding = pytest.mark.parametrize("find", [load_weights, locate_weights])


@both_ways_of_finding
@pytest.mark.parametrize(("model", "key"), [(MODEL, "segmenter.weights"), ("dinov2_vits14", "encoder.weights")])
@pytest.mark.parametrize("uri", ["nowhere/own.pt", "memory://nowhere/own.pt"])
def test_a_missing_source_is_named_with_its_key(find: Find, model: str, key: str, uri: str) -> None:
    with pytest.raises(WeightsError, match=rf"{key}.*{uri}.*not found"):
        find(model, uri)


@both_ways_of_finding
def test_a_source_that_is_a_folder_is_an_error(find: Find, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"segmenter\.weights"):
        find(MODEL, str(tmp_path))


@both_ways_of_finding
def test_a_scheme_that_is_not_known_is_an_error(find: Find) -> None:
    with pytest.raises(WeightsError, match="nonsense"):
        find(MODEL, "nonsense://bucket/own.pt")


@both_ways_of_finding
def test_an_unknown_model_is_an_error(find: Find) -> None:
    with pytest.raises(WeightsError, match="sam2_hiera_tiny"):
        find("sam2_hiera_tinny", None)


# --- loading the published file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True], ids=["folder", "URI prefix"])
def test_no_source_means_the_published_file_in_the_weights_folder(
    in_memory: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _saved({"model": STATE})
    _publish(monkeypatch, data)
    prefix = "memory://team/weights/" if in_memory else str(folder)
    monkeypatch.setenv("REFSEG_WEIGHTS", prefix)
    with fsspec.open(f"{prefix.rstrip('/')}/{FILE}", "wb", auto_mkdir=True) as file:
        file.write(data)
    loaded = load_weights(MODEL)
    assert _same(loaded.state, STATE)
    assert loaded.sha256 == _digest(data)
    assert loaded.source == f"{prefix.rstrip('/')}/{FILE}"


@pytest.mark.parametrize("source", [None, ""])
def test_another_file_under_the_published_name_is_refused(
    source: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(_saved(STATE))
    with pytest.raises(WeightsError) as raised:
        load_weights(MODEL, source)
    message = str(raised.value)
    assert _digest(_saved(STATE)) in message
    assert str(REGISTRY[MODEL].sha256) in message
    assert f"refseg weights pull {MODEL}" in message


def test_weights_are_located_by_their_size_without_being_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, b"x" * 100)
    folder.mkdir()
    (folder / FILE).write_bytes(b"y" * 100)
    assert locate_weights(MODEL) == str(folder / FILE)
    assert locate_weights("dinov2_vits14", str(folder / FILE)) == str(folder / FILE)
    (folder / FILE).write_bytes(b"y" * 99)
    with pytest.raises(WeightsError, match=r"99 bytes, expected 100.*refseg weights pull"):
        locate_weights(MODEL)


def test_a_file_without_a_pinned_checksum_is_taken_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, b"", sha256=None, size=None)
    folder.mkdir()
    (folder / FILE).write_bytes(_saved(STATE))
    assert _same(load_weights(MODEL).state, STATE)


@both_ways_of_finding
@pytest.mark.parametrize(("model", "kind"), [("sam2.1_hiera_large", "segmenter"), ("dinov2_vitl14_reg", "encoder")])
def test_missing_weights_are_answered_with_what_to_put_where(find: Find, model: str, kind: str, folder: Path) -> None:
    with pytest.raises(WeightsError) as raised:
        find(model, None)
    message = str(raised.value)
    published = REGISTRY[model]
    assert f"{folder}/{published.file_name} does not exist" in message
    assert f"refseg weights pull {model}" in message
    assert f"the file {published.file_name} from {published.url} into {folder}" in message
    assert f"{kind}.weights" in message


def test_the_weights_folder_is_in_the_home_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REFSEG_WEIGHTS")
    assert weights_folder() == str(tmp_path / ".cache" / "refseg" / "weights")
    monkeypatch.setenv("REFSEG_WEIGHTS", "s3://bucket/weights")
    assert weights_folder() == "s3://bucket/weights"


def _demo_state(model: str) -> ListedWeights:
    return next(row for row in list_weights() if row.model == model)


@pytest.mark.skipif(_demo_state("sam2_demo").state == "missing", reason="the demo's weights are not built yet")
def test_the_demo_models_load_without_a_download() -> None:
    segmenter, encoder = load_weights("sam2_demo"), load_weights("dinov2_demo")
    build_segmenter(SEGMENTER_ARCHITECTURES["sam2_demo"], segmenter.state, model="sam2_demo")
    build_encoder(ENCODER_ARCHITECTURES["dinov2_demo"], encoder.state, model="dinov2_demo")


@pytest.mark.real
def test_real_weights_load_and_fit(shared: Path) -> None:
    segmenter = load_weights(MODEL, str(shared / "weights" / "sam2_hiera_tiny.pt"))
    encoder = load_weights("dinov2_vits14", str(shared / "weights" / "dinov2_vits14_pretrain.pth"))
    build_segmenter(SEGMENTER_ARCHITECTURES[MODEL], segmenter.state, model=MODEL)
    build_encoder(ENCODER_ARCHITECTURES["dinov2_vits14"], encoder.state, model="dinov2_vits14")


# --- downloading ---------------------------------------------------------------------------------------------------


class _Site(ThreadingHTTPServer):
    """Serves `data` at every path, with the faults it is told."""

    daemon_threads = True
    data = b""
    sends_ranges = True
    cuts: list[int]  # how many bytes of its body the next answers may send before the connection is lost
    statuses: list[int]  # what the next answers fail with
    requests: list[tuple[str, str | None]]  # method and range of every request

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data, self.cuts, self.statuses, self.requests = data, [], [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{FILE}"

    @property
    def starts(self) -> list[int]:
        """Where the ranges that were asked for begin."""
        ranges = [asked for method, asked in self.requests if method == "GET"]
        return [int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0 for asked in ranges]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Site

    def do_HEAD(self) -> None:
        self._head(self._begin())

    def do_GET(self) -> None:
        body = self._begin()
        if not self._head(body):
            return
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def _begin(self) -> bytes:
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, asked))
        if not asked or not self.server.sends_ranges:
            return self.server.data
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return self.server.data[int(first) : int(last) + 1 if last else None]

    def _head(self, body: bytes) -> bool:
        if self.server.statuses:
            self.send_response(self.server.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        is_part = self.headers.get("Range") is not None and self.server.sends_ranges
        self.send_response(206 if is_part else 200)
        self.send_header("Content-Length", str(len(body)))
        if self.server.sends_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        return True

    def log_message(self, *_arguments: object) -> None:
        """Silent."""


PAYLOAD = _saved({"model": {"a": torch.randint(0, 255, (12_000_000,), dtype=torch.uint8)}})


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Site]:
    """A site that serves PAYLOAD, which the registry pins as the weights of MODEL."""
    with _Site(PAYLOAD) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        _publish(monkeypatch, PAYLOAD, site.url)
        yield site
        site.shutdown()
        thread.join()


class _Pauses(list[float]):
    """Stands for time.sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def _part(folder: Path) -> Path:
    return folder / f"{FILE}.part"


def test_a_download_is_whole_verified_and_loads(site: _Site, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = pull_weights(MODEL, progress=lambda done, total: seen.append((done, total)))
    assert target == folder / FILE
    assert target.read_bytes() == PAYLOAD
    assert not _part(folder).exists()
    assert seen[0] == (0, len(PAYLOAD))
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert seen == sorted(seen)
    assert load_weights(MODEL).sha256 == _digest(PAYLOAD)


def test_a_folder_of_ones_own_can_be_given(site: _Site, folder: Path, tmp_path: Path) -> None:
    assert pull_weights(MODEL, folder=tmp_path / "other").read_bytes() == PAYLOAD
    assert not folder.exists()


def test_a_file_that_is_there_and_right_is_not_fetched(site: _Site, folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(PAYLOAD)
    pull_weights(MODEL)
    assert site.requests == []


@pytest.mark.parametrize("wrong", [b"", b"something else", PAYLOAD[:-1] + b"x"])
def test_a_file_that_is_there_and_wrong_is_replaced(site: _Site, folder: Path, wrong: bytes) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(wrong)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


@pytest.mark.parametrize("cuts", [[100_000], [3_000_000, 10, 2_500_000], [0, 0, 0, 0]])
def test_a_cut_connection_is_taken_up_again(site: _Site, cuts: list[int]) -> None:
    site.cuts = cuts
    pauses = _Pauses()
    assert pull_weights(MODEL, pause=pauses).read_bytes() == PAYLOAD
    assert pauses


def test_what_came_before_the_cut_does_not_come_again(site: _Site, folder: Path) -> None:
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD[:7_000_000])
    seen: list[int] = []
    assert pull_weights(MODEL, progress=lambda done, _: seen.append(done)).read_bytes() == PAYLOAD
    assert min(site.starts) == seen[0] == 7_000_000


def test_a_part_that_is_complete_is_only_checked(site: _Site, folder: Path) -> None:
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD
    assert site.starts == []


def test_a_part_longer_than_the_file_is_begun_again(site: _Site, folder: Path) -> None:
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD + b"more")
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


@pytest.mark.parametrize("kept", [0, 7_000_000])
def test_a_server_that_ignores_ranges_sends_the_whole_file(site: _Site, folder: Path, kept: int) -> None:
    site.sends_ranges = False
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD[:kept])
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


def test_passing_errors_of_the_server_are_retried(site: _Site) -> None:
    site.statuses = [503, 500, 503]
    assert pull_weights(MODEL, pause=_Pauses()).read_bytes() == PAYLOAD


def test_a_site_that_stays_broken_ends_in_an_error_and_keeps_what_came(site: _Site, folder: Path) -> None:
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD[:5_000_000])
    site.cuts = [0] * 1000
    pauses = _Pauses()
    with pytest.raises(WeightsError, match=r"5000000 bytes are kept in .*\.part"):
        pull_weights(MODEL, pause=pauses)
    assert len(pauses) == 4
    assert all(0.25 <= seconds <= 4 for seconds in pauses)
    assert _part(folder).stat().st_size == 5_000_000
    assert not (folder / FILE).exists()


def test_without_a_network_the_error_says_what_to_put_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _Site(b"") as closed:
        url = closed.url
    _publish(monkeypatch, PAYLOAD, url)
    pauses = _Pauses()
    with pytest.raises(WeightsError) as raised:
        pull_weights(MODEL, pause=pauses)
    assert len(pauses) == 4
    message = str(raised.value)
    assert "ConnectionRefusedError" in message
    assert f"the file {FILE} from {url} into {folder}" in message
    assert "segmenter.weights" in message
    assert "no network" in message


def test_an_address_without_the_file_is_not_asked_again(site: _Site) -> None:
    site.statuses = [404] * 9
    pauses = _Pauses()
    with pytest.raises(WeightsError, match="404"):
        pull_weights(MODEL, pause=pauses)
    assert pauses == []


def test_a_file_of_another_size_is_refused_before_it_is_fetched(
    site: _Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _publish(monkeypatch, PAYLOAD, site.url, size=len(PAYLOAD) + 1)
    with pytest.raises(WeightsError, match=f"{len(PAYLOAD)} bytes, expected {len(PAYLOAD) + 1}"):
        pull_weights(MODEL)
    assert site.starts == []


@pytest.mark.parametrize("kept", [b"", b"not what the file begins with"])
def test_a_damaged_download_is_deleted_and_said(site: _Site, folder: Path, kept: bytes) -> None:
    if not kept:
        site.data = PAYLOAD[:-1] + b"x"
    folder.mkdir()
    _part(folder).write_bytes(kept)
    with pytest.raises(WeightsError, match=r"damaged.*\.part was deleted"):
        pull_weights(MODEL)
    assert not _part(folder).exists()
    assert not (folder / FILE).exists()


def test_a_file_that_nobody_pins_is_checked_by_its_size_alone(site: _Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, PAYLOAD, site.url, size=None, sha256=None)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


def test_pulls_at_once_fetch_the_file_once(site: _Site, folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        targets = list(pool.map(lambda _: pull_weights(MODEL), range(4)))
    assert {target.read_bytes() for target in targets} == {PAYLOAD}
    assert len([method for method, _ in site.requests if method == "HEAD"]) <= 3
    assert sorted(path.name for path in folder.iterdir()) == [f".{FILE}.lock", FILE]


def test_a_file_system_without_locks_will_do(site: _Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


def test_a_full_disk_is_an_error_at_once_and_keeps_what_came(
    site: _Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pauses = _Pauses()
    with monkeypatch.context() as patch, pytest.raises(WeightsError, match=r"\.part cannot be written \(No space left"):
        patch.setattr(os, "fsync", full)
        pull_weights(MODEL, pause=pauses)
    assert pauses == []
    assert _part(folder).exists()
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


def test_a_folder_that_cannot_be_made_is_an_error(site: _Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WeightsError, match="cannot be written"):
        pull_weights(MODEL, folder=tmp_path / "file" / "weights")


@pytest.mark.parametrize("given", [True, False])
def test_a_bucket_is_not_downloaded_to(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSEG_WEIGHTS", "s3://user:secret@bucket/weights")
    with pytest.raises(WeightsError, match=r"local folder.*s3://bucket/weights") as raised:
        pull_weights(MODEL, folder="s3://user:secret@bucket/weights" if given else None)
    assert "secret" not in str(raised.value)


def test_packaged_weights_need_no_download() -> None:
    assert pull_weights("dinov2_demo").name == "dinov2_demo.pt"


def test_weights_are_loaded_over_http_and_secrets_of_the_address_are_not_shown(site: _Site) -> None:
    site.data = _saved(STATE)
    host = site.url.removeprefix("http://")
    loaded = load_weights(MODEL, f"http://user:secret@{host}?token=secret")
    assert _same(loaded.state, STATE)
    assert loaded.source == site.url
    for find, status in ((load_weights, 404), (locate_weights, 404), (locate_weights, 500)):
        site.statuses = [status] * 4
        with pytest.raises(WeightsError) as raised:
            find(MODEL, f"http://user:secret@{host}?token=secret")
        assert "secret" not in str(raised.value)


def test_a_server_that_fails_for_a_while_is_no_missing_file(site: _Site) -> None:
    """The task that loads the weights is then retried, which it is not for a WeightsError."""
    site.statuses = [503] * 9
    with pytest.raises(Exception, match="503") as raised:
        load_weights(MODEL, site.url)
    assert not isinstance(raised.value, RefsegError)
    site.statuses = [503] * 9
    with pytest.raises(WeightsError, match="status 503"):
        locate_weights(MODEL, site.url)


# --- listing -------------------------------------------------------------------------------------------------------


def _row(model: str) -> ListedWeights:
    return next(row for row in list_weights() if row.model == model)


def test_the_list_has_every_model_with_what_is_published() -> None:
    rows = list_weights()
    assert [row.model for row in rows] == list(REGISTRY)
    for row in rows:
        published: PublishedWeights = REGISTRY[row.model]
        assert (row.kind, row.url, row.licence) == (published.kind, published.url, published.licence)
        assert row.is_pinned == (published.sha256 is not None)


def test_the_list_says_what_is_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, PAYLOAD)
    assert _row(MODEL).state == "missing"
    folder.mkdir()
    (folder / FILE).write_bytes(PAYLOAD)
    assert _row(MODEL).state == "present"
    assert _row(MODEL).location == str(folder / FILE)
    assert _row(MODEL).size == len(PAYLOAD)
    (folder / FILE).write_bytes(b"something else")
    assert _row(MODEL).state == "wrong size"
    assert _row("sam2_demo").location.endswith("weights/sam2_demo.pt")


def test_a_weights_folder_with_an_unknown_scheme_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSEG_WEIGHTS", "nonsense://bucket")
    with pytest.raises(WeightsError, match="weights folder"):
        list_weights()
