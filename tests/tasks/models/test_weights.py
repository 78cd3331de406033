"""Weights are found, checked, listed and loaded, or an error says what to put where."""

import os
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from torch import nn

from refseg_core.errors import RefsegError, WeightsError
from refseg_core.models.dinov2 import build as build_encoder
from refseg_core.models.registry import REGISTRY
from refseg_core.models.sam2 import build as build_segmenter
from tasks.datasets.demo_files import demo_weights
from tasks.models.weights import ListedWeights, list_weights, load_weights, locate_weights, weights_folder
from tests.support.weight_files import FILE, MODEL, STATE, Site, digest, publish, same, saved, serving


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder, empty."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("REFSEG_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def site() -> Iterator[Site]:
    """A site that serves STATE."""
    with serving(saved(STATE)) as site:
        yield site


@pytest.mark.parametrize("scheme", ["path", "file", "memory"])
def test_weights_are_read_from_a_path_or_any_uri(scheme: str, tmp_path: Path) -> None:
    data = saved(STATE)
    uri = {
        "path": str(tmp_path / "own.pt"),
        "file": f"file://{tmp_path}/own.pt",
        "memory": "memory://bucket/own.pt",
    }[scheme]
    with fsspec.open(uri, "wb") as file:
        file.write(data)
    loaded = load_weights(MODEL, uri)
    assert same(loaded.state, STATE)
    assert loaded.sha256 == digest(data)
    assert loaded.source == uri


