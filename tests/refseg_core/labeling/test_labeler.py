"""A library user's labeler: references in, named instances out, and clear errors for what covers nothing."""

import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import refseg_core
from refseg_core import ImageDetections, Labeler, LabelingSettings, ModelSpec
from refseg_core.errors import ConfigurationError, ImageError, UnusableReferenceError, WeightsError
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.masks.rle import encode_masks, mask_ious
from refseg_core.models.architectures import EncoderArchitecture
from refseg_core.models.registry import REGISTRY
from refseg_core.references.memory_bank import crop_reference, encode_references
from refseg_core.references.prototypes import postprocess_memory_bank
from refseg_core.references.segmentation import segment_boxes
from refseg_core.tables import MemoryBank
from tests.demo_scenes.dataset import draw_demo_references
from tests.support.models import tiny_encoder, tiny_segmenter

_WEIGHTS = resources.files("refseg_core") / "demo" / "weights"
_RED, _BLUE, _GRAY = (220, 30, 30), (30, 30, 220), (128, 128, 128)

Rectangle = tuple[int, int, int, int]


def _scene(*rectangles: tuple[Rectangle, tuple[int, int, int]]) -> np.ndarray:
    image = np.full((192, 256, 3), _GRAY, dtype=np.uint8)
    for (left, top, right, bottom), color in rectangles:
        image[top:bottom, left:right] = color
    return image


def _mask(rectangle: Rectangle) -> np.ndarray:
    return _scene((rectangle, (255, 255, 255)))[..., 0] == 255


def _tiny() -> Labeler:
    settings = LabelingSettings(method="published", points_per_side=3, pred_iou_thresh=0)
    return Labeler(tiny_segmenter(), tiny_encoder(), settings=settings)


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Labeler:
    """The demo's segmenter with another encoder: one file, and one line here."""
    path = tmp_path_factory.mktemp("weights") / "colors.pt"
    torch.save({"gray": torch.full((3,), 0.5)}, path)
    with pytest.MonkeyPatch.context() as patch:
        architecture = EncoderArchitecture(3, 0, 0, image_size=192, patch_size=8)
        spec = ModelSpec("colors", "encoder", "tests.refseg_core.models.toy_encoder", architecture, "colors.pt")
        patch.setitem(REGISTRY, spec.name, spec)
        labeler = Labeler.from_weights(
            segmenter=str(_WEIGHTS / "sam2_demo.pt"), encoder=path, device="cpu", points_per_side=8
        )
    reference = ((60, 50, 140, 130), _RED)
    labeler.add_reference(_scene(reference), "red", mask=_mask(reference[0]))
    labeler.add_reference(Image.fromarray(_scene(((60, 50, 140, 130), _BLUE))), "blue", box=(60, 50, 140, 130))
    return labeler


@pytest.fixture(scope="module")
def found(colors: Labeler) -> ImageDetections:
    return colors.label(_scene(((20, 20, 100, 90), _BLUE), ((150, 100, 230, 180), _RED)))


def _best(found: ImageDetections, category: str, rectangle: Rectangle) -> float:
    """How well the best instance of a category covers a rectangle."""
    rows = [row for row, name in enumerate(found.category) if name == category]
    return float(mask_ious(encode_masks(found.mask[rows]), encode_masks(_mask(rectangle)[None])).max())


def test_instances_are_found_by_what_another_encoder_sees(colors: Labeler, found: ImageDetections) -> None:
    assert colors.categories == {0: "red", 1: "blue"}
    assert found.category[0] in ("red", "blue")
    assert _best(found, "blue", (20, 20, 100, 90)) > 0.7
    assert _best(found, "red", (150, 100, 230, 180)) > 0.7
    assert found.mask.shape == (len(found), 192, 256)
    assert found.box_xyxy.shape == (len(found), 4)
    assert (np.diff(found.score) <= 0).all()


def test_instances_are_drawn_in_their_place(found: ImageDetections) -> None:
    image = _scene(((20, 20, 100, 90), _BLUE), ((150, 100, 230, 180), _RED))
    drawn = found.draw(image)
    plain = np.array(Image.fromarray(image).resize(drawn.size, Image.Resampling.NEAREST))
    assert isinstance(drawn, Image.Image)
    assert (np.abs(np.array(drawn).astype(int) - plain).max(axis=-1) > 30).mean() > 0.02
    assert np.array_equal(found.draw(Image.fromarray(image)), drawn)


