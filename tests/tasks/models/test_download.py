"""Weights are downloaded whole and verified, or an error says what to put where; what came need not come again."""

import errno
import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from refseg_core.errors import WeightsError
from tasks.models.download import pull_weights
from tasks.models.weights import load_weights
from tests.support.weight_files import FILE, MODEL, Site, digest, publish, saved, serving

PAYLOAD = saved({"model": {"a": torch.randint(0, 255, (12_000_000,), dtype=torch.uint8)}})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder, empty."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("REFSEG_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site that serves PAYLOAD, which the registry pins as the weights of MODEL."""
    with serving(PAYLOAD) as site:
        publish(monkeypatch, PAYLOAD, site.url)
        yield site


class _Pauses(list[float]):
    """Stands for time.sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def _part(folder: Path) -> Path:
    return folder / f"{FILE}.part"


def test_a_download_is_whole_verified_and_loads(site: Site, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = pull_weights(MODEL, progress=lambda done, total: seen.append((done, total)))
    assert target == folder / FILE
    assert target.read_bytes() == PAYLOAD
    assert not _part(folder).exists()
    assert seen[0] == (0, len(PAYLOAD))
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert seen == sorted(seen)
    assert load_weights(MODEL).sha256 == digest(PAYLOAD)


def test_a_folder_of_ones_own_can_be_given(site: Site, folder: Path, tmp_path: Path) -> None:
    assert pull_weights(MODEL, folder=tmp_path / "other").read_bytes() == PAYLOAD
    assert not folder.exists()


def test_a_file_that_is_there_and_right_is_not_fetched(site: Site, folder: Path) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(PAYLOAD)
    pull_weights(MODEL)
    assert site.requests == []


@pytest.mark.parametrize("wrong", [b"", b"something else", PAYLOAD[:-1] + b"x"], ids=["empty", "other", "last byte"])
def test_a_file_that_is_there_and_wrong_is_replaced(site: Site, folder: Path, wrong: bytes) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(wrong)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


@pytest.mark.parametrize("cuts", [[100_000], [3_000_000, 10, 2_500_000], [0, 0, 0, 0]])
def test_a_cut_connection_is_taken_up_again(site: Site, cuts: list[int]) -> None:
    site.cuts = cuts
    pauses = _Pauses()
    assert pull_weights(MODEL, pause=pauses).read_bytes() == PAYLOAD
    assert pauses


def test_what_came_before_the_cut_does_not_come_again(site: Site, folder: Path) -> None:
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD[:7_000_000])
    seen: list[int] = []
    assert pull_weights(MODEL, progress=lambda done, _: seen.append(done)).read_bytes() == PAYLOAD
    assert min(site.starts) == seen[0] == 7_000_000


def test_a_part_that_is_complete_is_only_checked(site: Site, folder: Path) -> None:
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD
    assert site.starts == []


def test_a_part_longer_than_the_file_is_begun_again(site: Site, folder: Path) -> None:
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD + b"more")
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


@pytest.mark.parametrize("kept", [0, 7_000_000])
def test_a_server_that_ignores_ranges_sends_the_whole_file(site: Site, folder: Path, kept: int) -> None:
    site.sends_ranges = False
    folder.mkdir()
    _part(folder).write_bytes(PAYLOAD[:kept])
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


def test_passing_errors_of_the_server_are_retried(site: Site) -> None:
    site.statuses = [503, 500, 503]
    assert pull_weights(MODEL, pause=_Pauses()).read_bytes() == PAYLOAD


def test_a_site_that_stays_broken_ends_in_an_error_and_keeps_what_came(site: Site, folder: Path) -> None:
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
    with Site(b"") as closed:
        url = closed.url
    publish(monkeypatch, PAYLOAD, url)
    pauses = _Pauses()
    with pytest.raises(WeightsError) as raised:
        pull_weights(MODEL, pause=pauses)
    assert len(pauses) == 4
    message = str(raised.value)
    assert "ConnectionRefusedError" in message
    assert f"the file {FILE} from {url} into {folder}" in message
    assert "segmenter.weights" in message
    assert "no network" in message


def test_an_address_without_the_file_is_not_asked_again(site: Site) -> None:
    site.statuses = [404] * 9
    pauses = _Pauses()
    with pytest.raises(WeightsError, match="404"):
        pull_weights(MODEL, pause=pauses)
    assert pauses == []


def test_a_file_of_another_size_is_refused_before_it_is_fetched(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, PAYLOAD, site.url, size=len(PAYLOAD) + 1)
    with pytest.raises(WeightsError, match=f"{len(PAYLOAD)} bytes, expected {len(PAYLOAD) + 1}"):
        pull_weights(MODEL)
    assert site.starts == []


@pytest.mark.parametrize("kept", [b"", b"not what the file begins with"], ids=["later", "at once"])
def test_a_damaged_download_is_deleted_and_said(site: Site, folder: Path, kept: bytes) -> None:
    if not kept:
        site.data = PAYLOAD[:-1] + b"x"
    folder.mkdir()
    _part(folder).write_bytes(kept)
    with pytest.raises(WeightsError, match=r"damaged.*\.part was deleted"):
        pull_weights(MODEL)
    assert not _part(folder).exists()
    assert not (folder / FILE).exists()


def test_a_file_that_nobody_pins_is_checked_by_its_size_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, PAYLOAD, site.url, size=None, sha256=None)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


def test_pulls_at_once_fetch_the_file_once(site: Site, folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        targets = list(pool.map(lambda _: pull_weights(MODEL), range(4)))
    assert {target.read_bytes() for target in targets} == {PAYLOAD}
    assert len([method for method, _ in site.requests if method == "HEAD"]) <= 3
    assert sorted(path.name for path in folder.iterdir()) == [f".{FILE}.lock", FILE]


def test_a_file_system_without_locks_will_do(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert pull_weights(MODEL).read_bytes() == PAYLOAD


def test_a_full_disk_is_an_error_at_once_and_keeps_what_came(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
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


def test_a_folder_that_cannot_be_made_is_an_error(site: Site, tmp_path: Path) -> None:
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
