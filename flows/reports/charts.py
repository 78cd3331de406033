"""Charts of benchmarks and studies, as PNG files; the only module that imports matplotlib."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from refseg_core.analysis.reference_study import Spread
from refseg_core.tables import BenchmarkNumbers, CategoryThresholds, ThresholdCurves
from tasks.models.profiling.compare_paths import STAGES, Comparison
from tasks.models.profiling.scaling import Growth

_STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
_ASIDE = 1.03
_MOST_PANELS, _PANELS_A_ROW = 40, 5
_LEAST_AP = 2.0  # points of an axis: smaller differences shall not look large
_FEWEST_SHOWN = 0.002  # of a bar: thinner stages would only fill the legend


def draw_stages(comparison: Comparison, path: Path) -> None:
    """Draws a bar for each path, made of its stages."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10, 1.4 + 0.7 * len(comparison.results)), layout="constrained")
        axes = figure.add_subplot()
        names = [result.path for result in comparison.results]
        left = [0.0] * len(names)
        longest = max(result.seconds_per_image for result in comparison.results)
        for stage in STAGES:
            widths = [median(result.seconds[stage]) for result in comparison.results]
            if max(widths) > _FEWEST_SHOWN * longest:
                axes.barh(names, widths, left=left, label=stage)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for row, end in enumerate(left):
            axes.annotate(f" {end:.2f} s", (end, row), va="center")
        axes.invert_yaxis()
        axes.set_xlabel(f"seconds an image (median of {comparison.num_images})")
        axes.set_title(comparison.ceilings.machine, fontsize=9)
        axes.margins(x=0.12)
        figure.legend(frameon=False, loc="outside lower center", ncols=len(STAGES))
        figure.savefig(path, dpi=110)


def draw_growth(growth: Sequence[Growth], path: Path) -> None:
    """Draws a panel for each varied quantity."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3 * len(growth), 3), layout="constrained")
        panels = figure.subplots(1, len(growth), squeeze=False)[0]
        for axes, series in zip(panels, growth, strict=True):
            axes.plot(series.values, series.seconds, marker="o")
            axes.set_xlabel(series.varied)
            axes.set_ylim(bottom=0)
        panels[0].set_ylabel("seconds each")
        figure.savefig(path, dpi=110)


def draw_benchmark(numbers: BenchmarkNumbers) -> bytes:
    """Draws the means and the published ones, with standard deviations, by case; returns a PNG file's bytes."""
    with mpl.rc_context(_STYLE):
        kinds = list(dict.fromkeys(numbers.iou_type))
        num_cases = len(set(numbers.case))
        figure = Figure(figsize=(3 + 3.5 * len(kinds), 1.6 + 0.3 * num_cases), layout="constrained")
        panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            own = numbers[numbers.iou_type == kind]
            places = np.arange(len(own))
            is_known = np.array([value is not None for value in own.published], dtype=bool)
            published = own.published[is_known].astype(np.float64)
            spread = [float(value or 0) for value in own.published_deviation[is_known]]
            axes.errorbar(own.mean, places - 0.12, xerr=own.deviation, fmt="o", capsize=3, label="refseg")
            axes.errorbar(published, places[is_known] + 0.12, xerr=spread, fmt="s", capsize=3, label="published")
            axes.set_yticks(places, own.case)
            axes.set_xlabel(f"{own.metric[0]} of {kind}, percent")
            axes.set_xlim(0, min(100.0, 1.02 * axes.get_xlim()[1]))
            axes.grid(axis="x", alpha=0.3)
        panels[0].set_ylim(num_cases - 0.5, -0.5)  # the first on top
        figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
        image = io.BytesIO()
        figure.savefig(image, dpi=110, format="png")
        return image.getvalue()