@pytest.mark.filterwarnings("ignore::UserWarning:supervision")
@pytest.mark.slow
def test_supervision_takes_the_instances(found: ImageDetections) -> None:
    supervision = pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert len(theirs) == len(found) > 0
    np.testing.assert_array_equal(theirs.mask, found.mask)
    np.testing.assert_allclose(theirs.xyxy, found.box_xyxy)
    np.testing.assert_array_equal(theirs.confidence, found.score)
    assert [{"red": 0, "blue": 1}[name] for name in theirs.data["class_name"]] == theirs.class_id.tolist()
    assert len(theirs[theirs.class_id == 0]) == found.category.count("red")


def test_without_supervision_the_error_says_what_to_install(
    found: ImageDetections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigurationError, match="pip install supervision"):
        found.to_supervision()


def test_the_demos_models_are_recognized_and_points_become_masks() -> None:
    labeler = Labeler.from_weights(
        segmenter=str(_WEIGHTS / "sam2_demo.pt"), encoder=str(_WEIGHTS / "dinov2_demo.pt"), device="cpu"
    )
    scene = draw_demo_references()[0]
    instance = scene.instances[0]
    rows, columns = np.nonzero(instance.mask)
    middle = len(rows) // 2
    mask = labeler.add_reference(scene.image, "it", points=[(columns[middle], rows[middle])])
    assert mask[rows[middle], columns[middle]]
    assert mask.shape == scene.image.shape[:2]


def test_its_answer_is_the_steps_put_together() -> None:
    image = np.random.default_rng(5).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    box = (10, 12, 50, 44)
    segmenter, encoder, settings = (
        tiny_segmenter(),
        tiny_encoder(),
        LabelingSettings(method="published", points_per_side=3),
    )
    labeler = Labeler(segmenter, encoder, settings=settings)
    mask = labeler.add_reference(image, "thing", box=box)
    masks, _ = segment_boxes(segmenter, image, np.array([box], dtype=np.float64))
    np.testing.assert_array_equal(mask, masks[0])
    crop = crop_reference(image, masks[0], np.array(box, dtype=np.float64), context_ratio=0.2, size=70)
    (encoded,) = encode_references(encoder, [crop])
    bank = MemoryBank.row(category_id=0, shot=0, foreground_weight=1.0, feature=encoded.feature_C)
    steps = BatchLabeler(segmenter, encoder, postprocess_memory_bank(bank), settings).label(image, image_id="")
    found = labeler.label(image)
    assert len(found) > 0
    assert found.table.equals(steps.detections)


def test_an_image_without_instances_has_none() -> None:
    labeler = Labeler(
        tiny_segmenter(),
        tiny_encoder(),
        settings=LabelingSettings(method="published", points_per_side=2, pred_iou_thresh=1),
    )
    labeler.add_reference(_scene(), "thing", mask=_mask((40, 40, 120, 120)))
    none = labeler.label(_scene())
    assert len(none) == 0
    assert none.mask.shape == (0, 192, 256)
    assert none.draw(_scene()).size[0] >= 256


def test_a_reference_more_changes_what_is_found_next() -> None:
    labeler = _tiny()
    image = np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    labeler.add_reference(image, "one", mask=np.pad(np.ones((30, 30), dtype=bool), ((0, 30), (0, 50))))
    before = labeler.label(image)
    labeler.add_reference(image, "one", box=(40, 20, 80, 60))
    after = labeler.label(image)
    assert set(before.category) == set(after.category) == {"one"}
    assert not np.array_equal(before.score, after.score)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"mask": np.zeros((192, 256))}, "mask covers nothing"),
        ({"mask": np.ones((10, 10))}, r"shape \[10, 10\]; expected the image's, \[192, 256\]"),
        ({"mask": np.full((192, 256), np.nan)}, "holds NaN"),
        ({"mask": np.full((192, 256), np.inf)}, "infinity"),
        ({"mask": np.full((192, 256), "False")}, "no numbers"),
        ({"mask": np.full((192, 256), None)}, r"no numbers \(object\)"),
        ({"points": 5}, r"expected \[\(x, y\), ...\]"),
        ({"mask": _mask((100, 20, 101, 170))}, "too thin"),
        ({"box": (300, 10, 340, 40)}, "misses the image"),
        ({"box": (20, 10, 20, 40)}, "has no area"),
        ({"box": (float("nan"), 10, 20, 40)}, "no finite number"),
        ({"box": (1, 2, 3)}, r"expected \(x1, y1, x2, y2\)"),
        ({"points": []}, "expected one or more"),
        ({"points": [(300, 3)]}, "within the image"),
        ({"points": [1, 2]}, r"expected \[\(x, y\), ...\]"),
    ],
)
def test_a_reference_that_covers_nothing_is_an_error_that_says_so(given: dict[str, object], problem: str) -> None:
    labeler = _tiny()
    with pytest.raises(UnusableReferenceError, match=problem):
        labeler.add_reference(_scene(), "thing", **given)  # type: ignore[arg-type]
    assert labeler.categories == {}


