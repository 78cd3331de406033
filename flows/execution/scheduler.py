"""Submits shards to GPU workers in groups, watches the runs, and resubmits the shards that lost workers leave.

Finished shards are read from the store; Prefect only knows which runs are active. So a worker that was taken for lost
does no harm: a shard is committed once, whichever worker labels it.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from flows.config.run_config import ExecutionConfig
from flows.errors import ShardsFailedError
from flows.execution.names import group_name
from flows.execution.run_monitor import POLL_SECONDS, UNKNOWN, Outage, RunStatus, RunWatch, Workers, cancelled_on_error
from refseg_core.errors import counted
from tasks.runtime.progress import ProgressStep, report
from tasks.specs import LabelJob
from tasks.store.label_store import StoredLabels
from tasks.store.shard_plans import Shard

log = logging.getLogger(__name__)

_NO_WORKER_SECONDS = 60.0  # without any worker, before the warning
_GONE_SECONDS = 15.0  # between two lists of workers: the server did not answer, or late
_GROUPS_PER_WORKER = 2  # one is worked on, one waits
_SMALLEST_SHARE = 0.25  # of the time that a group should take: groups get smaller towards the end, down to this
_SUSPECTS = 2  # shards that a process works on at once, one of which may have killed it


@dataclass
class _Group:
    """Shards of one run."""

    name: str
    shards: tuple[Shard, ...]
    watch: RunWatch

    @property
    def num_images(self) -> int:
        return sum(len(shard) for shard in self.shards)


@dataclass
class Scheduler:
    """Labels the shards of one job on workers."""

    job: LabelJob
    labels: StoredLabels
    workers: Workers
    settings: ExecutionConfig
    seconds_per_image: float | None = None
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    _waiting: deque[Shard] = field(default_factory=deque)
    _groups: dict[UUID, _Group] = field(default_factory=dict)
    _reason_of: dict[Shard, str] = field(default_factory=dict)
    _attempts: Counter[Shard] = field(default_factory=Counter)
    _suspected: set[Shard] = field(default_factory=set)
    _num_submitted: int = 0
    _num_done: int = 0  # images of groups that ended
    _num_reported: int = 0
    _num_online: int = 0
    _online_at: dict[str, float] = field(default_factory=dict)
    _listed_at: float = 0.0
    _no_worker_since: float | None = None

    def label(self, shards: Sequence[Shard]) -> None:
        """Waits until all shards are labeled. Raises ShardsFailedError if some could not be."""
        self._waiting.extend(shards)
        outage = Outage(self.now)
        with cancelled_on_error(lambda: self.workers.cancel(list(self._groups))):
            while self._waiting or self._groups:
                with outage.tolerated([group.watch for group in self._groups.values()]) as called_at:
                    self._poll(called_at)
                if self._waiting or self._groups:
                    self.pause(POLL_SECONDS)
        if self._reason_of:
            raise ShardsFailedError.of({shard.name: why for shard, why in self._reason_of.items()}, len(shards))

    def _poll(self, now: float) -> None:
        """One round of calls to the server. Raises ServerGoneError if it does not answer."""
        statuses = self.workers.read_statuses(list(self._groups)) if self._groups else {}
        self._update_workers(self.workers.online_workers(), now)
        self._warn_without_workers()
        for run, group in list(self._groups.items()):
            self._watch(run, group, statuses.get(run, UNKNOWN), now)
        self._report()
        self._submit()

    # Submitting.

    def _submit(self) -> None:
        while self._waiting and len(self._groups) < _GROUPS_PER_WORKER * max(1, self._num_online):
            shards = self._next_group()
            name = group_name(self.job.images, [shard.name for shard in shards])
            run = self.workers.submit(name, self.job, shards, token=f"group {self._num_submitted}")
            for _ in shards:
                self._waiting.popleft()
            self._num_submitted += 1
            self._groups[run] = _Group(name, shards, RunWatch(self.settings, self.now()))

    def _next_group(self) -> tuple[Shard, ...]:
        wanted = self._images_per_group()
        shards: list[Shard] = []
        for shard in self._waiting:
            if shards and not self._suspected.isdisjoint((shard, shards[0])):
                break  # each runs alone, so that the next crash identifies it
            if shards and sum(len(other) for other in shards) + len(shard) > wanted:
                break
            shards.append(shard)
        return tuple(shards)

    def _images_per_group(self) -> float:
        """As many as a worker labels in the configured time; fewer if an equal share of the rest is less.

        As long as the workers' speed is not known, each gets one shard.
        """
        if self.seconds_per_image is None:
            return 1
        most = self.settings.minutes_per_group * 60 / max(self.seconds_per_image, 1e-6)
        share = sum(len(shard) for shard in self._waiting) / max(1, self._num_online)
        return max(min(most, share), _SMALLEST_SHARE * most)

    # Watching.

    def _watch(self, run: UUID, group: _Group, status: RunStatus, now: float) -> None:
        group.watch.update(status, now)
        if group.watch.is_lost(now) and self.labels.pending(group.shards):  # else it is done and not yet reported
            self.workers.mark_crashed(run)
        if group.watch.has_ended:
            self._end(run, group)

    def _end(self, run: UUID, group: _Group) -> None:
        """Queues the shards of a group that the store does not have yet."""
        left = self.labels.pending(group.shards)
        del self._groups[run]
        num_labeled = group.num_images - sum(len(shard) for shard in left)
        self._num_done += num_labeled
        if num_labeled and group.watch.status.seconds:
            self.seconds_per_image = group.watch.status.seconds / num_labeled
        if not left:
            return
        why = f"{group.name} {group.watch.outcome}"
        if group.watch.status.state == "CANCELLED":
            self._reason_of |= dict.fromkeys(left, why)
            return
        log.warning("%s; left of %s: %d", why, counted(len(group.shards), "shard"), len(left))
        if group.watch.status.state == "FAILED":
            self._attempts.update(left)
        else:  # a shard, or its machine, killed the process: one of those it worked on
            self._attempts.update(left[:_SUSPECTS])
            self._suspected.update(left[:_SUSPECTS])
        for shard in left:
            if self._attempts[shard] >= self.settings.attempts:
                self._reason_of[shard] = why
            else:
                self._waiting.append(shard)

    # Reporting.

    def _report(self) -> None:
        at_work = sum(group.num_images * group.watch.status.share_done for group in self._groups.values())
        num_done = max(self._num_reported, int(self._num_done + at_work))
        report(ProgressStep.LABEL, advanced=num_done - self._num_reported)
        self._num_reported = num_done

    def _update_workers(self, online: Sequence[str], now: float) -> None:
        """Announces workers that went offline: an idle one has no group that would show it."""
        if now - self._listed_at > _GONE_SECONDS:  # the server was gone; workers then reconnect one by one
            self._online_at.clear()
        self._num_online, self._listed_at = len(online), now
        self._online_at |= dict.fromkeys(online, now)
        for worker, seen_at in list(self._online_at.items()):
            if now - seen_at > self.settings.lost_after_seconds:
                log.warning("Worker %s is offline; the others continue.", worker)
                self.workers.announce_lost(worker)
                del self._online_at[worker]

    def _warn_without_workers(self) -> None:
        if self._num_online:
            self._no_worker_since = None
        elif self._no_worker_since is None:
            self._no_worker_since = self.now()
        elif self.now() - self._no_worker_since > _NO_WORKER_SECONDS:
            log.warning("No worker of the GPU pool is online. Start one: refseg service worker")
            self._no_worker_since = float("inf")  # warn once
