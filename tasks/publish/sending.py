"""The way to the Prefect UI: tables, text and pictures, small, and never at the cost of a run."""

import base64
import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

from prefect import Task, task
from prefect.artifacts import MarkdownArtifact, TableArtifact
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_API_URL

from refseg_core.pictures import Picture, to_small_jpeg
from tasks.faults import reason

log = logging.getLogger(__name__)

P = ParamSpec("P")
Cell = str | int | float | None

# Prefect keeps artifacts in its database, a version for every run, and its pages load all of a run's at once.
MOST_BYTES = 200_000
_MOST_TABLE_BYTES = MOST_BYTES - 10_000  # the rest is the key's and the description's
_MOST_JPEG_BYTES = 140_000  # a third more as base64


def is_shown() -> bool:
    """Whether there is a lasting server whose UI shows what is published; a temporary one ends with its run."""
    return bool(PREFECT_API_URL.value())


def publishing_task(run_name: str) -> Callable[[Callable[P, None]], Task[P, None]]:
    """A task that publishes. Where it cannot, the run's log says so and the run goes on: the store has everything."""

    def as_task(publish: Callable[P, None]) -> Task[P, None]:
        @functools.wraps(publish)
        def publish_if_possible(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                publish(*args, **kwargs)
            except Exception as error:
                log.warning("%s: not shown in the Prefect UI: %s", run_name, reason(error))

        return task(task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)(publish_if_possible)

    return as_task


def publish_table(key: str, rows: Sequence[Mapping[str, Cell]], description: str, *, most_rows: int = 500) -> None:
    """A table that people can search; rows that are too many are left out, and the description says how many."""
    shown = _fitting(rows[:most_rows])
    if len(shown) < len(rows):
        description += f" The first {len(shown):,} of {len(rows):,} rows."
    TableArtifact(key=key, table=[dict(row) for row in shown], description=description).create()


def publish_text(key: str, markdown: str, description: str) -> None:
    """A page of Markdown."""
    MarkdownArtifact(key=key, markdown=markdown, description=description).create()


def publish_picture(key: str, picture: Picture, description: str) -> None:
    """A picture, uint8 RGB [H, W, 3], that the browser needs nothing else to show.

    An image artifact would do the same, but beneath the picture the UI writes its address, which here is its content.
    """
    content = base64.b64encode(to_small_jpeg(picture, _MOST_JPEG_BYTES)).decode()
    publish_text(key, f"![{key}](data:image/jpeg;base64,{content})", description)


def _fitting(rows: Sequence[Mapping[str, Cell]]) -> Sequence[Mapping[str, Cell]]:
    """As many of the first rows as an artifact may hold."""
    size = 0
    for index, row in enumerate(rows):
        size += len(json.dumps(row)) + 2
        if size > _MOST_TABLE_BYTES:
            return rows[:index]
    return rows
