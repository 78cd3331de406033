"""Whatever is wrong with what a user gives is named in one message with exit code 2, and nothing is lost by it.

By hand what users and tools get wrong, and by the hundred what hypothesis makes of right files. Images are in
`tests/system/test_bad_images.py`, stores in `tests/system/test_damaged_stores.py`.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.cli import main as cli
from flows.config.preflight import check
from refseg_core.tables import Detections, LabeledImages
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.commands import contents, done, refseg, refused, without_prefect
from tests.support.projects.project import Project, read_coco, write_project
from tests.support.samples import table_rows

pytest_plugins = ["tests.support.projects.tiny_project"]

Document = dict[str, Any]


@pytest.fixture(autouse=True)
def plain_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without Prefect, which are not patient with servers that are not there."""
    without_prefect(monkeypatch)
    monkeypatch.setenv("REFSEG_STORE_ATTEMPTS", "1")


def _is_whole(store: Path) -> bool:
    """Whether everything in the store is an artifact, complete and undamaged."""
    if not store.exists():
        return True
    names = {name.rpartition("/")[0] for name in contents(store)}
    return verify_store(Store(str(store))).problems == [] and all(
        (store / name / "manifest.json").exists() for name in names
    )


def _labels(store: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    run, _ = newest_labels(Store(str(store)))
    parts = list(run.read(run.images()))
    return (
        table_rows(Detections.concatenate([part for part, _ in parts])),
        table_rows(LabeledImages.concatenate([part for _, part in parts]), without=["seconds"]),
    )


# --- annotations, by hand --------------------------------------------------------------------------------------------


def _edited(section: str, **changes: Any) -> Callable[[Document], bytes]:
    """The document with other values in the first entry of a list; `...` drops the key."""

    def edit(document: Document) -> bytes:
        for key, value in changes.items():
            document[section][0][key] = value
            if value is ...:
                del document[section][0][key]
        return json.dumps(document).encode()

    return edit


def _text(change: Callable[[bytes], bytes]) -> Callable[[Document], bytes]:
    return lambda document: change(json.dumps(document).encode())


def _with(**lists: Any) -> Callable[[Document], bytes]:
    return lambda document: json.dumps(document | lists).encode()


def _repeated(section: str) -> Callable[[Document], bytes]:
    return lambda document: json.dumps(document | {section: document[section] * 2}).encode()


_NOT_JSON = "is not valid json"
_ANNOTATION_FAULTS: dict[str, tuple[Callable[[Document], bytes], str]] = {
    "empty file": (_text(lambda _: b""), _NOT_JSON),
    "cut off": (_text(lambda text: text[:200]), _NOT_JSON),
    "cut at the last byte": (_text(lambda text: text[:-1]), _NOT_JSON),
    "something after the end": (_text(lambda text: text + b"]"), "expected the end of the file"),
    "two documents": (_text(lambda text: text * 2), "expected the end of the file"),
    "zeros": (_text(lambda _: bytes(64)), _NOT_JSON),
    "an image": (_text(lambda _: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), _NOT_JSON),
    "single quotes": (_text(lambda text: text.replace(b'"', b"'")), _NOT_JSON),
    "other encoding": (_text(lambda text: text.replace(b"box", b"b\xf6x")), _NOT_JSON),
    "nested without end": (_text(lambda _: b'{"images": ' + b"[" * 100_000), "less nesting"),
    "a number of 5000 digits": (_text(lambda text: text.replace(b'"id": 1', b'"id": ' + b"9" * 5000, 1)), _NOT_JSON),
    "null": (_text(lambda _: b"null"), "the file is not a COCO dataset"),
    "a list": (_text(lambda _: b"[]"), "the file is not a COCO dataset"),
    "an empty object": (_text(lambda _: b"{}"), "a list is missing from the file"),
    "no images": (lambda document: json.dumps({**document, "images": []}).encode(), "not among the images"),
    "no categories": (_with(categories=[]), "not among the categories"),
    "images is an object": (_with(images={"1": {}}), "an entry of the file is not a list"),
    "images of numbers": (_with(images=[1, 2, 3]), "an entry of a list is not an object"),
    "a list twice": (_text(lambda text: text[:-1] + b', "images": []}'), "a list appears twice"),
    "image ids twice": (_repeated("images"), "an image id is used more than once"),
    "annotation ids twice": (_repeated("annotations"), "an annotation id is used more than once"),
    "category ids twice": (_repeated("categories"), "a category id is used more than once"),
    "category names twice": (_with(categories=[{"id": 3, "name": "a"}, {"id": 8, "name": "a"}]), "name is used more"),
    **{
        f"image id {value!r}": (_edited("images", id=value), "an image has no usable id")
        for value in (None, True, 1.5, "", [], {}, float("nan"), float("inf"), "\ud800", ...)
    },
    "image id of another type": (_edited("images", id="one"), "image_id is not among the images"),
    **{
        f"file name {value!r}": (_edited("images", file_name=value), words)
        for value, words in (
            (..., "an image has no file_name"),
            (None, "an image has no file_name"),
            (7, "an image has no file_name"),
            (["r0.png"], "an image has no file_name"),
        )
    },
    **{
        f"height {value!r}": (_edited("images", height=value), "width or height is not a number of pixels")
        for value in (-1, 1.5, "96", True, float("nan"), 10**9, [])
    },
    **{
        f"annotation id {value!r}": (_edited("annotations", id=value), "an annotation has no usable id")
        for value in (None, True, 1.5, "", [], ...)
    },
    **{
        f"image_id {value!r}": (_edited("annotations", image_id=value), "image_id is not among the images")
        for value in (..., None, 99, "r0.png", True, [1])
    },
    **{
        f"category_id {value!r}": (_edited("annotations", category_id=value), "category_id is not among the categories")
        for value in (..., None, 99, "box", True, 3.5, 10**30)
    },
    **{
        f"bbox {value!r}": (_edited("annotations", bbox=value), "bbox is not four finite numbers")
        for value in (
            *([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, "4"], [1, 2, -3, 4], [float("nan")] * 4, [0, 0, float("inf"), 1]),
            *("1 2 3 4", {"x": 1}, 7, [[1], 2, 3, 4], [10**400, 0, 1, 1], [None] * 4),
        )
    },
    **{
        f"bbox outside {value!r}": (_edited("annotations", bbox=value), "lies wholly outside its image")
        for value in ([500, 0, 5, 5], [0, 500, 5, 5], [-50, 0, 5, 5], [1e308, 1e308, 1e308, 1e308])
    },
    "neither box nor mask": (_edited("annotations", bbox=..., segmentation=...), "neither a bbox nor a mask"),
    **{
        f"area {value!r}": (_edited("annotations", area=value), "area is not a number")
        for value in (-1, "12", float("nan"), float("inf"), True, [])
    },
    **{
        f"iscrowd {value!r}": (_edited("annotations", iscrowd=value), "iscrowd or isimpossible is not 0 or 1")
        for value in (2, "0", -1, [], float("nan"))
    },
    **{
        f"segmentation {json.dumps(value)[:40]}": (_edited("annotations", segmentation=value), "an annotation's")
        for value in (
            *("mask.png", True, [None], [[1, 2, 3, 4, 5, 6, 7]], [["a"] * 6], [[float("nan")] * 6], [[1e308] * 6]),
            *([[10**400] * 6], [{}], {"size": [96, 128], "counts": [1, 2]}, {"size": [96, 128], "counts": "~~~"}),
            *({"size": None, "counts": "01"}, {"size": [96, 128], "counts": [-5, 12293]}, {"counts": [12288]}),
            *(
                {"size": [96, 128], "counts": None},
                {"size": [1, 2, 3], "counts": "01"},
                {"size": [97, 128], "counts": [1]},
            ),
            *(
                {"size": [96, 128], "counts": ""},
                {"size": [96, 128], "counts": []},
                {"size": [96, 128], "counts": "\u1234"},
            ),
        )
    },
    **{
        f"category {key} {value!r}": (_edited("categories", **{key: value}), words)
        for key, value, words in (
            *(("id", value, "a category has no usable id") for value in (None, True, 1.5, "box", 10**30, ...)),
            *(("name", value, "a category has no usable name") for value in (None, "", 7, [], "\ud800", ...)),
        )
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["references", "targets"])
@pytest.mark.parametrize("fault", _ANNOTATION_FAULTS)
def test_annotations_that_are_wrong_are_named_with_what_is_wrong(fault: str, which: str, project: Project) -> None:
    spoil, words = _ANNOTATION_FAULTS[fault]
    file = project.folder / f"{which}.json"
    file.write_bytes(spoil(read_coco(file)))
    message = refused(refseg("run", project.write_config()))
    assert file.name in message
    assert words in message
    assert len(message) < 3000
    assert _is_whole(project.folder / "store")


@pytest.mark.slow
def test_right_annotations_in_other_writing_are_read(project: Project) -> None:
    file = project.folder / "references.json"
    text = file.read_bytes().decode()
    before = done(refseg("index", project.write_config()))
    for number, data in enumerate((b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), text.encode("utf-32"))):
        file.write_bytes(data)
        after = done(refseg("index", project.write_config(store=str(project.folder / str(number)))))
        assert after.splitlines()[:6] == before.splitlines()[:6]


def test_annotations_without_use_are_told(project: Project) -> None:
    """Categories without images, images without annotations: fine where they are targets, named as references."""
    document = read_coco(project.folder / "references.json")
    for name in ("references", "targets"):
        empty = document | {"annotations": []}
        (project.folder / f"{name}.json").write_text(json.dumps(empty))
        message = refused(refseg("run", project.write_config()))
        assert "box" in message or name == "targets"
        if name == "references":
            (project.folder / "references.json").write_text(json.dumps(document))


@pytest.mark.slow
def test_names_are_shown_as_they_stand_whatever_they_look_like(project: Project) -> None:
    for number, name in enumerate(("[red]box[/red]", "[/]", "{box}", "%s", ":smile:", "日本語 🚢", "a\u202eb")):
        for which in ("references", "targets"):
            file = project.folder / f"{which}.json"
            document = read_coco(file)
            document["categories"][0]["name"] = name
            file.write_text(json.dumps(document))
        assert name in done(refseg("index", project.write_config(store=str(project.folder / str(number)))))
        assert repr(name) in refused(refseg("weights", "pull", name))


# --- configurations and places, by hand ------------------------------------------------------------------------------

_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 7)
)
_YAML_FAULTS = [
    *("x: 2026-13-45", f"x: {'9' * 5000}", "x: !!float abc", "x: !!int abc", "x: !!timestamp abc", "x: !!binary z"),
    *("x: [", "x: 'a", "x: @a", "x: *a", "\tx: 1", "x: !!python/object:os.system x", "? [1]\n: 2", "x: \0"),
    *("1: 2", "x: &a [*a]", _LAUGHS, f"x: {'[' * 900}", "labeling: 7", "labeling: [1]", "labeling: null"),
    *("batches: {images_per_shard: .nan}", "batches: {images_per_shard: 1e999}", "device: gpu", "device: [cpu]"),
]


