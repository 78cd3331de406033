"""The output of `refseg thresholds`: a table, what needs attention in words, a chart and a file for editing."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from flows.reports.charts import draw_thresholds
from flows.terminal import results, text_table
from refseg_core.errors import counted, listed
from refseg_core.settings.areas import OTHERS
from refseg_core.tables import CategoryThresholds, ThresholdCurves
from tasks.storage.uris import redact, typed
from tasks.store.label_store import StoredLabels
from tasks.store.store import Artifact
from tasks.store.thresholds import SCORE_THRESH

_CATEGORIES_SHOWN = 100
_BY_INSTANCES = ("ground truth", "reviews")
_FEW = 10  # instances; with fewer a threshold is hardly known
_HEADER = ("category", "threshold", "95 %", "precision", "95 %", "recall", "F1", "instances", "labels", "said by")


def report_thresholds(run: StoredLabels, artifact: Artifact, out: Path, wanted_precision: float | None) -> None:
    """Prints the proposed thresholds, and writes the chart and the file."""
    proposed = run.store.load(artifact, CategoryThresholds)
    rows = list(_rows(proposed))
    aim = "best F1" if wanted_precision is None else f"the lowest score with a precision of {wanted_precision:g}"
    results.print(text_table(_HEADER, rows[:_CATEGORIES_SHOWN], f"Thresholds of labels/{run.key}: {aim}, IoU 0.5"))
    results.print(_of_images(run, proposed))
    if len(rows) > _CATEGORIES_SHOWN:
        results.print(f"and {len(rows) - _CATEGORIES_SHOWN} more in the table below")
    for sentence in _advice(run, proposed, wanted_precision):
        results.print(sentence)
    out.mkdir(parents=True, exist_ok=True)
    draw_thresholds(proposed, run.store.load(artifact, ThresholdCurves), out / "thresholds.png")
    (out / "thresholds.yaml").write_text(yaml.safe_dump(_as_file(proposed), sort_keys=False, allow_unicode=True))
    store = redact(run.store.uri)
    results.print(f"Chart:      {out / 'thresholds.png'}")
    results.print(f"To edit:    {out / 'thresholds.yaml'}  (used with --thresholds {typed(out / 'thresholds.yaml')})")
    results.print(f"Saved:      {store}/{artifact.name}/category_thresholds.parquet, which --thresholds auto reads")
    results.print("Next:")
    results.print(f"  refseg show {run.as_argument()} --thresholds auto --out pictures")


def _of_images(run: StoredLabels, proposed: CategoryThresholds) -> str:
    """Returns from how many images the thresholds were proposed, and what follows where others are not labeled yet."""
    dataset = run.requested()
    number, total = int(proposed.num_images[0]), 0 if dataset is None else dataset.num_rows["images"]
    of_all = f"From {counted(number, 'labeled image')}"
    return (
        f"{of_all} of {total:,}: propose them again when the rest is labeled; these stay in use until then."
        if number < total
        else f"{of_all}."
    )


def _rows(proposed: CategoryThresholds) -> Iterator[tuple[str, ...]]:
    for row in range(len(proposed)):
        low, high = proposed.thresh_low[row], proposed.thresh_high[row]
        precision_low, precision_high = proposed.precision_low[row], proposed.precision_high[row]
        yield (
            str(proposed.category_name[row]),
            _thresh(proposed.score_thresh[row]),
            _interval(low, high),
            _number(proposed.precision[row]),
            _interval(precision_low, precision_high),
            _number(proposed.recall[row]),
            _number(proposed.f1[row]),
            *counts_of(proposed, row),
            str(proposed.evidence[row]),
        )


def counts_of(proposed: CategoryThresholds, row: int) -> tuple[str, str]:
    """Returns how many instances and labels said a threshold; '-' where none did, as where references guess it."""
    if proposed.evidence[row] not in _BY_INSTANCES:
        return "-", "-"
    return f"{proposed.num_instances[row]:,}", f"{proposed.num_labels[row]:,}"


def _advice(run: StoredLabels, proposed: CategoryThresholds, wanted_precision: float | None) -> Iterator[str]:
    """Yields what needs attention: categories that nothing speaks of, that little does, or that miss the precision."""
    rows = range(len(proposed))
    nothing = [str(proposed.category_name[row]) for row in rows if proposed.score_thresh[row] is None]
    if nothing:
        yield (
            f"Nothing says a threshold for {listed(nothing)}: {SCORE_THRESH:g} is used. Decide on some labels in "
            f"`refseg review {run.as_argument()}`, or annotate some of the images (targets.annotations), and propose "
            "thresholds again."
        )
    guessed = [str(proposed.category_name[row]) for row in rows if proposed.evidence[row] == "references"]
    if guessed:
        yield (
            f"Only guessed, by how like the references are to one another: {listed(guessed)}. "
            f"`refseg review {run.as_argument()}` helps."
        )
    few = [
        f"{proposed.category_name[row]} ({proposed.num_instances[row]})"
        for row in rows
        if proposed.evidence[row] in _BY_INSTANCES and proposed.num_instances[row] < _FEW
    ]
    if few:
        yield f"Hardly known, from fewer than {_FEW} instances: {listed(few)}. All categories count there, too."
    if wanted_precision is not None:
        missed = [
            f"{proposed.category_name[row]} ({proposed.precision[row]:.2f})"
            for row in rows
            if proposed.precision[row] is not None and proposed.precision[row] < wanted_precision
        ]
        if missed:
            yield f"No score reaches the precision {wanted_precision:g} for {listed(missed)}: the nearest is proposed."


def _as_file(proposed: CategoryThresholds) -> dict[str, float]:
    named = zip(proposed.category_name, proposed.score_thresh, strict=True)
    return {OTHERS: SCORE_THRESH, **{str(name): float(thresh) for name, thresh in named if thresh is not None}}


def _thresh(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"