def draw_study(by_metric: Mapping[str, Sequence[Spread]], path: Path) -> None:
    """Draws a line per metric through its means, with standard deviations, and a dot per seed."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        for number, (metric, spread) in enumerate(by_metric.items()):
            aside = _ASIDE**number  # so that the metrics' spreads do not cover each other
            shots = [one.shots * aside for one in spread]
            means, deviations = [one.mean for one in spread], [one.deviation for one in spread]
            line = axes.errorbar(shots, means, yerr=deviations, marker="o", capsize=4, label=metric)
            at = [one.shots * aside for one in spread for _ in one.values]
            values = [value for one in spread for value in one.values]
            axes.scatter(at, values, s=12, alpha=0.5, color=line[0].get_color())
        axes.set_xscale("log")
        tried = [one.shots for one in next(iter(by_metric.values()))]
        axes.set_xticks(tried, labels=[str(number) for number in tried])
        axes.minorticks_off()
        axes.set_xlabel("references per category")
        axes.set_ylabel("mean and standard deviation over seeds")
        axes.legend(frameon=False)
        figure.savefig(path, dpi=110)


def draw_pareto(points: Mapping[str, tuple[float, float, Sequence[float]]], kind: str, path: Path) -> None:
    """Draws each variant's AP, mean and of each seed, against its seconds; a line joins those that none beats in both.

    `points`: by the variant's name its seconds, mean AP and APs, in [0, 1].
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for name, (seconds, mean, of_seeds) in points.items():
            axes.scatter([seconds] * len(of_seeds), [100 * ap for ap in of_seeds], s=12, alpha=0.4, color="gray")
            axes.scatter([seconds], [100 * mean], s=50, zorder=3)
            axes.annotate(name, (seconds, 100 * mean), xytext=(7, 5), textcoords="offset points")
        front = _unbeaten([(seconds, 100 * mean) for seconds, mean, _ in points.values()])
        axes.plot(*zip(*front, strict=True), color="gray", linewidth=1, linestyle="--")
        axes.margins(x=0.2, y=0.1)
        axes.set_xlim(left=0)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, (low + high - _LEAST_AP) / 2), max(high, (low + high + _LEAST_AP) / 2))
        axes.set_xlabel("seconds an image")
        axes.set_ylabel(f"{kind} AP: mean, and of each seed's references")
        figure.savefig(path, dpi=110)


def draw_thresholds(proposed: CategoryThresholds, curves: ThresholdCurves, path: Path) -> None:
    """Draws a panel for each category: precision and recall of labels of a score and above, and the threshold.

    The categories with the most instances come first, and are drawn; those without a curve have none.
    """
    order = np.argsort(-proposed.num_instances, kind="stable")
    shown = [row for row in order.tolist() if (curves.category_id == proposed.category_id[row]).any()][:_MOST_PANELS]
    with mpl.rc_context(_STYLE):
        columns = min(_PANELS_A_ROW, max(1, len(shown)))
        rows = max(1, -(-len(shown) // columns))
        figure = Figure(figsize=(1 + 2.6 * columns, 0.8 + 2.2 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in panels.ravel()[len(shown) :]:
            axes.set_visible(False)
        for axes, row in zip(panels.ravel(), shown, strict=False):
            _draw_threshold(axes, proposed[row : row + 1], curves[curves.category_id == proposed.category_id[row]])
        for axes in panels.ravel()[max(0, len(shown) - columns) : len(shown)]:  # the lowest of each column
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("score and above")
        if shown:
            figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        figure.savefig(path, dpi=110)


def _draw_threshold(axes: Any, proposed: CategoryThresholds, curve: ThresholdCurves) -> None:
    """Draws one category's panel; `proposed` is its row."""
    axes.plot(curve.score, curve.precision, label="precision")
    axes.plot(curve.score, curve.recall, label="recall")
    if proposed.score_thresh[0] is not None:
        axes.axvspan(
            proposed.thresh_low[0], proposed.thresh_high[0], color="gray", alpha=0.2, label="its 95 % interval"
        )
        axes.axvline(proposed.score_thresh[0], color="black", linewidth=1, label="proposed threshold")
    axes.set_title(f"{proposed.category_name[0]} ({proposed.num_instances[0]:,})", fontsize=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)


def _unbeaten(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points that no other beats in both, by ascending seconds."""
    front: list[tuple[float, float]] = []
    for seconds, ap in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or ap > front[-1][1]:
            front.append((seconds, ap))
    return front
