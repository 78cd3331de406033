"""Checks that a benchmark's data is complete before it runs; one report names all that is missing."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from flows.benchmarks.spec import Benchmark, Need, Point, case_name, filled_path
from flows.config.preflight import check
from flows.config.run_config import RunConfig
from refseg_core.errors import DatasetError, RefsegError, counted
from refseg_core.images import IMAGE_SUFFIXES
from refseg_core.references.sampling import absent_of_split
from refseg_core.settings import Conventions
from refseg_core.tables import Categories
from tasks.index_dataset import index_dataset
from tasks.specs import DatasetSource
from tasks.store.store import Store

_AbsentOf = Callable[[str, DatasetSource, Conventions, str | None], list[str] | RefsegError]


def check_data(benchmark: Benchmark, points: Sequence[Point], data: Path) -> None:
    """Raises DatasetError naming everything that the runs need and the folder lacks."""
    missing = list(dict.fromkeys(_missing(benchmark, points, data)))
    if missing:
        listed = "\n".join(f"  {line}" for line in missing)
        raise DatasetError(f"{data}: {benchmark.name} lacks data:\n{listed}")


def _missing(benchmark: Benchmark, points: Sequence[Point], data: Path) -> Iterator[str]:
    for need in benchmark.needs:
        for path in dict.fromkeys(filled_path(need.path, point) for point in points):
            place = data / path
            if not place.exists():
                yield f"{path}: {need.what}. {need.get}"
            elif need.images is not None:
                yield from _too_few(need, path, place)


def _too_few(need: Need, path: str, place: Path) -> Iterator[str]:
    """Yields a problem if the folder holds too few images."""
    if not place.is_dir():
        yield f"{path}: expected a folder of images. {need.get}"
        return
    found = sum(1 for file in place.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if need.images is not None and found < need.images:
        yield f"{path}: expected {counted(need.images, 'image')}, found {found}. {need.get}"


def check_runs(benchmark: Benchmark, runs: Sequence[tuple[Point, RunConfig]], data: Path) -> None:
    """Checks each run as the pipeline does, and that its files have every category of its split.

    Raises DatasetError naming all problems and the runs that they affect.
    """
    absent_of = cache(_absent_categories)  # most runs share their files, of which one takes a minute to parse
    needed_by: dict[str, list[str]] = defaultdict(list)
    for point, config in runs:
        get_of = {str(data / filled_path(need.path, point)): need.get for need in benchmark.needs}
        for problem in _problems(config, get_of, absent_of):
            needed_by[problem].append(case_name(point))
    if needed_by:
        listed = "\n".join(f"  {problem} ({_runs(cases, len(runs))})" for problem, cases in needed_by.items())
        raise DatasetError(f"{data}: {benchmark.name} cannot run with this data:\n{listed}")


def _problems(config: RunConfig, get_of: Mapping[str, str], absent_of: _AbsentOf) -> Iterator[str]:
    """`get_of`: how to get each file."""
    split = config.references.sampling.split
    for source in (config.references.source, config.targets.source):
        absent = absent_of(config.store, source, config.conventions, split)
        if isinstance(absent, RefsegError):
            yield str(absent)
            return
        if absent:
            get = get_of.get(str(source.annotations), "Give annotations with these names.")
            yield (
                f"{source.annotations}: lacks {counted(len(absent), 'category')} of {split}: {', '.join(absent)}. {get}"
            )
    try:
        check(config)
    except RefsegError as error:
        yield str(error)


def _absent_categories(
    store_uri: str, source: DatasetSource, conventions: Conventions, split: str | None
) -> list[str] | RefsegError:
    """Returns the missing categories, or why the dataset cannot be indexed; the runs reuse the index."""
    try:
        dataset = index_dataset.fn(Store(store_uri), source, conventions=conventions)
    except RefsegError as error:
        return error
    return [] if split is None else absent_of_split(Store(store_uri).load(dataset, Categories), split)


def _runs(cases: Sequence[str], num_runs: int) -> str:
    if len(cases) == num_runs:
        return "all runs" if num_runs > 1 else "the run"
    return cases[0] if len(cases) == 1 else f"{cases[0]} and {len(cases) - 1} more"