@pytest.mark.parametrize("extra", _YAML_FAULTS, ids=lambda extra: extra[:40])
def test_a_configuration_that_is_wrong_is_named(extra: str, project: Project) -> None:
    file = project.write_config()
    file.write_text(f"{file.read_text()}\n{extra}\n")
    message = refused(refseg("run", file))
    assert "run.yaml" in message or "device" in message
    assert len(message) < 3000
    assert not (project.folder / "store").exists()


_PLACES = [
    *("", "~nobodyhere/x", "a\0b", "a::b", "::", "file://host/x", "file://relative", "gopher9://host/x", "\ud800"),
    *("s3://[x", "http://[::1", "zip://a::/nowhere/b.zip", "s3://", "x" * 300, "x/" * 3000, "/dev/null", "/dev/null/x"),
]
_KEYS = ["store", "references.images", "references.annotations", "targets.images", "targets.annotations", "pictures"]
_KEYS += ["targets.masks_from", "segmenter.weights", "encoder.weights"]
# What only the writing of pictures tells.
_LATE = {("pictures", place) for place in ("s3://", "x" * 300, "x/" * 3000, "/dev/null", "/dev/null/x")}
# What is read as an empty file, and where an empty prefix is a bucket's list.
_PLACE_CASES = [(key, place) for key in _KEYS for place in _PLACES if (key, place) not in _LATE]


