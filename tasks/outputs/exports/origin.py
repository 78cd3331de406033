"""What a file that was exported says of where it came from: which labels it was made of, and which of them it holds.

The provenance beside it says both. Where a tool wrote the file anew, under another name, it may still name the labels
in itself. Not here: writing provenance (`labels.py`).
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from refseg_core.analysis.label_filter import LabelFilter, ScoreThresholds
from refseg_core.errors import ConfigurationError, StoreError, listed
from refseg_core.settings.areas import OTHERS, Area
from tasks.outputs.export_places import provenance_at
from tasks.outputs.exports.formats import EXPORT_FORMATS
from tasks.storage.objects import open_uri
from tasks.storage.uris import redact
from tasks.storage.whole_folders import is_file
from tasks.store.label_store import StoredLabels
from tasks.store.store import Store

# As COCO and LVIS have it in `info`, CVAT as the task's name, and Label Studio as the version of the model.
_KEY = re.compile(rb'\brefseg(?:",\s*"(?:labels|version)":\s*"|\s+)([0-9a-f]{16})\b')
_DEEPEST = 3  # folders that an export's parts lie in
_SEARCHED_BYTES = 1 << 24  # from the file's start, where these keys are


class ExportedFilter(NamedTuple):
    """What an export kept of the labels. `is_known`: whether its provenance says so, and it is no guess.

    `min_island`: islands and holes of fewer pixels were dropped.
    """

    filter: LabelFilter
    is_known: bool
    min_island: int = 0


class Origin(NamedTuple):
    """Where a file came from. `beside`: the provenance beside it, empty if there is none. `inside`: keys in itself."""

    file: str
    beside: Mapping[str, Any]
    inside: frozenset[str]

    @property
    def keys(self) -> frozenset[str]:
        """The keys of labels that it names: none, one, or several that contradict each other."""
        named = self.beside.get("labels")
        return self.inside | ({str(named)} if named is not None else frozenset())

    def labels(self, store: Store) -> StoredLabels | None:
        """Returns the labels that were exported, None where nothing names them.

        Raises ConfigurationError where several are named, or the store does not hold them.
        """
        if len(self.keys) > 1:
            raise ConfigurationError(
                f"{redact(self.file)}: names the labels {listed(sorted(self.keys))}, in itself or in the provenance "
                "beside it. --labels KEY says which of them were corrected."
            )
        for key in self.keys:
            run = StoredLabels(store, key)
            if run.recipe() is None:
                raise ConfigurationError(
                    f"{redact(self.file)}: was exported from the labels {key}, which {redact(store.uri)} does not hold"
                    f"{self._store()}. Name the store that holds them, or compare with other labels by --labels KEY."
                )
            return run
        return None

    def _store(self) -> str:
        return f" (they were in {self.beside['store']})" if "store" in self.beside else ""

    def filter(self, run: StoredLabels, otherwise: LabelFilter) -> ExportedFilter:
        """Returns what the export kept of these labels, by the provenance if it is of them; else a guess."""
        if "filter" not in self.beside or self.keys != {run.key}:  # none, of an earlier version, or of other labels
            return ExportedFilter(otherwise, is_known=False)
        thresholds, chosen = dict(self.beside["thresholds"]), self.beside["filter"]
        by_score = ScoreThresholds(thresholds.pop(OTHERS), thresholds)
        categories = None if chosen["categories"] is None else tuple(chosen["categories"])
        areas = [None if chosen[name] is None else Area(*chosen[name]) for name in ("min_area", "max_area")]
        min_island = int(self.beside.get("options", {}).get("min_island") or 0)  # earlier versions do not say it
        return ExportedFilter(LabelFilter(by_score, categories, *areas), is_known=True, min_island=min_island)


def origin_of(file: str) -> Origin:
    """Returns where a file or folder came from, by what lies beside it, or beside an exported folder around it."""
    return Origin(file, provenance_at(file) or _provenance_around(file), _keys_in(file))


def _provenance_around(file: str) -> dict[str, Any]:
    """Returns the provenance of the folder that a file or folder lies in, such as labels/train of YOLO's."""
    for _ in range(_DEEPEST):
        file = file.rstrip("/").rpartition("/")[0]
        around = provenance_at(file) if file else {}
        if around.get("format") in [kind.name for kind in EXPORT_FORMATS.values() if kind.is_folder]:
            return around
    return {}


def _keys_in(file: str) -> frozenset[str]:
    """Returns the keys of labels that a file names; none of a folder, or of what cannot be read."""
    try:
        if not is_file(file):
            return frozenset()
        with open_uri(file) as opened:
            start = opened.read(_SEARCHED_BYTES)
    except StoreError:
        return frozenset()  # reading the annotations then says what is wrong
    return frozenset(key.decode() for key in _KEY.findall(start))
