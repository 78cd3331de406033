"""Hands shards to GPU workers in groups, watches over them, and hands on what lost ones leave.

What is done is read from the store; Prefect only tells who is at work. So a worker that was given up and yet lives
does no harm: a shard is committed once, whoever labels it.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from flows.config.run_config import ExecutionConfig
from flows.execution.label_shards import group_name, shards_failed
from flows.execution.run_monitor import POLL_SECONDS, UNKNOWN, Patience, Sighting, Watch, Workers, cancelled_on_error
from tasks.runtime.progress import report
from tasks.specs import LabelJob
from tasks.store.label_store import LabelRun
from tasks.store.shard_plans import Shard

log = logging.getLogger(__name__)

_LONELY_SECONDS = 60.0  # without any worker, before that is said
_GONE_SECONDS = 15.0  # between two looks at the workers: the server did not answer, or late
_GROUPS_PER_WORKER = 2  # one that is worked on and one that waits
_SMALLEST_SHARE = 0.25  # of the time that a group should take: towards the end groups are smaller, down to this
_SUSPECTS = 2  # shards that a process works on at once: one of them may be what kills it


@dataclass
class _Group:
    """Shards that were handed out together."""

    name: str
    shards: tuple[Shard, ...]
    watch: Watch

    @property
    def num_images(self) -> int:
        return sum(len(shard) for shard in self.shards)


@dataclass
class Fleet:
    """Has the shards of one job labeled by workers."""

    job: LabelJob
    labels: LabelRun
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
    _num_handed_out: int = 0
    _num_done: int = 0  # images of groups that ended
    _num_reported: int = 0
    _num_online: int = 0
    _online_at: dict[str, float] = field(default_factory=dict)
    _noted_at: float = 0.0
    _lonely_since: float | None = None

    def label(self, shards: Sequence[Shard]) -> None:
        """Returns when all are labeled. Raises ShardsFailedError where some are not, whoever tried."""
        self._waiting.extend(shards)
        patience = Patience(self.now)
        with cancelled_on_error(lambda: self.workers.cancel(list(self._groups))):
            while self._waiting or self._groups:
                with patience.asking([group.watch for group in self._groups.values()]) as asked_at:
                    self._turn(asked_at)
                if self._waiting or self._groups:
                    self.pause(POLL_SECONDS)
        if self._reason_of:
            raise shards_failed(self._reason_of, len(shards))

    def _turn(self, asked_at: float) -> None:
        """One look at the server. Raises ServerGoneError where it is gone."""
        sightings = self.workers.look_at(list(self._groups)) if self._groups else {}
        self._note_workers(self.workers.online(), asked_at)
        self._note_absence()
        for run, group in list(self._groups.items()):
            self._watch(run, group, sightings.get(run, UNKNOWN), asked_at)
        self._report()
        self._hand_out()

    # Handing out.

    def _hand_out(self) -> None:
        while self._waiting and len(self._groups) < _GROUPS_PER_WORKER * max(1, self._num_online):
            shards = self._next_group()
            name = group_name(self.job, list(shards))
            run = self.workers.hand_out(name, self.job, shards, token=f"group {self._num_handed_out}")
            for _ in shards:
                self._waiting.popleft()
            self._num_handed_out += 1
            self._groups[run] = _Group(name, shards, Watch(self.settings, self.now()))

    def _next_group(self) -> tuple[Shard, ...]:
        wanted = self._images_per_group()
        shards: list[Shard] = []
        for shard in self._waiting:
            if shards and not self._suspected.isdisjoint((shard, shards[0])):
                break  # each goes alone, so that the next death tells which it was
            if shards and sum(len(other) for other in shards) + len(shard) > wanted:
                break
            shards.append(shard)
        return tuple(shards)

    def _images_per_group(self) -> float:
        """As many as one labels in the time that is asked for; fewer when the rest shared out is less.

        Nothing is known at first of how fast the workers are, so they get a shard each.
        """
        if self.seconds_per_image is None:
            return 1
        most = self.settings.minutes_per_group * 60 / max(self.seconds_per_image, 1e-6)
        share = sum(len(shard) for shard in self._waiting) / max(1, self._num_online)
        return max(min(most, share), _SMALLEST_SHARE * most)

    # Watching.

    def _watch(self, run: UUID, group: _Group, seen: Sighting, asked_at: float) -> None:
        group.watch.hear(seen, asked_at)
        if group.watch.is_lost(asked_at) and self.labels.pending(group.shards):  # else its end has yet to be told
            self.workers.give_up(run)
        if group.watch.has_ended:
            self._end(run, group)

    def _end(self, run: UUID, group: _Group) -> None:
        """Looks in the store for what is left of the group, which another one gets."""
        left = self.labels.pending(group.shards)
        del self._groups[run]
        self._num_done += group.num_images - sum(len(shard) for shard in left)
        self._learn_speed(group, left)
        if not left:
            return
        why = f"{group.name} {group.watch.told}"
        if group.watch.sighting.state == "CANCELLED":
            self._reason_of |= dict.fromkeys(left, why)
            return
        log.warning("%s; %d of its %d shards are left", why, len(left), len(group.shards))
        if group.watch.sighting.state == "FAILED":
            self._attempts.update(left)
        else:  # a shard, or its machine, killed the process: one of those that it was at
            self._attempts.update(left[:_SUSPECTS])
            self._suspected.update(left[:_SUSPECTS])
        for shard in left:
            if self._attempts[shard] >= self.settings.attempts:
                self._reason_of[shard] = why
            else:
                self._waiting.append(shard)

    def _learn_speed(self, group: _Group, left: Sequence[Shard]) -> None:
        num_images = group.num_images - sum(len(shard) for shard in left)
        if num_images and group.watch.sighting.seconds:
            self.seconds_per_image = group.watch.sighting.seconds / num_images

    # Telling.

    def _report(self) -> None:
        at_work = sum(group.num_images * group.watch.sighting.share_done for group in self._groups.values())
        num_done = max(self._num_reported, int(self._num_done + at_work))
        report("label", advanced=num_done - self._num_reported)
        self._num_reported = num_done

    def _note_workers(self, online: Sequence[str], asked_at: float) -> None:
        """Says who is not online any more: an idle worker has no group by which its death would show."""
        if asked_at - self._noted_at > _GONE_SECONDS:  # the server was gone; after that workers come back one by one
            self._online_at.clear()
        self._num_online, self._noted_at = len(online), asked_at
        self._online_at |= dict.fromkeys(online, asked_at)
        for worker, seen_at in list(self._online_at.items()):
            if asked_at - seen_at > self.settings.lost_after_seconds:
                log.warning("The worker %s is not online any more; the others go on.", worker)
                self.workers.tell_lost(worker)
                del self._online_at[worker]

    def _note_absence(self) -> None:
        if self._num_online:
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = self.now()
        elif self.now() - self._lonely_since > _LONELY_SECONDS:
            log.warning("No worker takes runs of the GPU pool. Start one: refseg service worker")
            self._lonely_since = float("inf")  # said once
