"""Pictures show each image in the frame that its boxes and masks were drawn in, whatever its EXIF says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from refseg_core.analysis.label_filter import LabelFilter
from tasks.models.profiling.inputs import inputs_of_run
from tasks.outputs.show_labels import show_labels
from tests.support.projects.project import changed, scene
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]
pytestmark = pytest.mark.slow  # together


def _turn(folder: Path, orientation: int) -> None:
    """Gives every image an EXIF orientation; the stored pixels stay."""
    for file in folder.glob("*.png"):
        image = Image.open(file)
        image.load()
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = orientation
        image.save(file, exif=exif)


def _shown(steps: Steps, out: Path) -> dict[str, bytes]:
    """The pictures of the references, and of the labels next to the ground truth."""
    prototypes = steps.prototypes()
    plan = steps.plan(prototypes)
    steps.label(prototypes, plan)
    assert show_labels(steps.store.uri, plan.key, str(out), kept=LabelFilter(), limit=None) == (5, 2)
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.jpg"))}


@pytest.mark.parametrize("orientation", [3, 6])
def test_pictures_of_images_that_declare_their_stored_size_are_the_same_with_exif_as_without(
    orientation: int, steps: Steps, tmp_path: Path
) -> None:
    expected = _shown(steps, tmp_path / "without")
    for folder in (steps.config.references.images, steps.config.targets.images):
        _turn(Path(folder), orientation)
    assert _shown(steps.elsewhere(), tmp_path / "with") == expected


def test_ground_truth_of_another_frame_than_the_labels_is_drawn_on_its_own(steps: Steps, tmp_path: Path) -> None:
    _turn(Path(steps.config.targets.images), 6)
    project = steps.project  # without annotations images are labeled as people see them
    listed = Steps(replace(project, content=changed(project.content, {"targets.annotations": None})))
    prototypes = listed.prototypes()
    plan = listed.plan(prototypes)
    listed.label(prototypes, plan)
    steps.dataset(steps.config.targets.source)
    show_labels(steps.store.uri, plan.key, str(tmp_path / "out"), kept=LabelFilter(), limit=1)
    with Image.open(tmp_path / "out" / "images" / "t0.png.jpg") as picture:
        assert picture.width > 96 + 128  # the stored 128 x 96 beside the upright 96 x 128
        assert picture.height >= 128


@pytest.mark.parametrize(("frame", "turned"), [("", False), ("upright", True)])
def test_a_benchmark_labels_images_in_the_frame_of_the_run(frame: str, turned: bool, steps: Steps) -> None:
    _turn(Path(steps.config.targets.images), 3)
    inputs = inputs_of_run(
        steps.store,
        dataset=steps.dataset(steps.config.targets.source),
        prototypes=steps.prototypes(),
        spec=steps.config.label_spec,
        num_images=None,
    )
    images = inputs.images.replace(frame=np.full(len(inputs.images), frame, dtype=object))
    pixels = replace(inputs, images=images).decode(inputs.folder.read("t0.png"), 0)
    expected = scene(0)[::-1, ::-1] if turned else scene(0)
    np.testing.assert_array_equal(pixels, expected)
