"""Annotation formats, evaluation protocols and export formats are written once: registered, they work everywhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from refseg_core.errors import ConfigurationError
from refseg_core.settings.choices import ANNOTATION_FORMATS, PROTOCOLS, Choice, Choices
from tasks.outputs.exports.formats import EXPORT_FORMATS

_ROOT = Path(__file__).resolve().parents[3]

_WITH_TOYS = """
import importlib
from pathlib import Path
import pytest
from refseg_core.settings import choices

choices.ANNOTATION_FORMATS = choices.Choices("annotation format", *choices.ANNOTATION_FORMATS.values(),
    choices.AnnotationFormat(name="toy", help="a folder of .toy files", implementation="tests.support.toys:read_toy",
        title="toy files", suffix=".toy", reads="one box for each line"))
choices.PROTOCOLS = choices.Choices("evaluation protocol", *choices.PROTOCOLS.values(),
    choices.EvaluationProtocol(name="toy", help="counts", implementation="tests.support.toys:by_toy", how="counted"))
importlib.reload(importlib.import_module("refseg_core.settings"))
"""


def _run_with_toys(script: str, folder: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", _WITH_TOYS + script, str(folder)], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
def test_a_new_annotation_format_is_offered_detected_and_read(tmp_path: Path) -> None:
    _run_with_toys(
        """
import sys
from flows.config.run_config import RunConfig, keys
from refseg_core.errors import DatasetError
from tasks.datasets.annotation_files import read_annotations
from tasks.specs import DatasetSource
from tests.support.annotation_files import write_all_images

folder = Path(sys.argv[1])
write_all_images(folder / "images", ["a.png"])
(folder / "annotations").mkdir()
source = DatasetSource(images=str(folder / "images"), annotations=str(folder / "annotations"))
with pytest.raises(DatasetError, match="toy files.*one of .*, toy"):
    read_annotations(source, None)
(folder / "annotations" / "a.toy").write_text("boat 1 2 3 4")
read = read_annotations(source, None)
assert read.kind == "toy"
assert read.dataset.annotations.box_xywh.tolist() == [[1, 2, 3, 4]]
helps = [key.field.description for key in keys() if key.name.endswith(".format")]
assert len(helps) == 2 and all("'toy': a folder of .toy files" in text for text in helps)
assert "toy" in str(RunConfig.model_json_schema())
with pytest.raises(ValueError, match="'toy'"):
    DatasetSource(images="x", format="unknown")
""",
        tmp_path,
    )


@pytest.mark.slow
def test_a_new_protocol_is_offered_and_evaluates(tmp_path: Path) -> None:
    _run_with_toys(
        """
from refseg_core.datasets.dataset import Dataset
from refseg_core.evaluation.protocols import evaluate
from refseg_core.settings import EvaluationSettings
from refseg_core.tables import Annotations, Categories, Detections, Images

truth = Dataset(Images.empty(), Annotations.empty(), Categories.empty())
metrics = evaluate(truth, Detections.empty(), settings=EvaluationSettings(protocol="toy"))
assert metrics.metric.tolist() == ["number of images"]
assert "'toy': counts" in EvaluationSettings.model_fields["protocol"].description
with pytest.raises(ValueError, match="'toy'"):
    EvaluationSettings(protocol="unknown")
""",
        tmp_path,
    )


@pytest.mark.slow
def test_a_new_export_format_is_offered_and_writes(tmp_path: Path) -> None:
    _run_with_toys(
        """
import sys
from click.testing import CliRunner
from tasks.outputs.exports import formats
formats.EXPORT_FORMATS = choices.Choices("export format", *formats.EXPORT_FORMATS.values(),
    formats.ExportFormat(name="toy", help="the number of images", implementation="tests.support.toys:write_toy"))

from flows.cli.main import main
from tests.support.label_stores import LabelStore
from tasks.store.store import Store

help = CliRunner().invoke(main, ["export", "--help"]).output
assert "|toy]" in help and "'toy': the number of images" in " ".join(help.split())
labels = LabelStore(Store(sys.argv[1] + "/store"))
labels.night("a", "b")
out = Path(sys.argv[1]) / "out"
finished = CliRunner().invoke(main, ["export", labels.store.uri, "--format", "toy", "--out", str(out)])
assert finished.exit_code == 0, finished.output
assert out.read_bytes() == b"2"
""",
        tmp_path,
    )


@pytest.mark.parametrize("choices", [ANNOTATION_FORMATS, EXPORT_FORMATS, PROTOCOLS], ids=lambda choices: choices.kind)
def test_every_implementation_is_there(choices: Choices[Choice]) -> None:
    assert all(callable(choice.load()) for choice in choices.values())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'pixels' is not a known evaluation protocol: .* coco, lvis, voc, "):
        PROTOCOLS["pixels"]


def test_the_guide_says_of_every_export_format_what_instances_can_be() -> None:
    guide = (_ROOT / "deployments" / "guides" / "exports.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", guide, re.M)
    assert [name for name, _ in rows] == list(EXPORT_FORMATS)
    for name, shapes in rows:
        assert re.findall(r"masks|polygons|boxes", shapes.replace("polygons beside boxes", "polygons")) == list(
            EXPORT_FORMATS[name].shapes
        )


def test_the_guides_list_every_format_and_protocol_as_registered() -> None:
    guides = "".join(path.read_text("utf-8") for path in (_ROOT / "deployments" / "guides").glob("*.md"))
    for kind in ANNOTATION_FORMATS.values():
        assert f"| `{kind.name}` | {kind.help} | {kind.reads} |\n" in guides
    listed = re.search(r"\| `protocol` \|.*\n\|.*\n((?:\|.*\n)+)", guides)
    assert listed
    assert re.findall(r"^\| `(\w+)`", listed.group(1), re.M) == [*PROTOCOLS, "auto"]
