"""The way to the Prefect UI: tables, text and pictures, small, and never at the cost of a run.

Each publishing makes a new version of the key's artifact and returns that version's id.
"""

import base64
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, cast
from uuid import UUID

from prefect import Task, task
from prefect.artifacts import Artifact, MarkdownArtifact, TableArtifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import Artifact as CreatedArtifact
from prefect.settings import PREFECT_API_URL

from refseg_core.errors import counted
from refseg_core.visualization import Picture, contact_sheet, to_small_jpeg
from tasks.outputs.prefect_ui.markdown import escaped
from tasks.storage.retry import reason

log = logging.getLogger(__name__)

P = ParamSpec("P")
Cell = str | int | float | None

# Prefect keeps artifacts in its database, a version for every run, and its pages load all of a run's at once.
MOST_BYTES = 200_000
_MOST_TABLE_BYTES = MOST_BYTES - 10_000  # the rest is the key's and the description's
_MOST_JPEG_BYTES = 140_000  # a third more as base64
PANEL_SIDE, _COLUMNS = 184, 3  # makes a sheet as wide as the UI shows pictures, 584 pixels, so that text stays sharp


def is_shown() -> bool:
    """Returns whether there is a lasting server whose UI shows what is published; a temporary one ends with its run."""
    return bool(PREFECT_API_URL.value())


_shown_on: ContextVar[UUID | None] = ContextVar("shown_on", default=None)


@contextmanager
def shown_on(flow_run_id: str | None) -> Iterator[None]:
    """Has everything that the block publishes, in flow runs below too, shown on the page of this flow run.

    What is published in a run below would else be on that one's page only, which nobody opens first.
    """
    token = _shown_on.set(None if flow_run_id is None else UUID(flow_run_id))
    try:
        yield
    finally:
        _shown_on.reset(token)


def page_of_artifacts() -> UUID | None:
    """Returns the flow run whose page shows what is published; None: that which publishes it."""
    return _shown_on.get()


def publishing_task(run_name: str) -> Callable[[Callable[P, None]], Task[P, None]]:
    """Returns a decorator for tasks that publish; one that fails is logged, and the run continues."""

    def as_task(publish: Callable[P, None]) -> Task[P, None]:
        @functools.wraps(publish)
        def publish_if_possible(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                publish(*args, **kwargs)
            except Exception as error:
                log.warning("%s: not shown in the Prefect UI: %s", run_name, reason(error))

        return task(task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)(publish_if_possible)

    return as_task


def publish_table(key: str, rows: Sequence[Mapping[str, Cell]], description: str, *, most_rows: int = 500) -> UUID:
    """Publishes a table that can be searched; the description says how many rows were too many and left out."""
    shown = fitting(rows[:most_rows])
    if len(shown) < len(rows):
        description += f" The first {len(shown):,} of {counted(len(rows), 'row')}."
    return _created(TableArtifact(key=key, table=[dict(row) for row in shown], description=description))


def publish_text(key: str, markdown: str, description: str) -> UUID:
    """Publishes a page of Markdown."""
    return _created(MarkdownArtifact(key=key, markdown=markdown, description=description))


def publish_sheet(key: str, panels: Sequence[Picture], heading: str, description: str) -> UUID:
    """Publishes a sheet of panels of `PANEL_SIDE` as one page, with the picture in it.

    An image artifact would show it too, but beneath a picture the UI writes its address, which here is its content.
    """
    tile_side = max((max(panel.shape[:2]) for panel in panels), default=PANEL_SIDE)
    sheet = contact_sheet(panels, _COLUMNS, heading=heading, tile_side=tile_side)
    content = base64.b64encode(to_small_jpeg(sheet, _MOST_JPEG_BYTES)).decode()
    return publish_text(key, f"![{escaped(heading)}](data:image/jpeg;base64,{content})", description)


def _created(artifact: Artifact) -> UUID:
    artifact.flow_run_id = page_of_artifacts()
    return cast(CreatedArtifact, artifact.create()).id  # a coroutine only where it is called from one


def fitting(rows: Sequence[Mapping[str, Cell]]) -> Sequence[Mapping[str, Cell]]:
    """Returns as many of the first rows as an artifact may hold."""
    size = 0
    for index, row in enumerate(rows):
        size += len(json.dumps(row)) + 2
        if size > _MOST_TABLE_BYTES:
            return rows[:index]
    return rows
