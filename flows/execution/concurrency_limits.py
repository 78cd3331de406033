"""The Prefect server's concurrency limits on tags, held by a run as a whole.

Prefect takes such slots for each task; taken once for a group of shards they cost three requests instead of two per
shard. Its own client also fails if the first request is not answered, which failed runs whose work was done.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency

from flows.execution.prefect_api import ServerGoneError, server_call
from flows.execution.run_monitor import Outage, until_answered

log = logging.getLogger(__name__)

_LIMITS_READ = 200
_LEASE_SECONDS = 90  # after which the server frees slots that were not given back


@contextmanager
def holding_tag_slots() -> Iterator[None]:
    """Holds a slot of each limit that the server has on a tag of this run, if the run is a deployment's.

    Before the block an unreachable server is waited for, up to a quarter of an hour (ServerGoneError); after the block
    it is not, since the slots become free when their lease ends.
    """
    if runtime.deployment.id is None:
        yield
        return
    held = until_answered(_take_slots, Outage(time.monotonic), time.sleep)
    try:
        yield
    finally:
        try:
            with server_call():
                held.close()
        except ServerGoneError as error:
            log.warning("The Prefect server does not answer (%s); slots come free in %d s.", error, _LEASE_SECONDS)


@server_call()
def _take_slots() -> ExitStack:
    with get_client(sync_client=True) as client:
        limited = {limit.name for limit in client.read_global_concurrency_limits(limit=_LIMITS_READ)}
    names = [name for tag in runtime.flow_run.tags if (name := f"tag:{tag}") in limited]
    held = ExitStack()
    try:
        held.enter_context(concurrency(names, lease_duration=_LEASE_SECONDS, raise_on_lease_renewal_failure=False))
    except ConcurrencySlotAcquisitionError as error:
        raise (error.__cause__ or error) from None
    return held
