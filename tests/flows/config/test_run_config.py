"""The configuration of a run: stable keys, a template that explains them, and errors that name the key."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config.loading import load_config, parse_config
from flows.config.run_config import Key, RunConfig, keys
from flows.config.template import template
from refseg_core.errors import ConfigurationError
from refseg_core.settings import LabelingSettings, SamplingSettings
from tests.support.projects.project import changed

REQUIRED: dict[str, Any] = {
    "store": "runs/boats",
    "references": {"images": "references", "annotations": "references.json"},
    "targets": {"images": "images"},
}
PUBLISHED_KEYS = {
    "store",
    "references.images",
    "references.annotations",
    "references.annotation_ids",
    "references.sampling.split",
    "references.sampling.categories",
    "references.sampling.num_shots",
    "references.sampling.seed",
    "targets.images",
    "targets.annotations",
    "targets.image_ids",
    "targets.masks_from",
    "segmenter.model",
    "segmenter.weights",
    "encoder.model",
    "encoder.weights",
    "labeling.points_per_side",
    "labeling.pred_iou_thresh",
    "labeling.box_nms_thresh",
    "labeling.max_detections",
    "evaluation.protocol",
    "evaluation.semantic_score_thresh",
    "evaluation.score_threshes",
    "device",
}


def _with(changes: dict[str, Any]) -> dict[str, Any]:
    """The required keys with changes by dotted key."""
    return changed(REQUIRED, changes)


def _value(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _error(content: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(content, source="run.yaml")
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


# --- keys ------------------------------------------------------------------------------------------------------------


def test_the_keys_that_people_script_against_exist() -> None:
    assert {key.name for key in keys()} >= PUBLISHED_KEYS


def test_the_published_example_is_a_configuration(file: Path) -> None:
    file.write_text(
        """
store: file:///data/runs/boats            # any fsspec URI: artifacts go here
references:
  images: s3://bucket/refs                # folder or prefix
  annotations: s3://bucket/refs.json      # COCO json, with masks or with boxes only
  annotation_ids: [12, 99]                # optional: exactly these; otherwise sampling decides
  sampling: {split: null, categories: [boat, bird], num_shots: 1, seed: 33}
targets:
  images: s3://bucket/images              # folder or prefix, listed
  annotations: null                       # optional COCO json
  image_ids: null                         # optional subset