@pytest.mark.parametrize(
    "data",
    [
        saved({"model": STATE}),
        saved(STATE, _use_new_zipfile_serialization=False),
        saved(nn.ModuleDict({"a": nn.Linear(3, 2)}).state_dict()),
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
        pytest.param(b"", id="nothing"),
        pytest.param(b"this is no weights file", id="text"),
        pytest.param(b"<html>404</html>" * 100, id="page"),
        pytest.param(saved(STATE)[:-100], id="without its end"),
        pytest.param(saved(STATE)[:50], id="its beginning"),
        pytest.param(saved(STATE, _use_new_zipfile_serialization=False)[:200], id="beginning in the old format"),
        pytest.param(pickle.dumps(_Dangerous()), id="code"),
        pytest.param(saved(nn.Linear(2, 2)), id="module"),
        pytest.param(saved([torch.zeros(2)]), id="list"),
        pytest.param(saved(torch.zeros(2)), id="tensor"),
        pytest.param(saved({}), id="empty"),
        pytest.param(saved({"model": {}}), id="empty below 'model'"),
        pytest.param(saved({"step": 3, "a": torch.zeros(2)}), id="number among tensors"),
        pytest.param(saved({"teacher": STATE}), id="below 'teacher'"),
        pytest.param(saved({"model": {"inner": STATE}}), id="too deep"),
        pytest.param(saved({0: torch.zeros(2)}), id="number for a name"),
    ],
)
def test_anything_but_tensors_by_name_is_refused(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.pt").write_bytes(data)
    with pytest.raises(WeightsError, match=r"own\.pt"):
        load_weights(MODEL, str(tmp_path / "own.pt"))
    assert not (tmp_path / "made-by-unpickling").exists()


def test_the_error_names_what_is_not_a_tensor(tmp_path: Path) -> None:
    (tmp_path / "own.pt").write_bytes(saved({"optimizer": {"lr": 1}, "a": torch.zeros(2)}))
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


@pytest.mark.parametrize("in_memory", [False, True], ids=["folder", "URI prefix"])
def test_no_source_means_the_published_file_in_the_weights_folder(
    in_memory: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved({"model": STATE})
    publish(monkeypatch, data)
    prefix = "memory://team/weights/" if in_memory else str(folder)
    monkeypatch.setenv("REFSEG_WEIGHTS", prefix)
    with fsspec.open(f"{prefix.rstrip('/')}/{FILE}", "wb", auto_mkdir=True) as file:
        file.write(data)
    loaded = load_weights(MODEL)
    assert same(loaded.state, STATE)
    assert loaded.sha256 == digest(data)
    assert loaded.source == f"{prefix.rstrip('/')}/{FILE}"


@pytest.mark.parametrize("source", [None, ""])
def test_another_file_under_the_published_name_is_refused(
    source: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(saved(STATE))
    with pytest.raises(WeightsError) as raised:
        load_weights(MODEL, source)
    message = str(raised.value)
    assert digest(saved(STATE)) in message
    assert str(REGISTRY[MODEL].sha256) in message
    assert f"refseg weights pull {MODEL}" in message


def test_weights_are_located_by_their_size_without_being_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, b"x" * 100)
    folder.mkdir()
    (folder / FILE).write_bytes(b"y" * 100)
    assert locate_weights(MODEL) == str(folder / FILE)
    assert locate_weights("dinov2_vits14", str(folder / FILE)) == str(folder / FILE)
    (folder / FILE).write_bytes(b"y" * 99)
    with pytest.raises(WeightsError, match=r"99 bytes, the published one 100\..*refseg weights pull"):
        locate_weights(MODEL)


def test_a_file_without_a_pinned_checksum_is_taken_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, b"", sha256=None, size=None)
    folder.mkdir()
    (folder / FILE).write_bytes(saved(STATE))
    assert same(load_weights(MODEL).state, STATE)


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


def _row(model: str) -> ListedWeights:
    return next(row for row in list_weights() if row.spec.name == model)


@pytest.mark.skipif(_row("sam2_demo").state == "missing", reason="the demo's weights are not built yet")
def test_the_demo_models_load_without_a_download() -> None:
    segmenter, encoder = load_weights("sam2_demo"), load_weights("dinov2_demo")
    build_segmenter(REGISTRY["sam2_demo"].architecture, segmenter.state, model="sam2_demo")
    build_encoder(REGISTRY["dinov2_demo"].architecture, encoder.state, model="dinov2_demo")


@pytest.mark.real
def test_real_weights_load_and_fit(shared: Path) -> None:
    segmenter = load_weights(MODEL, str(shared / "weights" / "sam2_hiera_tiny.pt"))
    encoder = load_weights("dinov2_vits14", str(shared / "weights" / "dinov2_vits14_pretrain.pth"))
    build_segmenter(REGISTRY[MODEL].architecture, segmenter.state, model=MODEL)
    build_encoder(REGISTRY["dinov2_vits14"].architecture, encoder.state, model="dinov2_vits14")


def test_weights_are_loaded_over_http_and_secrets_of_the_address_are_not_shown(site: Site) -> None:
    host = site.url.removeprefix("http://")
    loaded = load_weights(MODEL, f"http://user:secret@{host}?token=secret")
    assert same(loaded.state, STATE)
    assert loaded.source == site.url
    for find, status in ((load_weights, 404), (locate_weights, 404), (locate_weights, 500)):
        site.statuses = [status] * 4
        with pytest.raises(WeightsError) as raised:
            find(MODEL, f"http://user:secret@{host}?token=secret")
        assert "secret" not in str(raised.value)


def test_a_server_that_fails_for_a_while_is_no_missing_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task that loads the weights is then retried, which it is not for a WeightsError."""
    monkeypatch.setenv("REFSEG_STORE_ATTEMPTS", "2")
    site.statuses = [503] * 9
    with pytest.raises(Exception, match="503") as raised:
        load_weights(MODEL, site.url)
    assert not isinstance(raised.value, RefsegError)
    site.statuses = [503] * 9
    with pytest.raises(WeightsError, match="status 503"):
        locate_weights(MODEL, site.url)


def test_the_list_has_every_model_with_what_is_published() -> None:
    assert [row.spec for row in list_weights()] == list(REGISTRY.values())


def test_the_list_says_what_is_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(STATE)
    publish(monkeypatch, data)
    assert _row(MODEL).state == "missing"
    folder.mkdir()
    (folder / FILE).write_bytes(data)
    assert _row(MODEL).state == "present"
    assert _row(MODEL).location == str(folder / FILE)
    assert _row(MODEL).size == len(data)
    (folder / FILE).write_bytes(b"something else")
    assert _row(MODEL).state == "wrong size"
    assert _row("sam2_demo").location.endswith("weights/sam2_demo.pt")


def test_a_weights_folder_with_an_unknown_scheme_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSEG_WEIGHTS", "nonsense://bucket")
    with pytest.raises(WeightsError, match="weights folder"):
        list_weights()


@pytest.mark.parametrize(("size", "is_half"), [(50, True), (51, True), (60, False), (150, False)])
def test_a_file_far_away_of_another_size_is_judged_by_its_size(
    monkeypatch: pytest.MonkeyPatch, size: int, is_half: bool
) -> None:
    publish(monkeypatch, b"x" * 100)
    monkeypatch.setenv("REFSEG_WEIGHTS", "memory://far/away")
    with fsspec.open(f"memory://far/away/{FILE}", "wb", auto_mkdir=True) as file:
        file.write(b"y" * size)
    with pytest.raises(WeightsError) as error:
        locate_weights(MODEL)
    assert ("about half, as with parameters of 16 bits" in str(error.value)) == is_half
    assert f"To use it as it is, set segmenter.weights to memory://far/away/{FILE}" in str(error.value)


_DEMO = demo_weights("dinov2_demo.pt")
_USE = "To use it as it is, set encoder.weights to "
_PULL = "elete it and run `refseg weights pull dinov2_demo`."


def _refused(folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], *, by_size: bool) -> str:
    """What is said of the file of the demo's encoder, changed, where its weights were published."""
    data = _DEMO.read_bytes()
    pinned = {"url": "http://127.0.0.1:9/none", "size": len(data) - by_size, "sha256": digest(data)}
    monkeypatch.setitem(REGISTRY, "dinov2_demo", replace(REGISTRY["dinov2_demo"], **pinned))
    state = {name: tensor.float() for name, tensor in load_weights("dinov2_demo", str(_DEMO)).state.items()}
    folder.mkdir()
    changed = change(state)
    (folder / "dinov2_demo.pt").write_bytes(changed if isinstance(changed, bytes) else saved(changed))
    with pytest.raises(WeightsError) as error:
        (locate_weights if by_size else load_weights)("dinov2_demo")
    return str(error.value)


@pytest.mark.parametrize("by_size", [True, False])
def test_weights_of_another_precision_are_said_to_be_and_how_to_use_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by_size: bool
) -> None:
    def halve(state: Any) -> Any:
        return {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.items()}

    said = _refused(folder, monkeypatch, halve, by_size=by_size)
    (counts,) = re.findall(r"names and shapes that the model needs, (\d+) of float32 and (\d+) of float16, ", said)
    assert min(map(int, counts)) > 10
    assert "; they are computed with as float32. " + _USE + str(folder / "dinov2_demo.pt") in said
    assert said.endswith(f" Else d{_PULL}")


def test_weights_of_the_same_precision_differ_in_their_values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _refused(folder, monkeypatch, lambda state: {name: one + 1 for name, one in state.items()}, by_size=False)
    assert re.search(r"names and shapes that the model needs, \d+ of float32, [\d,]+ numbers in all\. To use it", said)


def test_weights_that_do_not_fit_are_not_offered_but_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def misfit(state: Any) -> Any:
        (first, tensor), *others = state.items()
        return dict(others[1:]) | {first: tensor[..., :1], "head.extra": tensor}

    said = _refused(folder, monkeypatch, misfit, by_size=True)
    assert re.search(r"1 missing: .*; 1 unexpected: head\.extra; 1 of another shape: .*\(expected .*, got ", said)
    assert _USE not in said
    assert said.endswith(f"D{_PULL}")


def test_a_damaged_file_is_said_to_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _refused(folder, monkeypatch, lambda _: b"half a file", by_size=True)
    assert "It is not a file of PyTorch weights, or is damaged" in said
    assert _USE not in said
    assert said.endswith(f"D{_PULL}")
