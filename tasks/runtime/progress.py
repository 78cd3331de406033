"""Reports how far a step is to listeners in this process: the bars of the command line, an artifact of Prefect's UI."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum


class ProgressStep(StrEnum):
    """Everything whose progress is reported, as it is shown. A new one is a line here."""

    OPEN_IMAGES = "open images"
    SEGMENT_REFERENCES = "segment references"
    FILL_MEMORY_BANK = "fill memory bank"
    FIND_BACKGROUND = "find background"
    CHOOSE_GUIDANCE = "choose guidance threshold"
    CHOOSE_PILOT = "choose pilot images"
    LABEL = "label"
    DRAW_PICTURES = "draw pictures"
    DRAW_REFERENCES = "draw references"
    EXPORT = "export"
    READ_STATUS = "look at shards"
    READ_LABELS = "read labels"
    COMPARE = "compare corrections"
    VERIFY = "verify"
    PROPOSE_THRESHOLDS = "propose thresholds"
    REMOVE = "remove"
    STUDY = "study"
    BENCHMARK = "benchmark"
    BENCH = "bench"
    BENCH_SCALE = "bench scale"
    BENCH_ACCURACY = "bench accuracy"
    CEILINGS = "ceilings"

    @property
    def unit(self) -> str:
        """What is counted."""
        return _UNITS.get(self, "images")

    @property
    def is_saved_at_end(self) -> bool:
        """Whether nothing of the step is saved until all of it is done."""
        return self in (self.SEGMENT_REFERENCES, self.FILL_MEMORY_BANK, self.CHOOSE_GUIDANCE)


_UNITS = {
    ProgressStep.SEGMENT_REFERENCES: "references",
    ProgressStep.FILL_MEMORY_BANK: "references",
    ProgressStep.DRAW_REFERENCES: "references",
    ProgressStep.VERIFY: "shards",
    ProgressStep.REMOVE: "objects",
    ProgressStep.STUDY: "runs",
    ProgressStep.BENCHMARK: "runs",
}


@dataclass(frozen=True)
class Progress:
    """`advanced` more units of a step are done; `total`: how many there are to do, if known.

    `doing`: what is being done from now on, if the step's name alone does not say it. `unsaved`: how many more of the
    done units would be lost with the process; less than zero where they are saved.
    """

    step: ProgressStep
    advanced: int
    total: int | None = None
    doing: str | None = None
    unsaved: int = 0


_listeners: list[Callable[[Progress], None]] = []


def report(
    step: ProgressStep, *, advanced: int = 0, total: int | None = None, doing: str | None = None, unsaved: int = 0
) -> None:
    """Reports to every listener."""
    for listener in _listeners:
        listener(Progress(step, advanced, total, doing, unsaved))


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Calls `listener` with every report within the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
