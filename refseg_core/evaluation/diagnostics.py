"""What a reviewer asks beside a protocol's numbers: how sure they are, and where they come from."""

from collections.abc import Iterator
from dataclasses import dataclass

from refseg_core.evaluation.at_scores import score_rows
from refseg_core.evaluation.bootstrap import ap_interval
from refseg_core.evaluation.confusion import confusion_of
from refseg_core.evaluation.metric_rows import Row, metrics_of
from refseg_core.evaluation.misses import misses_of
from refseg_core.evaluation.summary import Comparison, summarize
from refseg_core.settings import Conventions, EvaluationSettings
from refseg_core.table_schema import Table
from refseg_core.tables import Confusion, Metrics, Misses

INTERVAL = ("AP_low", "AP_high")
_NOVEL = {"AP": "nAP", "AP50": "nAP50"}
_FEWEST_SURE = 500  # images: with as many AP's interval is narrow, and drawing sets takes long


@dataclass(frozen=True)
class Review:
    """The metrics, and tables of what is no number of a category; these are None where only pixels were compared."""

    metrics: Metrics
    confusion: Confusion | None = None
    misses: Misses | None = None

    @property
    def tables(self) -> list[Table]:
        """The tables that there are."""
        return [table for table in (self.metrics, self.confusion, self.misses) if table is not None]


def scrutinize(
    comparison: Comparison, settings: EvaluationSettings, conventions: Conventions, *, is_novel: bool
) -> Review:
    """The protocol's numbers and the reviewer's; `is_novel` says that the categories are a benchmark's novel ones."""
    metrics = summarize(comparison)
    more = [*_novel_rows(metrics), *_more_rows(comparison, settings)] if is_novel else _more_rows(comparison, settings)
    iou_type = list(comparison.matches)[-1]
    threshes = settings.sorted_score_threshes
    return Review(
        Metrics.concatenate([metrics, metrics_of(more)]),
        confusion_of(comparison.instances, comparison.categories, iou_type, threshes, conventions),
        misses_of(comparison.instances, comparison.matches[iou_type], threshes[0]),
    )


def _novel_rows(metrics: Metrics) -> Iterator[Row]:
    """AP over novel categories has a name of its own."""
    for row in range(len(metrics)):
        if metrics.category_id[row] is None and metrics.metric[row] in _NOVEL:
            name, num_instances = _NOVEL[metrics.metric[row]], int(metrics.num_instances[row])
            yield Row(metrics.iou_type[row], name, None, None, num_instances, float(metrics.value[row]))


def _more_rows(comparison: Comparison, settings: EvaluationSettings) -> Iterator[Row]:
    num_images, num_instances = len(comparison.instances.image_ids), comparison.instances.num_instances
    for iou_type, matches in comparison.matches.items():
        if num_instances and num_images < _FEWEST_SURE:
            for name, value in zip(INTERVAL, ap_interval(matches, num_images), strict=True):
                yield Row(iou_type, name, None, None, num_instances, value)
        yield from score_rows(iou_type, matches, comparison.categories, settings.sorted_score_threshes)
