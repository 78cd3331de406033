"""A benchmark's outcome: ours and the published numbers side by side, as a table of Parquet and as text."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, pstdev

import numpy as np

from flows.benchmarks.definition import Benchmark, Point, Published
from refseg_core.tables import BenchmarkNumbers

Numbers = Mapping[str, float]
"""The number that counts, in percent, by IoU type."""

_ALL = "all"


def compare_with_published(
    benchmark: Benchmark, runs: Sequence[tuple[Point, Numbers]], *, corrected: bool
) -> BenchmarkNumbers:
    """A row for each case and IoU type; and one of all cases, where the benchmark is judged by that."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    where: dict[str, Point] = {_ALL: {}}
    for point, numbers in runs:
        case = {axis: point[axis] for axis in benchmark.cases}
        where[case_name(case)] = case
        for iou_type, value in numbers.items():
            for name in (case_name(case), *((_ALL,) if benchmark.overall else ())):
                values[name, iou_type].append(value)
    ordered = sorted(values.items(), key=lambda item: item[0][0] == _ALL)
    rows = [_row(benchmark, name, kind, found, where[name]) for (name, kind), found in ordered]
    columns = [np.array(column, dtype=object) for column in zip(*rows, strict=True)]
    names = ("case", "iou_type", "metric", "num_runs", "mean", "deviation", "published", "published_deviation")
    count = len(rows)
    return BenchmarkNumbers(
        benchmark=np.full(count, benchmark.name, dtype=object),
        conventions=np.full(count, "corrected" if corrected else "as published", dtype=object),
        verified=np.full(count, benchmark.verified, dtype=object),
        **dict(zip(names, columns, strict=True)),
    )


def case_name(case: Point) -> str:
    """What a case is called."""
    return ", ".join(f"{axis} {value}" for axis, value in case.items())


def _row(benchmark: Benchmark, name: str, iou_type: str, found: Sequence[float], where: Point) -> tuple[object, ...]:
    published = _published(benchmark.published, iou_type, where)
    return (
        name,
        iou_type,
        benchmark.metric,
        len(found),
        mean(found),
        pstdev(found),
        published.mean if published else None,
        published.deviation if published else None,
    )


def _published(known: Sequence[Published], iou_type: str, where: Point) -> Published | None:
    return next((number for number in known if number.iou_type == iou_type and number.where == where), None)


def as_text(numbers: BenchmarkNumbers) -> list[tuple[str, ...]]:
    """The table as text, header first."""
    header = ("case", "IoU of", "runs", "ours", "published", "difference", "within its spread", "verified")
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
            str(numbers.verified[row]),
        )


def _with_spread(value: float, deviation: float | None) -> str:
    return f"{value:.1f}" if deviation is None else f"{value:.1f} ± {deviation:.1f}"
