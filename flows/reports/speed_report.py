"""The output of `refseg bench`: tables in the terminal, a JSON file and a chart."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles

from rich.table import Table as TextTable

from flows.reports.charts import draw_growth, draw_stages
from flows.terminal import results, text_table
from refseg_core.errors import counted
from tasks.models.profiling.compare_paths import STAGES, Comparison, PathResult
from tasks.models.profiling.machine_limits import Ceilings
from tasks.models.profiling.scaling import Growth
from tasks.store.store import made_by

_FEWEST_FOR_QUARTERS = 2
_DIFFERENCES_SHOWN = 10


def report_comparison(comparison: Comparison, folder: Path) -> None:
    """Prints and stores the comparison of paths."""
    ceilings = comparison.ceilings
    compiled = "; fast compiled" if comparison.is_compiled else ""
    results.print(
        f"{ceilings.machine}; {counted(comparison.num_images, 'image')}, "
        f"{counted(comparison.num_points, 'point')}{compiled}"
    )
    results.print(f"Ceilings: {describe_ceilings(ceilings)}")
    results.print(_times(comparison))
    results.print(_summary(comparison))
    for result in comparison.results[1:]:
        _print_differences(comparison.results[0], result)
    _write_json(folder / "bench.json", {"made_by": made_by(), **asdict(comparison)})
    draw_stages(comparison, folder / "bench.png")
    results.print(f"{folder / 'bench.json'}, {folder / 'bench.png'}")


def report_growth(growth: Sequence[Growth], folder: Path) -> None:
    """Prints and stores how cost grows."""
    table = TextTable("varied", "value: seconds", "times as many", "cost times")
    for series in growth:
        table.add_row(
            series.varied,
            ", ".join(f"{value}: {seconds:.3g}" for value, seconds in zip(series.values, series.seconds, strict=True)),
            f"{series.values[-1] / series.values[0]:.3g}",
            f"{series.seconds[-1] / series.seconds[0]:.2f}",
        )
    results.print(table)
    _write_json(folder / "scale.json", {"made_by": made_by(), "series": [asdict(series) for series in growth]})
    draw_growth(growth, folder / "scale.png")
    results.print(f"{folder / 'scale.json'}, {folder / 'scale.png'}")


def describe_ceilings(ceilings: Ceilings) -> str:
    """Returns the machine's measured limits, and what was not measured, in a line."""
    products = [f"{flops / 1e9:,.0f} GFLOP/s {name}" for name, flops in ceilings.product_flops.items()]
    left_out = [f"{name} not measured, since it is emulated here" for name in ceilings.emulated]
    return ", ".join([*products, f"{ceilings.copied_bytes / 1e9:,.0f} GB/s copied", *left_out])


def _times(comparison: Comparison) -> TextTable:
    """Returns the median seconds of each stage with their quartiles."""
    results_of = comparison.results
    rows = [[stage, *(_spread(result.seconds[stage]) for result in results_of)] for stage in STAGES]
    table = text_table(["stage", *(result.path for result in results_of)], rows, "Seconds per image")
    table.add_section()
    table.add_row("all", *(_spread(result.totals) for result in results_of))
    return table


def _spread(seconds: Sequence[float]) -> str:
    if len(seconds) < _FEWEST_FOR_QUARTERS:
        return f"{median(seconds):.4f}"
    low, _, high = quantiles(seconds, n=4, method="inclusive")
    return f"{median(seconds):.4f} ({low:.4f} to {high:.4f})"


def _summary(comparison: Comparison) -> TextTable:
    first = comparison.results[0]
    rows: dict[str, Callable[[PathResult], str]] = {
        "images per second": lambda result: f"{1 / result.seconds_per_image:.3g}",
        f"times as fast as {first.path}": lambda result: f"{first.seconds_per_image / result.seconds_per_image:.2f}",
        "memory at most": lambda result: f"{result.peak_bytes / 1e9:.2f} GB",
        "arithmetic": lambda result: f"{sum(result.flops.values()) / 1e12:.2f} TFLOP",
        "share of the float32 ceiling": lambda result: f"{_share(comparison, result):.0%}",
        "instances": lambda result: str(result.agreement.num_found),
        f"decisions as {first.path}": lambda result: f"{result.agreement.share:.2%}",
        "mask IoU of pairs, mean": lambda result: f"{result.agreement.mean_iou:.5f}",
        "mask IoU of pairs, least": lambda result: f"{result.agreement.min_iou:.5f}",
        "score, largest difference": lambda result: f"{result.agreement.max_score_difference:.2g}",
        "AP of boxes": lambda result: _percent(result, "bbox"),
        "AP of masks": lambda result: _percent(result, "segm"),
    }
    cells = [[name, *(cell(result) for result in comparison.results)] for name, cell in rows.items()]
    return text_table(["", *(result.path for result in comparison.results)], cells, "In all")


def _share(comparison: Comparison, result: PathResult) -> float:
    """Returns the time of the counted arithmetic at the machine's float32 speed, as a share of the measured."""
    seconds = sum(median(result.seconds[stage]) for stage in result.flops)
    return sum(result.flops.values()) / comparison.ceilings.float32_flops / seconds


def _percent(result: PathResult, kind: str) -> str:
    value = result.average_precision.get(kind)
    return "-" if value is None else f"{100 * value:.2f}"


def _print_differences(first: PathResult, result: PathResult) -> None:
    differences = result.agreement.differences
    if not differences or result.path != "exact":
        return
    results.print(f"{counted(len(differences), 'instance')} of {first.path} without an equal one on {result.path}:")
    for image_id, category_id, score, iou in differences[:_DIFFERENCES_SHOWN]:
        results.print(f"  image {image_id}, category {category_id}, score {score:.4f}: nearest has mask IoU {iou:.4f}")


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
