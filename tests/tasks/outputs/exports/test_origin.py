"""An export says which labels it is of, beside itself or in itself, and contradictions are refused."""

import json
from pathlib import Path

import pytest

from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.errors import ConfigurationError
from tasks.outputs.exports.exported import ExportOptions
from tasks.outputs.exports.formats import EXPORT_FORMATS
from tasks.outputs.exports.labels import export_labels
from tasks.outputs.exports.origin import origin_of
from tasks.store.store import Store
from tests.support.projects.exported import ExportProject

_OTHER = "0000000000000000"


@pytest.mark.slow  # with the others here
def test_labels_are_known_by_the_provenance_and_by_the_file_itself(tmp_path: Path) -> None:
    project, chosen = ExportProject(tmp_path), LabelFilter(ScoreThresholds(0.3))
    key, store = project.run.key, project.run.store
    for form, part in (("coco", ""), ("lvis", ""), ("cvat", ""), ("label-studio", "tasks.json"), ("yolo", "labels")):
        out = tmp_path / form
        export_labels(project.run, str(out), form=form, kept=chosen)
        origin = origin_of(str(out / part))
        assert (origin.keys, origin.inside) == ({key}, frozenset() if form == "yolo" else {key})
        assert (origin.labels(store) or pytest.fail("no labels")).key == key
        kept = ExportOptions(kept=chosen).island_in(EXPORT_FORMATS[form])
        assert origin.filter(project.run, LabelFilter()) == (chosen, True, kept)
        if form != "yolo":
            other = origin_of(str((out / part).rename(tmp_path / f"{form} of another name")))
            assert (other.keys, other.filter(project.run, LabelFilter())) == ({key}, (LabelFilter(), False, 0))


def test_what_names_no_labels_is_of_none(tmp_path: Path) -> None:
    file = tmp_path / "labels.json"
    file.write_text(f'{{"info": {{"description": "not by refseg at all", "version": "{_OTHER}"}}}}')
    for place in (file, tmp_path, tmp_path / "missing.json"):
        origin = origin_of(str(place))
        assert (origin.keys, origin.labels(Store(str(tmp_path)))) == (frozenset(), None)


def test_contradictions_and_labels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    project = ExportProject(tmp_path)
    out = tmp_path / "labels.json"
    export_labels(project.run, str(out), form="coco")
    text, beside = out.read_text(), Path(f"{out}.provenance")
    out.write_text(text.replace(project.run.key, _OTHER))
    with pytest.raises(ConfigurationError, match=f"names the labels {_OTHER}, .*--labels KEY"):
        origin_of(str(out)).labels(project.run.store)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "labels": _OTHER}))
    with pytest.raises(ConfigurationError, match=f"exported from the labels {_OTHER}, which .* does not hold .they"):
        origin_of(str(out)).labels(project.run.store)
