"""How far a run is, shown in the Prefect UI while it works; that it is updated shows others that it still works."""

import contextvars
import logging
import threading
import time
from typing import Any, Self
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.utilities.context import get_task_and_flow_run_ids

from tasks.outputs.prefect_ui.keys import artifact_name, slug
from tasks.outputs.prefect_ui.markdown import escaped
from tasks.outputs.prefect_ui.publishing import page_of_artifacts
from tasks.outputs.prefect_ui.throughput import Pace
from tasks.runtime.progress import Progress, ProgressStep, listening
from tasks.storage.retry import reason

log = logging.getLogger(__name__)

_SECONDS = 5.0
_REQUEST_SECONDS = 10.0  # the longest that a request may take
_GOODBYE_SECONDS = 3.0  # and the longest that the end of the block waits for the last one


def progress_key(store_uri: str, worker: str | None = None) -> str:
    """Returns the key of the progress of a store's runs, or of that of one worker in them."""
    key = f"{artifact_name(store_uri)}-progress"
    return key if worker is None else f"{key}-{slug(worker) or 'worker'}"


class ProgressArtifact:
    """An artifact that shows how far a flow run is while the block runs, which has to be within the run.

    It counts what this process reports of `step`, and is updated every few seconds even without a report, so that a
    recent `updated` is a sign of life. Requests are made in a thread of their own: a server that does not answer costs
    the block at most three seconds, at its end.
    """

    def __init__(
        self,
        store_uri: str,
        worker: str | None = None,
        *,
        total: int | None = None,
        step: ProgressStep = ProgressStep.LABEL,
        seconds: float = _SECONDS,
    ) -> None:
        self.key = progress_key(store_uri, worker)
        self._whose = "" if worker is None else f"{escaped(worker)}: "
        self._step, self._seconds = step, seconds
        self._pace = Pace(time.monotonic(), total)
        self._done = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._listening = listening(self._hear)
        self._sender = _Sender(self.key)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # The thread belongs to the flow run that the block is in, and to the server that this talks to.
        work = contextvars.copy_context().run
        self._thread = threading.Thread(target=work, args=(self._send_until_ended,), name=self.key, daemon=True)
        self._thread.start()
        self._listening.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._listening.__exit__(*raised)
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_GOODBYE_SECONDS)

    def _hear(self, heard: Progress) -> None:
        if heard.step == self._step:
            with self._lock:
                self._done += heard.advanced
                if heard.total is not None:
                    self._pace.total = self._done + heard.total

    def _send_until_ended(self) -> None:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # the next update is the retry
            while not self._ended.is_set():
                self._sender.send(*self._now(is_end=False))
                self._ended.wait(self._seconds)
            self._sender.send(*self._now(is_end=True))
            self._sender.close()

    def _now(self, *, is_end: bool) -> tuple[float, str]:
        now = time.monotonic()
        with self._lock:
            self._pace.mark(now, self._done)
            describe = self._pace.describe_end if is_end else self._pace.describe
            return self._pace.percentage, f"{self._whose}{describe(now, self._step.unit)}"


class _Sender:
    """Creates the artifact at the first sending and changes it at the others. What fails is only logged, once."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._client: SyncPrefectClient | None = None
        self._id: UUID | None = None
        self._has_warned = False

    def send(self, percentage: float, description: str) -> None:
        """Shows it."""
        try:
            if self._client is None:
                self._client = get_client(sync_client=True, httpx_settings={"timeout": _REQUEST_SECONDS})
                self._client.__enter__()
            if self._id is None:
                self._id = self._create(self._client, percentage, description)
                return
            changes = {"data": percentage, "description": description}
            # Not client.update_artifact: that also leaves an event for each, which the server keeps for a week.
            self._client.request("PATCH", "/artifacts/{id}", path_params={"id": self._id}, json=changes)
        except Exception as error:
            if not self._has_warned:
                log.warning("progress is not shown in the Prefect UI for now: %s", reason(error))
            self._has_warned = True

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.__exit__(None, None, None)

    def _create(self, client: SyncPrefectClient, percentage: float, description: str) -> UUID:
        task_run_id, flow_run_id = get_task_and_flow_run_ids()
        artifact = ArtifactCreate(
            type="progress",
            key=self._key,
            data=percentage,
            description=description,
            flow_run_id=page_of_artifacts() or flow_run_id,
            task_run_id=task_run_id,
        )
        return client.create_artifact(artifact).id