@pytest.mark.parametrize("given", [{}, {"box": (1, 2, 3, 4), "points": [(1, 2)]}])
def test_a_reference_is_given_in_one_way(given: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="needs one of mask=, box= and points="):
        _tiny().add_reference(_scene(), "thing", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "  ", None, 5, b"boat", ["boat"]])
def test_a_category_is_named_by_a_word(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="named by a word, got"):
        _tiny().add_reference(_scene(), name, box=(40, 20, 80, 60))


def test_labeling_needs_a_reference_and_an_image() -> None:
    labeler = _tiny()
    with pytest.raises(ConfigurationError, match="no reference yet"):
        labeler.label(_scene())
    for image, came in ((_scene()[..., 0], r"uint8 \[192, 256\]"), (_scene() / 255, "float64"), ("boat.jpg", "str")):
        with pytest.raises(ImageError, match=came):
            labeler.label(image)  # type: ignore[arg-type]


def test_wrong_weights_and_settings_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "a.pt")
    demo = {"segmenter": str(_WEIGHTS / "sam2_demo.pt"), "encoder": str(_WEIGHTS / "dinov2_demo.pt")}
    with pytest.raises(WeightsError, match="given by its path; got None"):
        Labeler.from_weights(segmenter=None, encoder="a.pth")  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="not those of a known encoder"):
        Labeler.from_weights(**demo | {"encoder": tmp_path / "a.pt"})
    with pytest.raises(WeightsError, match=r"missing\.pt does not exist"):
        Labeler.from_weights(**demo | {"segmenter": tmp_path / "missing.pt"})
    with pytest.raises(WeightsError, match="do not fit the model 'dinov2_vits14'"):
        Labeler.from_weights(**demo, encoder_model="dinov2_vits14")
    with pytest.raises(ConfigurationError, match=r"path: .*expected one of plain"):
        Labeler.from_weights(**demo, path="quick")
    with pytest.raises(ConfigurationError, match="points: no such key"):
        Labeler.from_weights(**demo, points=3)


def test_every_public_name_is_there_and_no_other_is() -> None:
    assert all(getattr(refseg_core, name).__name__ for name in refseg_core.__all__ if name != "REGISTRY")
    assert set(refseg_core.__all__) <= set(dir(refseg_core))
    with pytest.raises(AttributeError, match="has no attribute 'Segmenter'"):
        _ = refseg_core.Segmenter  # type: ignore[attr-defined]


def test_importing_the_library_loads_none_of_its_heavy_parts() -> None:
    program = "import sys, refseg_core; print({'torch', 'pyarrow', 'pydantic', 'PIL'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_areas_are_limited_by_name_and_by_what_the_references_cover(colors: Labeler) -> None:
    reference, small, large = (60, 50, 140, 130), (10, 10, 60, 60), (90, 20, 230, 170)
    image, best = _scene((small, _RED), (large, _RED)), []
    for area in ({}, {"max": "red=auto", "margin": 1}):
        settings = LabelingSettings.model_validate({"points_per_side": 8, "area": area})
        labeler = Labeler(colors._segmenter, colors._encoder, settings=settings)
        labeler.add_reference(_scene((reference, _RED)), "red", mask=_mask(reference))
        found = labeler.label(image)
        best.append((_best(found, "red", small), _best(found, "red", large)))
    (small_before, large_before), (small_after, large_after) = best
    assert min(small_before, small_after) > 0.7
    assert large_before > 0.5
    assert large_after <= 80 * 80 / (140 * 150)  # as much as a mask of the reference's area can share with it
