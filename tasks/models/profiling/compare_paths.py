"""Labels the same images on several paths, one after the other on each image, and compares times and labels."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from refseg_core.analysis.label_agreement import Agreement, compare_labels
from refseg_core.evaluation.protocols import evaluate
from refseg_core.labeling.batch_labeler import BatchLabeler
from refseg_core.labeling.proposal_source import PromptCounts
from refseg_core.settings import EvaluationSettings
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.tables import Detections
from tasks.models.profiling.arithmetic import Arithmetic, count_arithmetic
from tasks.models.profiling.inputs import Inputs
from tasks.models.profiling.machine_limits import Ceilings, measure_ceilings
from tasks.models.profiling.stopwatch import Stopwatch, forget_peak, peak_bytes
from tasks.runtime.progress import ProgressStep, report
from tasks.storage.folder import Folder
from tasks.store.parquet import table_to_parquet

STAGES = (
    "read", "decode image", "resize", "segmenter", "encoder", "decoder", "matching", "second look", "merging",
    "refining", "run lengths", "write",
)  # fmt: skip
_FEW = 8  # points along one side, for warming up


@dataclass(frozen=True)
class PathResult:
    """What a path took and gave.

    `seconds`: of each stage, an entry an image. `flops`: operations of each stage, the mean over the images.
    `agreement`: with the first path. `average_precision`: by kind of IoU, where there is ground truth.
    """

    path: str
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


def compare_paths(inputs: Inputs, paths: Sequence[str]) -> Comparison:
    """Labels every image on every path, a batch at a time, in an order that turns; warms up before it measures."""
    on_path = {path: replace(inputs, labeling=inputs.labeling.published_on(path)) for path in paths}
    runs = {path: LabelingRun(own, path) for path, own in on_path.items()}
    report(ProgressStep.BENCH, total=len(paths) * len(inputs.images), doing="counting operations")
    arithmetic = count_arithmetic(inputs.segmenter, inputs.encoder)
    label_in_turn(list(runs.values()), len(inputs.images))
    first = runs[paths[0]]
    return Comparison(
        measure_ceilings(inputs.device),
        str(inputs.device),
        len(inputs.images),
        inputs.labeling.points_per_side**2,
        inputs.batches.compiled,
        tuple(run.result(first.detections, arithmetic) for run in runs.values()),
    )


def label_in_turn(runs: Sequence["LabelingRun"], num_images: int) -> None:
    """Labels so many images in each run, a batch at a time, in an order that turns; warms up before it measures."""
    size = runs[0].labeler.images_per_batch
    batches = [range(start, min(start + size, num_images)) for start in range(0, num_images, size)]
    with tempfile.TemporaryDirectory() as place:
        target = Folder(place)
        _warm_up(runs, target)
        for number, batch in enumerate(batches):
            first = number % len(runs)
            for run in [*runs[first:], *runs[:first]]:
                run.label(batch, target)
                report(ProgressStep.BENCH, advanced=len(batch))


def _warm_up(runs: Sequence["LabelingRun"], target: Folder) -> None:
    """A few points of an image each, so that libraries and memory are ready; what is compiled, at its full size."""
    for run in runs:
        inputs = run.inputs
        if not inputs.batches.compiled:
            few = min(_FEW, inputs.labeling.points_per_side)
            inputs = replace(inputs, labeling=inputs.labeling.model_copy(update={"points_per_side": few}))
        LabelingRun(inputs, run.name, doing="warming up").label(range(1), target)


class LabelingRun:
    """A labeler at work, and what was measured of it."""

    def __init__(self, inputs: Inputs, name: str, *, doing: str = "labeling") -> None:
        """`name`: what progress calls it."""
        self.inputs = inputs
        self.name = name
        self._doing = doing
        self._watch = Stopwatch(inputs.device, STAGES)
        self.labeler = BatchLabeler(
            inputs.segmenter, inputs.encoder, inputs.prototypes, inputs.labeling, inputs.batches, stage=self._stage
        )
        self._found: list[Detections] = []
        self._prompts: list[PromptCounts] = []
        self.peak_bytes = 0

    @property
    def detections(self) -> Detections:
        """Of all images so far."""
        return Detections.concatenate([Detections.empty(), *self._found])

    @property
    def seconds(self) -> dict[str, list[float]]:
        """Of each stage, an entry an image so far."""
        return self._watch.seconds

    def label(self, rows: range, target: Folder) -> None:
        """Labels images of these rows, from the bytes of their files to those of the table."""
        forget_peak(self.inputs.device)
        found = list(self._label(rows))
        with self._stage("write"):
            target.replace(f"{self.name}.parquet", table_to_parquet(Detections.concatenate(found)))
        self._watch.next_images(len(rows))
        self._found += found
        self.peak_bytes = max(self.peak_bytes, peak_bytes(self.inputs.device))

    def result(self, expected: Detections, arithmetic: Arithmetic) -> PathResult:
        """What was measured, and how the labels compare."""
        return PathResult(
            self.name,
            self.seconds,
            arithmetic.per_image(self._prompts, is_plain=LABELING_PATHS[self.inputs.labeling.path].is_plain),
            self.peak_bytes,
            compare_labels(expected, self.detections),
            self._average_precision(),
        )

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        report(ProgressStep.BENCH, doing=f"{self._doing}, {self.name}: {stage}")
        with self._watch(stage):
            yield

    def _label(self, rows: range) -> Iterator[Detections]:
        inputs = self.inputs
        with self._stage("read"):
            files = [inputs.folder.read(str(inputs.images.file_name[row])) for row in rows]
        with self._stage("decode image"):
            images = [inputs.decode(data, row) for data, row in zip(files, rows, strict=True)]
        with self._stage("resize"):
            frames = [self.labeler.to_frame(image) for image in images]
        found = self.labeler.find(frames)
        self._prompts += [each.prompts for each in found]
        with self._stage("run lengths"):
            labels = [each.labels(str(inputs.images.image_id[row])) for row, each in zip(rows, found, strict=True)]
        yield from (each.detections for each in labels)

    def _average_precision(self) -> dict[str, float]:
        truth = self.inputs.truth
        if truth is None:
            return {}
        metrics = evaluate(
            truth, self.detections, settings=EvaluationSettings(protocol="coco"), conventions="corrected"
        )
        return metrics.overall("AP")
