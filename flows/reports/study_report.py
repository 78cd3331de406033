"""The output of a study: a table, an answer, a JSON file and a chart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table as TextTable

from flows.reports.charts import draw_study
from flows.terminal import results, text_table
from flows.trials.study import StudyRun
from refseg_core.analysis.reference_study import Spread, answer, enough, spreads
from tasks.store.store import made_by


def report_study(runs: Sequence[StudyRun], folder: Path) -> None:
    """Prints the table and the answer, and writes the JSON file and the chart."""
    by_metric = spreads([run.outcome for run in runs])
    results.print(_table(by_metric))
    metric, spread = list(by_metric.items())[-1]
    results.print(answer(metric, spread))
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "made_by": made_by(),
        "runs": [asdict(run) for run in runs],
        "spreads": {
            name: [
                {"shots": one.shots, "seeds": len(one.values), "mean": one.mean, "deviation": one.deviation}
                for one in of_metric
            ]
            for name, of_metric in by_metric.items()
        },
        "enough": {name: enough(of_metric).shots for name, of_metric in by_metric.items()},
        "answer": answer(metric, spread),
    }
    (folder / "study.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    draw_study(by_metric, folder / "study.png")
    results.print(f"{folder / 'study.json'}, {folder / 'study.png'}")


def _table(by_metric: Mapping[str, Sequence[Spread]]) -> TextTable:
    rows = [
        (str(of_shots[0].shots), str(len(of_shots[0].values)), *map(_cell, of_shots))
        for of_shots in zip(*by_metric.values(), strict=True)
    ]
    title = "References per category: mean ± standard deviation (least to most)"
    return text_table(["references", "seeds", *by_metric], rows, title)


def _cell(spread: Spread) -> str:
    return f"{spread.mean:.3f} ± {spread.deviation:.3f} ({min(spread.values):.3f} to {max(spread.values):.3f})"