@pytest.mark.slow
@pytest.mark.parametrize(("key", "place"), _PLACE_CASES, ids=lambda value: repr(value)[:40])
def test_a_place_that_cannot_be_is_named(
    key: str, place: str, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    before = set(contents(tmp_path)) | {"run.yaml"}
    message = refused(refseg("run", project.write_config(**{key.replace(".", "__"): place})))
    assert len(message) < 20_000
    assert {name for name in set(contents(tmp_path)) - before if not name.startswith("store/")} == set()
    assert _is_whole(project.folder / "store")


def test_a_server_that_is_not_there_ends_in_one_line(project: Project) -> None:
    result = refseg("index", project.write_config(references__annotations="http://127.0.0.1:9/refs.json"))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: http://127.0.0.1:9/refs.json: ClientConnectorError: Cannot connect to host")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [("status",), ("verify",), ("gc",), ("export", "--out", "x"), ("show", "--out", "x")]
)
@pytest.mark.parametrize("place", ["/nowhere", "a::b", "file://x", "\0", "s3://[x", "/dev/null", "gopher9://x"])
def test_a_store_that_cannot_be_is_named(
    command: tuple[str, ...], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = command
    refused(refseg(name, place, *options))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("out", ["", "a\0b", "/dev/null/x", "file://x", "s3://[x", "x" * 300])
@pytest.mark.slow
def test_an_output_that_cannot_be_is_named(out: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    done(refseg("run", project.write_config()))
    before = contents(project.folder)
    monkeypatch.chdir(project.folder)
    for command in ("export", "show"):
        refused(refseg(command, project.folder / "store", "--out", out))
    assert contents(project.folder) == before


@pytest.mark.parametrize(
    "data",
    [b"", b"text", b"PK\x03\x04", bytes(1000), b"\x80\x02}q\x00."],
    ids=["empty", "text", "zip", "zeros", "pickle"],
)
@pytest.mark.parametrize("model", ["segmenter", "encoder"])
@pytest.mark.slow
def test_weights_that_are_none_are_named(model: str, data: bytes, project: Project) -> None:
    weights = project.folder / "damaged.pt"
    weights.write_bytes(data)
    message = refused(refseg("run", project.write_config(**{f"{model}__weights": str(weights)})))
    assert "damaged.pt" in message
    assert _is_whole(project.folder / "store")


def test_weights_of_the_other_model_and_cut_ones_are_named(project: Project) -> None:
    weights = Path(project.content["segmenter"]["weights"])
    (project.folder / "cut.pt").write_bytes(weights.read_bytes()[:-100])
    for place in (weights.with_name("encoder.pt"), project.folder / "cut.pt"):
        message = refused(refseg("run", project.write_config(segmenter__weights=str(place))))
        assert place.name in message or "sam2_demo" in message
    assert _is_whole(project.folder / "store")


@pytest.mark.slow
def test_after_many_mistakes_a_right_run_in_the_same_store_is_exact(project: Project, tmp_path: Path) -> None:
    for number, (spoil, _) in enumerate(_ANNOTATION_FAULTS.values()):
        if number % 8 == 0:
            file = project.folder / ("references.json", "targets.json")[number // 8 % 2]
            right = file.read_bytes()
            file.write_bytes(spoil(json.loads(right)))
            refused(refseg("run", project.write_config()))
            file.write_bytes(right)
    refused(refseg("run", project.write_config(segmenter__weights=str(project.folder / "references.json"))))
    done(refseg("run", project.write_config()))
    done(refseg("run", project.write_config(store=str(project.folder / "untouched"))))
    assert _labels(project.folder / "store") == _labels(project.folder / "untouched")
    assert verify_store(Store(str(project.folder / "store"))).problems == []


# --- by the hundred --------------------------------------------------------------------------------------------------

_JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.sampled_from([10**30, -(10**30), 2**63, 1e308, -1e308, float("nan"), float("inf"), -0.0, 0.5]),
    st.sampled_from(
        ["", "1", "x", "box", "r0.png", "../r0.png", "/etc/passwd", "a\0b", "\ud800", "ü", "[/]", "9" * 50]
    ),
    st.lists(st.integers(-200, 300) | st.floats(allow_nan=True), max_size=8),
    st.lists(st.lists(st.floats(-50, 150) | st.integers(-1000, 1000), max_size=9), max_size=3),
    st.dictionaries(st.sampled_from(["size", "counts", "id", "name"]), st.integers(0, 200) | st.text(max_size=4)),
    st.fixed_dictionaries({"size": st.just([96, 128]), "counts": st.text(max_size=6) | st.just([12288])}),
    st.lists(st.floats(-200, 300), min_size=4, max_size=4),
)


@st.composite
def _spoiled_documents(draw: st.DrawFn, right: Document) -> bytes:
    """A right document with some entries changed, dropped, doubled or added, and then perhaps its bytes."""
    document = copy.deepcopy(right)
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(["images", "annotations", "annotations", "categories"]))
        entries = document.get(section)
        if not isinstance(entries, list) or not entries:
            continue
        row = draw(st.integers(0, len(entries) - 1))
        entry = entries[row]
        match draw(st.sampled_from(["change", "change", "change", "drop", "double", "remove", "replace", "section"])):
            case "change" if isinstance(entry, dict) and entry:
                entry[draw(st.sampled_from([*entry, "segmentation", "isimpossible", "coco_url"]))] = draw(_JUNK)
            case "drop" if isinstance(entry, dict) and entry:
                del entry[draw(st.sampled_from(sorted(entry)))]
            case "double":
                entries.append(copy.deepcopy(entry))
            case "remove":
                del entries[row]
            case "replace":
                entries[row] = draw(_JUNK)
            case "section":
                document[section] = draw(_JUNK)
    data = json.dumps(document).encode()
    match draw(st.sampled_from(["", "", "", "", "cut", "append", "encode", "bytes"])):
        case "cut":
            data = data[: draw(st.integers(0, len(data)))]
        case "append":
            data += draw(st.binary(min_size=1, max_size=4))
        case "encode":
            data = data.decode().encode(draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "utf-16-le"])))
        case "bytes":
            place = draw(st.integers(0, len(data)))
            data = data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 4)) :]
    return data


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Project:
    """One project for many examples; whoever spoils its files writes them anew."""
    return write_project(tmp_path_factory.mktemp("project"), tiny_weights, num_targets=2)


