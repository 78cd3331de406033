"""A benchmark's numbers and the published ones, as a table of the store and as text."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, pstdev

from flows.benchmarks.spec import Benchmark, Point, case_name
from refseg_core.tables import BenchmarkNumbers


@dataclass(frozen=True)
class RunOutcome:
    """A run: its point, its metric by IoU type, in percent, and its seconds per image."""

    point: Point
    numbers: Mapping[str, float]
    seconds: float


_ALL = "all"


def compare_with_published(benchmark: Benchmark, runs: Sequence[RunOutcome], *, corrected: bool) -> BenchmarkNumbers:
    """Returns a row for each case and IoU type, and one of all cases if the benchmark has an overall number."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    where: dict[str, Point] = {_ALL: {}}
    for run in runs:
        case = {axis: run.point[axis] for axis in benchmark.cases}
        where[case_name(case)] = case
        for iou_type, value in run.numbers.items():
            for name in (case_name(case), *((_ALL,) if benchmark.overall else ())):
                found[name, iou_type].append((value, run.seconds))
    ordered = sorted(found.items(), key=lambda item: item[0][0] == _ALL)
    rows = [_row(benchmark, name, kind, pairs, where[name]) for (name, kind), pairs in ordered]
    alike = {
        "benchmark": benchmark.name,
        "conventions": "corrected" if corrected else "as published",
        "verified": benchmark.verified,
        "metric": benchmark.metric,
    }
    return BenchmarkNumbers.concatenate([BenchmarkNumbers.row(**alike, **row) for row in rows])


def _row(
    benchmark: Benchmark, name: str, iou_type: str, pairs: Sequence[tuple[float, float]], where: Point
) -> dict[str, object]:
    """`pairs`: the metric and the seconds per image of each run."""
    known = (number for number in benchmark.published if number.iou_type == iou_type and number.where == where)
    published = next(known, None)
    values, seconds = zip(*pairs, strict=True)
    return {
        "case": name,
        "iou_type": iou_type,
        "num_runs": len(values),
        "mean": mean(values),
        "deviation": pstdev(values),
        "seconds": mean(seconds),
        "published": published.mean if published else None,
        "published_deviation": published.deviation if published else None,
    }


def as_text(numbers: BenchmarkNumbers) -> list[tuple[str, ...]]:
    """Returns the table as text, header first."""
    header = (
        "case",
        "IoU of",
        "runs",
        "ours",
        "published",
        "difference",
        "within its spread",
        "s an image",
        "verified",
    )
    return [header, *_text_rows(numbers)]


def _text_rows(numbers: BenchmarkNumbers) -> Iterator[tuple[str, ...]]:
    for row in range(len(numbers)):
        ours, published, spread = numbers.mean[row], numbers.published[row], numbers.published_deviation[row]
        difference = None if published is None else ours - published
        yield (
            str(numbers.case[row]),
            str(numbers.iou_type[row]),
            str(numbers.num_runs[row]),
            _with_spread(ours, numbers.deviation[row] if numbers.num_runs[row] > 1 else None),
            "not known" if published is None else _with_spread(published, spread),
            "-" if difference is None else f"{difference:+.1f}",
            "-" if difference is None or spread is None else ("yes" if abs(difference) <= spread else "no"),
            f"{numbers.seconds[row]:.2f}",
            str(numbers.verified[row]),
        )


def _with_spread(value: float, deviation: float | None) -> str:
    return f"{value:.1f}" if deviation is None else f"{value:.1f} ± {deviation:.1f}"
