"""One page about labels: what was labeled and found, from what, and how to go on with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refseg_core.analysis.label_statistics import LabelStatistics
from refseg_core.errors import counted, listed
from tasks.outputs.prefect_ui.markdown import code, escaped, two_columns
from tasks.outputs.review import REVIEW_PORT
from tasks.storage.uris import typed
from tasks.store.label_store import points_per_image

_NAMES_SHOWN = 12
_HASH_SHOWN = 12


@dataclass(frozen=True)
class LabelSummary:
    """What the page shows: `store` is redacted, `pages` are addresses, by what they show."""

    store: str
    key: str
    dataset: str
    recipe: Mapping[str, Any]
    statistics: LabelStatistics
    num_images: int
    num_open_shards: int
    num_gone: int
    category_names: Mapping[int, str]
    pages: Mapping[str, str]

    @property
    def missed(self) -> list[str]:
        """Names of categories of which nothing was found."""
        return [
            name for category_id, name in self.category_names.items() if category_id not in self.statistics.categories
        ]


def summary_text(summary: LabelSummary) -> str:
    """Returns the page, Markdown."""
    pages = " · ".join(f"[{escaped(what)}]({address})" for what, address in summary.pages.items())
    return "\n\n".join([*_findings(summary), pages, _lineage(summary), _next(summary)])


def headline(summary: LabelSummary) -> str:
    """'4,096 of 4,096 images labeled: 12,345 instances'."""
    num_labeled, num_instances = summary.statistics.images.total(), summary.statistics.num_instances
    return f"{num_labeled:,} of {counted(summary.num_images, 'image')} labeled: {counted(num_instances, 'instance')}"


def _findings(summary: LabelSummary) -> Sequence[str]:
    statistics = summary.statistics
    counts = statistics.images
    lines = [
        f"**{headline(summary)}** in {counted(counts['ok'], 'image')}, {counted(counts['empty'], 'image')} without "
        f"any, {counts['unreadable']:,} unreadable."
    ]
    if (points := points_per_image(summary.recipe)) is not None:
        lines.append(f"{statistics.prompts.describe(points)}, since they resemble no reference.")
    if summary.num_open_shards:
        lines.append(
            f"**{counted(summary.num_open_shards, 'shard is', 'shards are')} not labeled.** The next run goes on with "
            "them."
        )
    if summary.missed:
        lines.append(f"Nothing was found of {listed(map(escaped, summary.missed), _NAMES_SHOWN)}.")
    if summary.num_gone:
        lines.append(
            f"{counted(summary.num_gone, 'label is of an image that was', 'labels are of images that were')} removed "
            "or changed since."
        )
    return lines


def _lineage(summary: LabelSummary) -> str:
    recipe = summary.recipe
    rows = [
        ("store", code(summary.store)),
        ("labels", code(f"labels/{summary.key}")),
        ("images", code(str(recipe["settings"]["images"]))),
        ("image list", code(summary.dataset)),
        *((escaped(name), code(value)) for name, value in recipe["inputs"].items()),
        *((f"{escaped(model)} weights", code(sha256[:_HASH_SHOWN])) for model, sha256 in recipe["weights"].items()),
        ("begun", escaped(f"{recipe['created']} by {recipe['created_by']}, refseg {recipe['refseg_version']}")),
    ]
    return f"### Made from\n\n{two_columns(rows)}"


def _next(summary: LabelSummary) -> str:
    store = summary.store.replace("```", "")
    labels = f"{typed(store)} --labels {summary.key}"  # the page stays when other labels are the newest
    detections = f"{store}/labels/{summary.key}/detections"
    return (
        f"### Review it\n\n```\nrefseg review {labels}\n```\n\nopens the [review page]"
        f"(http://127.0.0.1:{REVIEW_PORT}/) on the machine where you type it, and answers there until Ctrl-C.\n\n"
        "### Read it\n\n```python\nimport pandas as pd\n\ndetections = pd.read_parquet(\n    "
        f"{detections!r}\n)\n```\n\n```\nrefseg show {labels} --out pictures\nrefseg export {labels} --format coco "
        f"--out labels.json\nrefseg status {typed(store)}\n```"
    )
