"""Labels the same images on several paths, one after the other on each image, and compares times and labels."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refseg_core import evaluation
from refseg_core.analysis.label_agreement import Agreement, compare_labels
from refseg_core.images import decode_image
from refseg_core.labeling.labeler import Labeler, Stage
from refseg_core.settings import BatchSettings, EvaluationSettings, LabelingPath, LabelingSettings
from refseg_core.tables import Detections
from tasks.models.profiling.inputs import Inputs
from tasks.models.profiling.machine_limits import Ceilings, measure_ceilings
from tasks.models.profiling.stopwatch import Arithmetic, Stopwatch, forget_peak, one_thread, peak_bytes
from tasks.runtime.progress import report
from tasks.storage.folder import Folder
from tasks.store.parquet import table_to_parquet

STAGES = (
    "read", "decode image", "resize", "segmenter", "encoder", "decoder", "matching", "merging", "run lengths", "write",
)  # fmt: skip
_COUNTED = ("segmenter", "encoder", "decoder")
_FEW = 8  # points along one side


@dataclass(frozen=True)
class PathResult:
    """What a path took and gave.

    `seconds`: of each stage, an entry an image. `flops`: operations of each stage on one image. `agreement`: with the
    first path. `average_precision`: by kind of IoU, where there is ground truth.
    """

    path: LabelingPath
    seconds: dict[str, list[float]]
    flops: dict[str, int]
    peak_bytes: int
    agreement: Agreement
    average_precision: dict[str, float]

    @property
    def seconds_per_image(self) -> float:
        """The median over the images of all stages together."""
        return float(np.median(self.totals))

    @property
    def totals(self) -> list[float]:
        """Seconds of each image, all stages together."""
        return [float(sum(stages)) for stages in zip(*self.seconds.values(), strict=True)]


@dataclass(frozen=True)
class Comparison:
    """Paths side by side; the first is the measure of the others."""

    ceilings: Ceilings
    device: str
    num_images: int
    num_points: int
    is_compiled: bool
    results: tuple[PathResult, ...]


def compare_paths(inputs: Inputs, paths: Sequence[LabelingPath]) -> Comparison:
    """Labels every image on every path, a batch at a time, in an order that turns; warms up before it measures."""
    runs = {path: _Run(inputs, path) for path in paths}
    size = next(iter(runs.values())).labeler.images_per_batch
    batches = [range(start, min(start + size, len(inputs.names))) for start in range(0, len(inputs.names), size)]
    report("bench", total=len(paths) * len(inputs.names))
    with tempfile.TemporaryDirectory() as place:
        target = Folder(place)
        _warm_up(runs, target)
        for number, batch in enumerate(batches):
            for path in _turned(paths, number):
                runs[path].label(batch, target)
                report("bench", advanced=len(batch))
    first = runs[paths[0]]
    return Comparison(
        measure_ceilings(inputs.device),
        str(inputs.device),
        len(inputs.names),
        inputs.labeling.points_per_side**2,
        inputs.batches.compiled,
        tuple(run.result(first.detections) for run in runs.values()),
    )


def _turned(paths: Sequence[LabelingPath], number: int) -> list[LabelingPath]:
    start = number % len(paths)
    return [*paths[start:], *paths[:start]]


def _warm_up(runs: dict[LabelingPath, "_Run"], target: Folder) -> None:
    """One image each, but for the plain path, which takes minutes on a CPU and has nothing to get warm."""
    for path, run in runs.items():
        if path != "reference" or run.inputs.device.type != "cpu":
            run.label(range(1), target)
            run.forget()


class _Run:
    """A path at work, and what was measured of it."""

    def __init__(self, inputs: Inputs, path: LabelingPath) -> None:
        self.inputs = inputs
        self.path = path
        self._settings = inputs.labeling.model_copy(update={"path": path})
        self.watch = Stopwatch(inputs.device)
        self.labeler = self._labeler(self.watch, self._settings, inputs.batches)
        self.forget()

    def forget(self) -> None:
        """Begins anew."""
        self.watch.seconds.clear()
        self._found: list[Detections] = []
        self._peak = 0

    @property
    def detections(self) -> Detections:
        """Of all images so far."""
        return Detections.concatenate([Detections.empty(), *self._found])

    def label(self, rows: range, target: Folder) -> None:
        """Labels images of these rows, from the bytes of their files to those of the table."""
        forget_peak(self.inputs.device)
        found = list(_label(self.inputs, self.labeler, self.watch, rows))
        with self.watch("write"):
            target.replace(f"{self.path}.parquet", table_to_parquet(Detections.concatenate(found)))
        self.watch.next_images(len(rows))
        self._found += found
        self._peak = max(self._peak, peak_bytes(self.inputs.device))

    def result(self, expected: Detections) -> PathResult:
        """What was measured, and how the labels compare."""
        return PathResult(
            self.path,
            {stage: self.watch.seconds[stage] for stage in STAGES},
            self._flops(),
            self._peak,
            compare_labels(expected, self.detections),
            self._average_precision(),
        )

    def _labeler(self, stage: Stage, settings: LabelingSettings, batches: BatchSettings) -> Labeler:
        inputs = self.inputs
        return Labeler(inputs.segmenter, inputs.encoder, inputs.prototypes, settings, batches, stage=stage)

    def _flops(self) -> dict[str, int]:
        """Of the first image. The plain path's are counted for few points: each costs it the same."""
        counter = Arithmetic()
        many = self._settings.points_per_side
        few = min(_FEW, many) if self.path == "reference" else many
        settings = self._settings.model_copy(update={"points_per_side": few})
        eager = self.inputs.batches.model_copy(update={"compiled": False})  # what is compiled cannot be counted
        with one_thread():
            list(_label(self.inputs, self._labeler(counter, settings, eager), counter, range(1)))
        counter.flops["decoder"] = counter.flops["decoder"] * many**2 // few**2
        return {stage: counter.flops[stage] for stage in _COUNTED}

    def _average_precision(self) -> dict[str, float]:
        truth = self.inputs.truth
        if truth is None:
            return {}
        metrics = evaluation.evaluate(
            truth.images,
            truth.annotations,
            truth.categories,
            self.detections,
            federated_labels=None,
            settings=EvaluationSettings(protocol="coco"),
            conventions="corrected",
        )
        return metrics.overall("AP")


def _label(inputs: Inputs, labeler: Labeler, stage: Stage, rows: range) -> Iterator[Detections]:
    with stage("read"):
        files = [inputs.folder.read(inputs.names[row]) for row in rows]
    with stage("decode image"):
        images = [decode_image(data, max_pixels=inputs.labeling.max_image_pixels) for data in files]
    with stage("resize"):
        squashed = [labeler.squash(image) for image in images]
    found = labeler.find(squashed)
    with stage("run lengths"):
        labels = [each.labels(inputs.image_ids[row]) for row, each in zip(rows, found, strict=True)]
    yield from (each.detections for each in labels)
