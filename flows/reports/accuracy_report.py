"""The output of `refseg bench accuracy`: tables in the terminal, Parquet and JSON files, and a chart."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table as TextTable

from flows.reports.charts import draw_pareto
from flows.terminal import results, text_table
from refseg_core.errors import counted
from refseg_core.tables import VariantNumbers
from tasks.models.profiling.variants import NOTHING_COMPARED, VariantComparison
from tasks.store.parquet import table_to_parquet
from tasks.store.store import made_by

_AP = ("AP50", "AP75", "APs", "APm", "APl")
_SIZES = {"": "", ", small": "_s", ", medium": "_m", ", large": "_l"}
_LIMITS = {
    **{f"covered by a proposed mask{size}": f"proposed{letter}" for size, letter in _SIZES.items()},
    **{f"covered by a detection{size}": f"covered{letter}" for size, letter in _SIZES.items()},
    "of these, labeled right": "labeled_right",
    "of these, largest IoU, mean": "mask_iou",
}

Key = tuple[str, str, str]
"""A variant, what was compared, and the metric."""


def report_accuracy(comparison: VariantComparison, folder: Path) -> None:
    """Prints and stores the comparison of variants."""
    rows = _rows(comparison.numbers, seed=None)
    names = list(comparison.variants)
    kinds = list(dict.fromkeys(kind for _, kind, _ in rows if kind != NOTHING_COMPARED))
    seeds = ", ".join(map(str, comparison.seeds))
    results.print(
        f"{comparison.machine}; {counted(comparison.num_images, 'image')}, means over references of the seeds {seeds}"
    )
    for kind in reversed(kinds):
        results.print(_accuracy(rows, names, kind))
    results.print(_limits(rows, names, kinds[-1]))
    results.print(_cost(rows, names, comparison.num_timed))
    files = {
        "accuracy.parquet": table_to_parquet(comparison.numbers),
        "accuracy_images.parquet": table_to_parquet(comparison.images),
        "accuracy.json": json.dumps(_content(comparison), indent=1).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    draw_pareto(_points(comparison, kinds[-1]), kinds[-1], folder / "accuracy.png")
    results.print(", ".join(str(folder / name) for name in [*files, "accuracy.png"]))


def _rows(numbers: VariantNumbers, seed: int | None) -> dict[Key, VariantNumbers]:
    """Returns the row of each number with one seed's references; None: of the means."""
    own = [row for row, one in enumerate(numbers.seed) if one == seed]
    keys = zip(numbers.variant[own], numbers.iou_type[own], numbers.metric[own], strict=True)
    return {key: numbers[row : row + 1] for key, row in zip(keys, own, strict=True)}


def _accuracy(rows: Mapping[Key, VariantNumbers], names: Sequence[str], kind: str) -> TextTable:
    header = ["variant", "AP", f"minus {names[0]} (95 %)", *_AP]
    cells = [
        [
            name,
            _percent(rows[name, kind, "AP"]),
            _with_interval(rows[name, kind, "AP"]) if name != names[0] else "",
            *(_percent(rows[name, kind, metric]) for metric in _AP),
        ]
        for name in names
    ]
    return text_table(header, cells, {"bbox": "Boxes", "segm": "Masks"}[kind])


def _percent(row: VariantNumbers) -> str:
    value = float(row.value[0])
    return f"{100 * value:.2f}" if value >= 0 else "-"


def _with_interval(row: VariantNumbers) -> str:
    difference, low, high = (100 * float(column[0]) for column in (row.difference, row.low, row.high))
    return f"{difference:+.2f} ({low:+.2f} to {high:+.2f})"


def _limits(rows: Mapping[Key, VariantNumbers], names: Sequence[str], kind: str) -> TextTable:
    """Returns a row for each number, by sizes where there are any."""
    header = ["percent of instances", *names]
    cells = [[text, *(_percent(rows[name, kind, metric]) for name in names)] for text, metric in _LIMITS.items()]
    return text_table(header, cells, "What limits AP")


def _cost(rows: Mapping[Key, VariantNumbers], names: Sequence[str], num_timed: int) -> TextTable:
    """Returns a row for each number of the cost; stages that take no time are left out."""
    value = {
        (name, metric): float(row.value[0]) for (name, kind, metric), row in rows.items() if kind == NOTHING_COMPARED
    }
    metrics = list(dict.fromkeys(metric for _, metric in value))
    shown = [metric for metric in metrics if any(value[name, metric] for name in names)]
    cells = [[metric.replace("_", " "), *(_amount(metric, value[name, metric]) for name in names)] for metric in shown]
    faster = [f"{value[names[0], 'seconds'] / value[name, 'seconds']:.2f}" for name in names]
    images = counted(num_timed, "image")
    title = f"Cost per image; seconds (means) and memory are of the first {images}, each labeled alone"
    return text_table(["", *names], [*cells, [f"times as fast as {names[0]}", *faster]], title)


def _amount(metric: str, value: float) -> str:
    if metric.endswith("share"):
        return f"{value:.1%}"
    return f"{value / 1e9:.2f} GB" if metric.endswith("bytes") else f"{value:.4g}"


def _points(comparison: VariantComparison, kind: str) -> dict[str, tuple[float, float, list[float]]]:
    means = _rows(comparison.numbers, seed=None)
    of_seeds = [_rows(comparison.numbers, seed) for seed in comparison.seeds]
    return {
        name: (
            float(means[name, NOTHING_COMPARED, "seconds"].value[0]),
            float(means[name, kind, "AP"].value[0]),
            [float(rows[name, kind, "AP"].value[0]) for rows in of_seeds],
        )
        for name in comparison.variants
    }


def _content(comparison: VariantComparison) -> dict[str, object]:
    return {
        "made_by": made_by(),
        "machine": comparison.machine,
        "variants": {name: settings.model_dump(mode="json") for name, settings in comparison.variants.items()},
        "seeds": comparison.seeds,
        "num_images": comparison.num_images,
        "num_timed": comparison.num_timed,
        "numbers": comparison.numbers.to_arrow().to_pylist(),
    }
