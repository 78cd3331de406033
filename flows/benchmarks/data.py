"""Checks that a benchmark's data are there, before hours are spent: one report of all that is missing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.benchmarks.definition import Benchmark, Need, Point, filled_path
from refseg_core.errors import DatasetError
from refseg_core.images import IMAGE_SUFFIXES


def check_data(benchmark: Benchmark, points: Sequence[Point], data: Path) -> None:
    """Raises DatasetError naming everything that these runs need and the folder does not hold."""
    missing = list(dict.fromkeys(_missing(benchmark, points, data)))
    if missing:
        listed = "\n".join(f"  {line}" for line in missing)
        raise DatasetError(f"{data}: {benchmark.name} needs what is not there:\n{listed}")


def _missing(benchmark: Benchmark, points: Sequence[Point], data: Path) -> Iterator[str]:
    for need in benchmark.needs:
        for path in dict.fromkeys(filled_path(need.path, point) for point in points):
            place = data / path
            if not place.exists():
                yield f"{path}: {need.what}. {need.get}"
            elif need.images is not None:
                yield from _too_few(need, path, place)


def _too_few(need: Need, path: str, place: Path) -> Iterator[str]:
    """Whether the folder holds fewer images than it must."""
    if not place.is_dir():
        yield f"{path}: expected a folder of images. {need.get}"
        return
    found = sum(1 for file in place.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if need.images is not None and found < need.images:
        yield f"{path}: expected {need.images} images, found {found}. {need.get}"
