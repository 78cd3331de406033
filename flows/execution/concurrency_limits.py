"""The Prefect server's concurrency limits on tags, kept by a run as a whole.

Prefect counts such slots for tasks; taken once for a group of shards they cost three requests and not two a shard. Its
own client gives up a server that does not answer its first request, which ended runs whose work was done.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from flows.execution.prefect_api import ServerGoneError, asking
from flows.execution.run_monitor import POLL_SECONDS, Patience

log = logging.getLogger(__name__)

_LIMITS_READ = 200
_LEASE_SECONDS = 90  # how long slots stay taken that nobody gave back


@contextmanager
def slots_of_tags() -> Iterator[None]:
    """Within the block a slot is held of each limit that the server has on a tag of this run, if a worker has it.

    A server that is gone is waited for before the block, and raises ServerGoneError after a quarter of an hour; after
    the block it is not: the slots come back by themselves when their lease ends.
    """
    if runtime.deployment.id is None:
        yield
        return
    held = _taken()
    try:
        yield
    finally:
        _give_back(held)


def _taken() -> ExitStack:
    patience = Patience(time.monotonic)
    while True:
        with patience.asking(), asking():
            return _take(_limited_tags())
        time.sleep(POLL_SECONDS)


def _limited_tags() -> list[str]:
    with get_client(sync_client=True) as client:
        limited = {limit.name for limit in client.read_global_concurrency_limits(limit=_LIMITS_READ)}
    return [name for tag in runtime.flow_run.tags if (name := f"tag:{tag}") in limited]


def _take(names: Sequence[str]) -> ExitStack:
    held = ExitStack()
    slots = concurrency(list(names), lease_duration=_LEASE_SECONDS, raise_on_lease_renewal_failure=False)
    try:
        held.enter_context(slots)
    except ConcurrencySlotAcquisitionError as error:
        raise (error.__cause__ or error) from None
    return held


def _give_back(held: ExitStack) -> None:
    try:
        with asking():
            held.close()
    except ServerGoneError as error:
        log.warning("The Prefect server does not answer (%s); slots come free in %d s.", error, _LEASE_SECONDS)