segmenter: {model: sam2_hiera_large, weights: null}
encoder: {model: dinov2_vitl14, weights: null}
labeling: {points_per_side: 32, pred_iou_thresh: 0.4, box_nms_thresh: 0.5, max_detections: 100}
device: auto
"""
    )
    config = load_config(str(file))
    assert config.store == "file:///data/runs/boats"
    assert config.references.annotation_ids == ("12", "99")
    assert config.references.sampling.categories == ("boat", "bird")
    assert config.targets.source.image_ids is None


def test_defaults_are_the_published_numbers() -> None:
    config = parse_config(REQUIRED, source="run.yaml")
    assert config.segmenter.model == "sam2_hiera_large"
    assert config.encoder.model == "dinov2_vitl14"
    assert config.labeling.model_dump(include={"points_per_side", "pred_iou_thresh", "max_detections"}) == {
        "points_per_side": 32,
        "pred_iou_thresh": 0.4,
        "max_detections": 100,
    }
    assert (config.references.sampling.num_shots, config.references.sampling.seed) == (1, 33)
    assert config.references.crop.context_ratio == 0.2
    assert config.conventions == "corrected"
    assert config.evaluation.model_dump(exclude={"score_threshes"}) == {
        "protocol": "auto",
        "semantic_score_thresh": 0.5,
        "exclude_references": False,
    }


def test_keys_come_in_the_order_of_the_file_and_each_is_described() -> None:
    names = [key.name for key in keys()]
    assert names[0] == "store"
    assert names.index("references.sampling.seed") < names.index("targets.images") < names.index("device")
    assert len(set(names)) == len(names)
    assert all(key.field.description for key in keys())


def test_a_key_knows_whether_it_is_text_or_a_list() -> None:
    kinds = {key.name: (key.is_text, key.is_list) for key in keys()}
    assert kinds["store"] == kinds["pictures"] == kinds["segmenter.weights"] == (True, False)
    assert kinds["targets.image_ids"] == kinds["references.sampling.categories"] == (False, True)
    assert kinds["labeling.points_per_side"] == kinds["references.sampling.on_shortage"] == (False, False)


@pytest.mark.parametrize("section", ["segmenter", "encoder"])
def test_a_model_whose_weights_alone_are_given_is_the_default_one(section: str) -> None:
    config = parse_config(_with({f"{section}.weights": "s3://bucket/weights.pt"}), source="run.yaml")
    assert _value(config, f"{section}.model") == _value(parse_config(REQUIRED, source="run.yaml"), f"{section}.model")


# --- the template ----------------------------------------------------------------------------------------------------


def test_the_template_holds_every_key_and_every_default(file: Path) -> None:
    file.write_text(template(), encoding="utf-8")
    content = yaml.safe_load(template())
    assert set(_leaves(content)) == {key.name for key in keys()}
    config, defaults = load_config(str(file)), parse_config(REQUIRED, source="run.yaml")
    filled = {"store", "references.images", "references.annotations", "targets.images"}
    for key in keys():
        if key.name not in filled:
            assert _value(config, key.name) == _value(defaults, key.name), key.name


def test_the_template_explains_every_key_with_its_bounds() -> None:
    text = " ".join(re.sub(r"^\s*#", " ", line).strip() for line in template().splitlines())
    text = " ".join(text.split())
    for key in keys():
        assert " ".join(str(key.field.description).split()) in text
    assert "32 makes 1024 prompts. From 1 to 256." in text
    assert "reported as unreadable. At least 1." in text


def test_the_templates_lines_are_short_enough_to_read() -> None:
    assert max(len(line) for line in template().splitlines()) <= 110


def _leaves(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


# --- what is wrong is named ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("labeling.points_per_sid", "labeling.points_per_side"),
        ("references.sampling.num_shot", "references.sampling.num_shots"),
        ("references.anotations", "references.annotations"),
        ("targets.annotation", "targets.annotations"),
        ("references.crop.context", "references.crop.context_ratio"),
        ("labelling", "labeling"),
        ("devise", "device"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(wrong: str, meant: str) -> None:
    message = _error(_with({wrong: 1}))
    assert "run.yaml: 1 error:" in message
    assert f"{wrong}: no such key. Did you mean {meant}?" in message


def test_a_key_like_no_other_is_answered_with_what_there_is() -> None:
    message = _error(_with({"zzzzzzzz": 1}))
    assert "zzzzzzzz: no such key. Known are store, references, targets" in message


@pytest.mark.parametrize("name", ["store", "references", "targets", "references.images", "references.annotations"])
def test_a_missing_key_is_named(name: str) -> None:
    content = _with({})
    inner = content if "." not in name else content[name.partition(".")[0]]
    del inner[name.rpartition(".")[2]]
    assert f"{name}: is missing and has no default." in _error(content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", 7),
        ("store", None),
        ("references", "references.json"),
        ("references.images", ["a", "b"]),
        ("targets", None),
        ("targets.image_ids", 7),
        ("targets.image_ids", [1.5]),
        ("references.annotation_ids", "12"),
        ("references.sampling.categories", "boat"),
        ("references.sampling.categories", [1]),
        ("references.sampling.num_shots", "many"),
        ("references.sampling.num_shots", 1.5),
        ("references.sampling.on_shortage", "ignore"),
        ("labeling.points_per_side", [32]),
        ("labeling.pred_iou_thresh", "high"),
        ("conventions", "wrong"),
        ("evaluation.protocol", "pascal"),
        ("segmenter", "sam2_hiera_large"),
        ("segmenter.model", None),
        ("device", 0),
    ],
)
def test_a_value_of_another_type_is_named_with_what_came(name: str, value: Any) -> None:
    message = _error(_with({name: value}))
    assert re.search(rf"^  {re.escape(name)}[.:]", message, re.MULTILINE), message
    shown = value[0] if isinstance(value, list) and len(value) == 1 and "points" not in name else value
    assert repr(shown) in message


def _bounded() -> Iterator[tuple[Key, str, float]]:
    for key in keys():
        for limit in key.field.metadata:
            for name in ("ge", "le"):
                if hasattr(limit, name):
                    yield key, name, getattr(limit, name)


@pytest.mark.parametrize(
    ("key", "kind", "bound"), list(_bounded()), ids=lambda value: value.name if isinstance(value, Key) else str(value)
)
def test_bounds_hold_up_to_the_last_value(key: Key, kind: str, bound: float) -> None:
    assert _value(parse_config(_with({key.name: bound}), source="run.yaml"), key.name) == bound
    step = 1e-6 if key.field.annotation is float else 1
    beyond = bound + (step if kind == "le" else -step)
    assert f"{key.name}: " in _error(_with({key.name: beyond}))


def test_there_are_bounds_on_every_number() -> None:
    numbers = {key.name for key in keys() if key.field.annotation in (int, float, int | None, float | None)}
    assert numbers == {key.name for key, kind, _ in _bounded() if kind == "ge"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_threshold_must_be_a_number(value: float) -> None:
    assert "labeling.pred_iou_thresh" in _error(_with({"labeling.pred_iou_thresh": value}))


def test_all_that_is_wrong_is_reported_at_once() -> None:
    wrong = {"labeling.points_per_side": 0, "references.sampling.seed": "x", "targets.immages": "a", "stor": "b"}
    message = _error(_with(wrong))
    assert "run.yaml: 4 errors:" in message
    assert all(f"  {name}: " in message for name in wrong)


@pytest.mark.parametrize("section", ["segmenter", "encoder"])
def test_an_unknown_model_is_named_with_the_known_ones(section: str) -> None:
    message = _error(_with({f"{section}.model": "sam3"}))
    assert f"{section}.model: 'sam3' is not known" in message
    assert {"segmenter": "sam2.1_hiera_tiny", "encoder": "dinov2_vits14_reg"}[section] in message


def test_a_model_that_is_nearly_known_is_answered_with_the_known_one() -> None:
    assert "Did you mean sam2_hiera_tiny?" in _error(_with({"segmenter.model": "sam2-hiera-tiny"}))


def test_two_unknown_models_are_reported_together() -> None:
    message = _error(_with({"segmenter.model": "sam3", "encoder.model": "dinov9"}))
    assert "'sam3'" in message
    assert "'dinov9'" in message


def test_masks_for_no_annotations_are_an_error() -> None:
    assert "targets.masks_from: completes targets.annotations" in _error(_with({"targets.masks_from": "full.json"}))


def test_a_model_of_the_wrong_kind_is_an_error() -> None:
    assert "segmenter.model: 'dinov2_vitl14' is not known" in _error(_with({"segmenter.model": "dinov2_vitl14"}))


def test_a_wrong_id_in_a_list_is_one_problem() -> None:
    message = _error(_with({"targets.image_ids": [1, 1.5]}))
    assert "run.yaml: 1 error:" in message


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["s3://user:hunter2@bucket/a", "https://hunter2@host/a", "simplecache::s3://user:hunter2@bucket/a"]
)
@pytest.mark.parametrize("name", ["store", "references.annotations", "targets.images", "pictures", "encoder.weights"])
def test_a_password_in_an_address_is_refused_and_not_repeated(name: str, uri: str) -> None:
    message = _error(_with({name: uri}))
    assert f"{name}: holds a user or password" in message
    assert "hunter2" not in message


def test_a_wrong_type_does_not_show_the_password_that_it_holds() -> None:
    assert "hunter2" not in _error(_with({"references": "s3://user:hunter2@bucket/refs"}))


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_answered_with_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: no such file\. `refseg init .*none\.yaml` writes one"):
        load_config(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"store: [1, 2", "cannot be read as YAML"),
        (b"\xff\xfe\x00", "cannot be read as YAML"),
        (b"store: !!python/object:os.system x", "cannot be read as YAML"),
        (b"store: a\nstore: b", "cannot be read as YAML: remove one of two keys 'store', the second in line 2"),
        (b"", "expected keys such as store"),
        (b"- store", "expected keys such as store.*got list"),
        (b"just text", "expected keys such as store.*got str"),
    ],
    ids=["cut", "binary", "code", "twice", "empty", "list", "text"],
)
def test_a_file_that_is_no_configuration_is_named_with_the_reason(content: bytes, reason: str, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"(?s)run\.yaml: {reason}"):
        load_config(str(file))


def test_a_folder_instead_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(str(tmp_path))


# --- paths -----------------------------------------------------------------------------------------------------------

_PATH_KEYS = [
    "store",
    "pictures",
    "references.images",
    "references.annotations",
    "targets.images",
    "targets.annotations",
    "segmenter.weights",
    "encoder.weights",
]


def _loaded(file: Path, name: str, value: str | None) -> Any:
    models = {"segmenter.model": "sam2_hiera_tiny", "encoder.model": "dinov2_vits14"}
    file.write_text(yaml.safe_dump(_with(models | {name: value})))
    return _value(load_config(str(file)), name)


@pytest.mark.parametrize("name", _PATH_KEYS)
def test_relative_paths_are_relative_to_the_file(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert _loaded(file, name, "some/place") == str(file.parent / "some/place")


@pytest.mark.parametrize("name", _PATH_KEYS)
@pytest.mark.parametrize(
    "uri", ["s3://bucket/a", "file:///data/a", "memory://a", "simplecache::s3://bucket/a", "https://host/a?b=c"]
)
def test_uris_are_left_as_they_are(name: str, uri: str, file: Path) -> None:
    assert _loaded(file, name, uri) == uri


@pytest.mark.parametrize("name", _PATH_KEYS)
def test_absolute_paths_are_left_as_they_are(name: str, file: Path) -> None:
    assert _loaded(file, name, "/data/a") == "/data/a"


def test_the_home_folder_is_found(file: Path) -> None:
    assert _loaded(file, "store", "~/runs") == str(Path("~/runs").expanduser())


def test_a_null_path_stays_null(file: Path) -> None:
    assert _loaded(file, "pictures", None) is None


@pytest.mark.parametrize("path", ["C:\\data\\images", "C:/data/images", "c:images"])
def test_a_drive_is_not_taken_for_the_scheme_of_a_uri(path: str, file: Path) -> None:
    """On a system without drives it is a relative path like any other; with drives pathlib knows it is absolute."""
    assert _loaded(file, "store", path) == str(file.parent / path)


def test_a_colon_in_a_folders_name_makes_it_no_uri(file: Path) -> None:
    assert _loaded(file, "targets.images", "night:2/images") == str(file.parent / "night:2/images")


# --- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_win_over_the_file_and_leave_the_rest(file: Path) -> None:
    file.write_text(yaml.safe_dump(_with({"labeling.points_per_side": 16, "labeling.max_detections": 5})))
    config = load_config(str(file), {"labeling.points_per_side": 8, "references.sampling.categories": ["boat"]})
    assert config.labeling == LabelingSettings(points_per_side=8, max_detections=5)
    assert config.references.sampling == SamplingSettings(categories=("boat",))


def test_overrides_may_fill_in_what_the_file_lacks(file: Path) -> None:
    file.write_text(yaml.safe_dump({"references": REQUIRED["references"]}))
    config = load_config(str(file), {"store": "/runs", "targets.images": "s3://bucket/images"})
    assert (config.store, config.targets.images) == ("/runs", "s3://bucket/images")


def test_overriding_paths_are_relative_to_where_the_command_was_typed(file: Path) -> None:
    file.write_text(yaml.safe_dump(REQUIRED))
    assert load_config(str(file), {"store": "here"}).store == "here"


def test_a_wrong_override_is_named(file: Path) -> None:
    file.write_text(yaml.safe_dump(REQUIRED))
    with pytest.raises(ConfigurationError, match=r"labeling\.points_per_side: .* got 0"):
        load_config(str(file), {"labeling.points_per_side": 0})


def test_an_override_below_something_that_is_no_section_is_named(file: Path) -> None:
    file.write_text(yaml.safe_dump(_with({"labeling": 5})))
    with pytest.raises(ConfigurationError, match="labeling: expected keys below it, got 5"):
        load_config(str(file), {"labeling.points_per_side": 8})


# --- sources ---------------------------------------------------------------------------------------------------------


def test_ids_are_texts_as_the_tables_write_them() -> None:
    config = parse_config(
        _with({"references.annotation_ids": [12, "0099"], "targets.image_ids": [7, "a b.jpg"]}), source="run.yaml"
    )
    assert config.references.annotation_ids == ("12", "0099")
    assert config.targets.source.image_ids == ("7", "a b.jpg")
    assert config.references.source.annotations == "references.json"


def test_a_configuration_comes_back_from_json_as_prefect_passes_it() -> None:
    config = parse_config(_with({"references.annotation_ids": [12, "x"]}), source="run.yaml")
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"references.sampling.split": "few_shot_classes"}, True),
        ({"references.sampling.split": "pascal_voc_split_2"}, True),
        ({"references.sampling.split": "coco"}, False),
        ({}, False),
        ({"references.sampling.split": "few_shot_classes", "references.sampling.categories": ["cat"]}, False),
        ({"references.sampling.split": "few_shot_classes", "references.annotation_ids": ["1"]}, False),
    ],
)
def test_categories_are_novel_where_they_are_all_that_a_benchmark_calls_so(
    changes: dict[str, Any], expected: bool
) -> None:
    assert parse_config(_with(changes), source="run.yaml").references.are_novel is expected


# --- methods ---------------------------------------------------------------------------------------------------------


def test_original_conventions_take_the_published_method() -> None:
    config = RunConfig.model_validate(_with({"conventions": "original", "labeling.points_per_side": 8}))
    assert (config.labeling.method, config.labeling.path) == ("published", "exact")
    assert config.labeling.points_per_side == 8


def test_original_conventions_and_another_method_contradict_each_other(file: Path) -> None:
    file.write_text(yaml.safe_dump(_with({"conventions": "original", "labeling.method": "accurate"})))
    with pytest.raises(ConfigurationError, match=r"labeling\.method: 'accurate' is not the published method"):
        load_config(str(file))


def test_a_method_on_a_path_that_has_the_published_one_only_is_refused(file: Path) -> None:
    file.write_text(yaml.safe_dump(_with({"labeling.method": "accurate", "labeling.path": "fast"})))
    with pytest.raises(ConfigurationError, match="the path 'fast' has the published method only"):
        load_config(str(file))
