"""The definition of a benchmark: the data it needs, its runs, and the published numbers."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from flows.config.loading import load_content
from flows.config.run_config import RunConfig
from flows.config.shipped_files import deployment_files
from refseg_core.errors import ConfigurationError, brief
from refseg_core.settings import Settings

_FOLDER = deployment_files() / "benchmarks"

Value = int | str
Point = dict[str, Value]
"""A value for each axis."""


class Need(Settings):
    """A file or folder that the data folder must hold."""

    path: str = Field(description="Where, relative to the data folder; may name axes in braces.")
    what: str = Field(description="What it is.")
    get: str = Field(description="How to get it.")
    images: int | None = Field(None, description="How many images the folder must hold at least.")


class Published(Settings):
    """A published number: of the runs at `where`, their mean and standard deviation where it was given."""

    where: Point = Field(description="A case: values of axes; {} for all runs.")
    iou_type: str = Field(description="'bbox', 'segm' or 'semantic'.")
    mean: float = Field(description="In percent.")
    deviation: float | None = Field(None, description="In percent; null where none was given.")


class Benchmark(Settings):
    """A benchmark."""

    name: str = Field(description="What it is called on the command line.")
    title: str = Field(description="What it is.")
    metric: Literal["AP", "AP50", "mIoU"] = Field(description="The number that counts.")
    axes: dict[str, tuple[Value, ...]] = Field(description="What varies; every combination is a run.")
    cases: tuple[str, ...] = Field(description="Axes whose values are rows of the table; others are averaged over.")
    overall: bool = Field(False, description="Whether the mean of all runs is a number of its own.")
    needs: tuple[Need, ...] = Field(description="What the data folder must hold.")
    config: dict[str, Any] = Field(
        description="The run configuration without a store; '{axis}' stands for its value, paths are relative to the "
        "data folder."
    )
    original: dict[str, Any] = Field({}, description="Keys that the published numbers depend on; not set if corrected.")
    published: tuple[Published, ...] = Field((), description="Published numbers.")
    verified: str = Field(description="What of it was run with refseg, and where not, why.")

    def points(self, chosen: Mapping[str, tuple[Value, ...]]) -> list[Point]:
        """Returns all combinations of the axes' values, or of the chosen ones. Raises ConfigurationError."""
        for axis, values in chosen.items():
            if unknown := [value for value in values if value not in self.axes.get(axis, ())]:
                raise ConfigurationError(
                    f"{self.name}: {axis} {', '.join(map(str, unknown))} is not part of it; it has "
                    f"{', '.join(f'{name}: {list(known)}' for name, known in self.axes.items())}."
                )
        values_of = {axis: chosen.get(axis, values) for axis, values in self.axes.items()}
        return [dict(zip(values_of, values, strict=True)) for values in itertools.product(*values_of.values())]

    def run_config(
        self, point: Point, *, data: Path, store: str, corrected: bool, changes: Mapping[str, Any]
    ) -> RunConfig:
        """Returns the run at a point, by the published method; `changes`, by dotted key, have precedence."""
        content = _filled(self.config, point)
        content |= {"store": store, "labeling": {"method": "published"} | content.get("labeling", {})}
        overrides = {**({} if corrected else self.original), **changes}
        return load_content(content, overrides, source=f"benchmark {self.name}", base=data)


def benchmark_names() -> list[str]:
    """Returns the names of all benchmarks."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def load_benchmark(name: str) -> Benchmark:
    """Returns a benchmark by name. Raises ConfigurationError if there is none."""
    if name not in benchmark_names():
        raise ConfigurationError(f"No benchmark is called {brief(name)}; there are {', '.join(benchmark_names())}.")
    return Benchmark.model_validate(yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def case_name(case: Point) -> str:
    """Returns the name of a case."""
    return ", ".join(f"{axis} {value}" for axis, value in case.items())


def filled_path(path: str, point: Point) -> str:
    """Returns the path with the values of the axes that it names."""
    for axis, value in point.items():
        path = path.replace(f"{{{axis}}}", str(value))
    return path


def _filled(content: Any, point: Point) -> Any:
    """Returns the content with values for axes; a text that is only an axis becomes its value, of its type."""
    if isinstance(content, dict):
        return {key: _filled(value, point) for key, value in content.items()}
    if isinstance(content, list):
        return [_filled(value, point) for value in content]
    if not isinstance(content, str):
        return content
    alone = content.removeprefix("{").removesuffix("}")
    return point[alone] if content == f"{{{alone}}}" and alone in point else filled_path(content, point)