@pytest.fixture
def store() -> Iterator[Callable[[], str]]:
    """Gives a store that nobody has written to yet, every time it is called."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(10_000))
        yield lambda: str(Path(folder) / str(next(numbers)))


def _ends_well_or_is_refused(*command: str | Path) -> None:
    result = refseg(*command)
    if result.exit_code != 0:
        message = refused(result)
        assert 10 < len(message) < 20_000


_MANY = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@pytest.mark.parametrize("which", ["references", "targets"])
def test_whatever_stands_in_an_annotation_file_a_run_ends_well_or_says_why_not(
    which: str, shared_project: Project, tiny_models: None, store: Callable[[], str]
) -> None:
    file = shared_project.folder / f"{which}.json"
    right = file.read_bytes()

    @settings(_MANY, max_examples=120)
    @given(data=_spoiled_documents(json.loads(right)))
    def check_one(data: bytes) -> None:
        file.write_bytes(data)
        place = store()
        _ends_well_or_is_refused("run", shared_project.write_config(store=place))
        assert not Path(place).exists() or verify_store(Store(place)).problems == []

    try:
        check_one()
    finally:
        file.write_bytes(right)


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.floats(allow_nan=True),
    st.sampled_from(_PLACES),
    st.text(max_size=8),
    st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(
        ["sam2_hiera_tiny", "dinov2_demo", "lvis", "semantic", "original", "all", "fewer", "cuda", "cuda:7"]
    ),
    st.sampled_from([10**30, "9" * 5000, "https://host/a?b=c", "s3://user:hunter2@bucket/x"]),
)


@st.composite
def _spoiled_configurations(draw: st.DrawFn, right: dict[str, Any]) -> bytes:
    """A right configuration with some keys changed, dropped or added, and then perhaps its bytes."""
    content = copy.deepcopy(right)
    known = [*right, "references.sampling.num_shots", "references.sampling.categories", "references.annotation_ids"]
    known += [
        "targets.images",
        "targets.image_ids",
        "targets.masks_from",
        "references.crop.context_ratio",
        "conventions",
    ]
    known += ["evaluation.protocol", "labeling.points_per_side", "labeling.pred_iou_thresh", "segmenter.model"]
    known += ["references.sampling.selection", "references.sampling.split", "device", "pictures", "no such key"]
    for _ in range(draw(st.integers(1, 3))):
        *sections, last = draw(st.sampled_from(known)).split(".")
        inner: Any = content
        for section in sections:
            inner = inner.setdefault(section, {}) if isinstance(inner, dict) else inner
        if isinstance(inner, dict):
            inner[last] = draw(_VALUES)
            if draw(st.integers(0, 5)) == 0:
                del inner[last]
    data = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(["", "", "", "cut", "bytes"])):
        case "cut":
            data = data[: draw(st.integers(0, len(data)))]
        case "bytes":
            place = draw(st.integers(0, len(data)))
            data = data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 4)) :]
    return data


@pytest.mark.slow
def test_whatever_stands_in_a_configuration_it_is_right_or_refused(
    shared_project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As far as its checks go: what is right might ask for hours of work."""
    monkeypatch.setattr(cli, "execute", check)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    file = shared_project.folder / "spoiled.yaml"

    @settings(_MANY, max_examples=150)
    @given(data=_spoiled_configurations(shared_project.content))
    def check_one(data: bytes) -> None:
        file.write_bytes(data)
        result = refseg("run", file)
        assert "hunter2" not in result.output
        if result.exit_code != 0:
            assert 10 < len(refused(result)) < 30_000

    check_one()
    assert list(tmp_path.iterdir()) == []
