"""A program that forks processes which work on a store and die at a chosen moment, as a machine dies: by SIGKILL.

It imports everything once and then forks a process for each attempt, since a fork takes milliseconds where the imports
take seconds. It starts no thread and opens no connection, so what it forks is as good as a new process. The product
knows nothing of all this: functions of its are wrapped in the forked process.

    python -m tests.support.crashes.crashing
        reads attempts from its input: a line of json for those at one time
    python -m tests.support.crashes.crashing command SECONDS BEGUN run CONFIG
        is `refseg run CONFIG` with tiny models, which take so long for each image, and add a byte to the file BEGUN
        before it
"""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tasks.storage import folder, listing, objects

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Death:
    """When a process dies: before, half way through or after the nth time that it does something.

    `what` is a name of `_DOINGS`; only those count whose object's name matches `of`. With `seconds` it is killed from
    outside instead, that long after its start.
    """

    what: str = "create"
    of: str = ""
    nth: int = 1
    when: str = "after"
    seconds: float | None = None


@dataclass(frozen=True)
class Attempt:
    """Somebody's attempt to do `work`, a name of `_WORKS`, and what is special about it."""

    work: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    death: Death | None = None
    finds: str = "everything"  # or "less": the first instance of each image is lost, the others score lower
    order: int | None = None  # the seed of the order in which shards are labeled; None: as planned


class Outcome(NamedTuple):
    """How a process ended: its exit status, negative where a signal killed it, and its calls of the store."""

    status: int
    num_calls: int

    @property
    def is_killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Crashing:
    """The program, started and spoken to."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.crashes.crashing"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def attempt(self, *attempts: Attempt) -> list[Outcome]:
        """Makes the attempts at the same time. Whoever neither ends well nor is killed fails the test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(attempt) for attempt in attempts]).encode() + b"\n")
        self._process.stdin.flush()
        outcomes = [Outcome(*outcome) for outcome in json.loads(self._process.stdout.readline() or "[]")]
        if not outcomes or any(outcome.status not in (0, -signal.SIGKILL) for outcome in outcomes):
            raise AssertionError(f"{outcomes}:\n{self._log.read_text()[-6000:]}")
        return outcomes

    def close(self) -> None:
        """Ends the program."""
        self._process.kill()  # asked to end, it takes seconds
        self._process.communicate()


# --- the program -----------------------------------------------------------------------------------------------------


def _serve(requests: Iterable[str]) -> None:
    for line in requests:
        attempts = [Attempt(**{**asked, "death": _death(asked["death"])}) for asked in json.loads(line)]
        sys.stdout.write(json.dumps(_make(attempts)) + "\n")
        sys.stdout.flush()


def _death(asked: Mapping[str, Any] | None) -> Death | None:
    return None if asked is None else Death(**asked)


def _make(attempts: Sequence[Attempt]) -> list[Outcome]:
    """Forks a process for each attempt, has them start together, and waits for the ends of all."""
    for attempt in attempts:
        if attempt.work == "run":
            _build_models(**attempt.arguments)
    assert threading.active_count() == 1, "a process with threads cannot be forked"
    held, start = os.pipe()
    processes = [_fork(attempt, held, start) for attempt in attempts]
    os.close(held)
    os.close(start)  # nobody holds the start back any more
    began = time.monotonic()
    outcomes: dict[int, Outcome] = {}
    with selectors.DefaultSelector() as ends:
        for number, (_, reports) in enumerate(processes):
            ends.register(reports, selectors.EVENT_READ, number)
        while ends.get_map():
            for key, _ in ends.select(timeout=0.005):
                report = os.read(key.fd, 100)
                ends.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(processes[key.data][0], 0)
                outcomes[key.data] = Outcome(os.waitstatus_to_exitcode(status), int(report or 0))
            for number, (attempt, (pid, _)) in enumerate(zip(attempts, processes, strict=True)):
                lives_too_long = attempt.death and (attempt.death.seconds or 1e9) < time.monotonic() - began
                if lives_too_long and number not in outcomes:
                    os.kill(pid, signal.SIGKILL)
    return [outcomes[number] for number in range(len(attempts))]


def _fork(attempt: Attempt, held: int, start: int) -> tuple[int, int]:
    """The process and a pipe that closes when it ends, after the number of its calls if it ends well."""
    reports, report = os.pipe()
    pid = os.fork()
    if pid:
        os.close(report)
        return pid, reports
    status = 1
    try:
        os.close(start)
        os.dup2(2, 1)
        os.environ.update(attempt.environment)
        num_calls = _counted_calls()
        _prepare(attempt)
        os.read(held, 1)
        _WORKS[attempt.work](**attempt.arguments)
        os.write(report, str(next(num_calls)).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
    raise AssertionError("unreachable")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _counted_calls() -> Iterator[int]:
    calls, call = count(), folder.with_retries

    def counted(*args: Any, **options: Any) -> Any:
        next(calls)
        return call(*args, **options)

    _exchange_retries(counted)
    return calls


def _exchange_retries(with_retries: Callable[..., Any]) -> None:
    """Every call of the storage goes through it, wherever it was imported to."""
    for module in (folder, listing, objects):
        module.with_retries = with_retries  # type: ignore[attr-defined]


def _prepare(attempt: Attempt) -> None:
    """Wraps what the attempt does otherwise than an undisturbed one."""
    if attempt.finds == "less":
        _find_less()
    if attempt.order is not None:
        _shuffle_shards(attempt.order)
    if attempt.death and attempt.death.seconds is None:
        _arrange(attempt.death)


def _find_less() -> None:
    from refseg_core.labeling.image_labels import FoundInstances, ImageLabels

    labels = FoundInstances.labels

    def less(found: FoundInstances, image_id: str) -> ImageLabels:
        all_of_them = labels(found, image_id)
        detections = all_of_them.detections[1:]
        similarities = all_of_them.similarities.replace(similarity=all_of_them.similarities.similarity * 0.9)
        return all_of_them._replace(
            detections=detections.replace(score=detections.score * 0.9), similarities=similarities
        )

    FoundInstances.labels = less  # type: ignore[method-assign]


def _shuffle_shards(seed: int) -> None:
    from flows import pipeline

    plan_shards: Any = pipeline.plan_shards

    def shuffled(*args: Any, **options: Any) -> Any:
        plan = plan_shards(*args, **options)
        return replace(plan, pending=tuple(Random(seed).sample(plan.pending, len(plan.pending))))

    pipeline.plan_shards = shuffled  # type: ignore[assignment]


def _arrange(death: Death) -> None:
    """Has this process die."""
    owner, name = _doings()[death.what]
    action, times = getattr(owner, name), count(1)

    def dying(*args: Any, **options: Any) -> Any:
        named = next((value for value in args if isinstance(value, str)), "")
        if not re.search(death.of, named):
            return action(*args, **options)
        result = action(*args, **options) if death.when == "after" else None
        if next(times) == death.nth:
            if death.when == "half":
                _create_half(action, *args)
            _die()
        return result if death.when == "after" else action(*args, **options)

    if owner is folder and name == "with_retries":
        _exchange_retries(dying)
    else:
        setattr(owner, name, dying)


def _create_half(create: Callable[..., object], folder: object, name: str, data: bytes) -> None:
    """Dies after half of a local file was written, as long as it has not got its name."""
    os.fsync = lambda _: _die()
    create(folder, name, data[: len(data) // 2])


def _doings() -> dict[str, tuple[Any, str]]:
    """What a process may die of: where that function is looked up when it is called."""
    from refseg_core.labeling.batch_labeler import BatchLabeler

    return {
        "create": (folder.Folder, "create"),
        "link": (folder, "create_local"),  # as create, but only where nothing is there yet
        "name": (os, "link"),  # as whole local files get theirs
        "replace": (folder.Folder, "replace"),  # as pictures are put
        "delete": (folder.Folder, "delete"),
        "read": (folder.Folder, "read"),
        "call": (folder, "with_retries"),
        "label": (BatchLabeler, "encode"),  # of a batch, here of one image
        "write": (sys.modules[__name__], "_written"),
        "rename": (Path, "replace"),
        "download": (sys.modules[__name__], "_downloaded"),
    }


def _written(chunk: bytes) -> bytes:
    return chunk


def _downloaded(_done: int, _size: int) -> None:
    """Watches a download."""


# --- what processes do -----------------------------------------------------------------------------------------------


def _build_models(content: Mapping[str, Any]) -> None:
    """Builds them before the fork, at the first call: that takes longer than a run with them."""
    from flows.config.loading import parse_config
    from tasks.models.loading import load_encoder, load_segmenter

    config = parse_config(content, source="run.yaml")
    load_segmenter(config.segmenter, config.device)
    load_encoder(config.encoder, config.device)


def _run(content: Mapping[str, Any]) -> None:
    from flows import pipeline
    from flows.config.loading import parse_config

    pipeline.run_pipeline(parse_config(content, source="run.yaml"))


def _export(store: str, key: str, out: str, form: str) -> None:
    from tasks.outputs.exports import labels
    from tasks.store.label_store import open_labels
    from tasks.store.store import Store

    write_uri = labels.write_uri
    labels.write_uri = lambda uri, chunks: write_uri(uri, (_written(chunk) for chunk in chunks))
    write_folder = labels.write_folder
    labels.write_folder = lambda uri, files, *rest: write_folder(uri, (_passed(file) for file in files), *rest)
    run = open_labels(Store(store), key)
    labels.export_labels(run, out, form=form)


def _passed(file: Any) -> Any:
    """Passes a file of a folder on; that it is written counts as one write."""
    _written(b"")
    return file


def _collect(store: str, **options: Any) -> None:
    from tasks.store.garbage import find_garbage, remove
    from tasks.store.store import Store

    remove(Store(store), find_garbage(Store(store), **options))


def _pull(folder: str, model: str, **published: Any) -> None:
    from dataclasses import replace

    from refseg_core.models.registry import REGISTRY
    from tasks.models.download import pull_weights

    REGISTRY[model] = replace(REGISTRY[model], **published)
    pull_weights(model, folder=folder, progress=_downloaded)


_WORKS: dict[str, Callable[..., None]] = {"run": _run, "export": _export, "collect": _collect, "pull": _pull}


def _use_tiny_models() -> None:
    import torch

    from refseg_core.models.registry import REGISTRY
    from tests.support.models import TINY_DEMO

    torch.set_num_threads(1)
    REGISTRY.update(TINY_DEMO)


def _slow_down(seconds: float, begun: Path) -> None:
    from refseg_core.labeling.batch_labeler import BatchLabeler

    encode = BatchLabeler.encode

    def slow(labeler: BatchLabeler, frames: Any) -> Any:
        with begun.open("ab") as file:
            file.write(bytes(len(frames)))
        time.sleep(seconds * len(frames))
        return encode(labeler, frames)

    BatchLabeler.encode = slow  # type: ignore[method-assign]


def _main() -> None:
    _use_tiny_models()
    if sys.argv[1:2] == ["command"]:
        from flows.cli.program import main

        _slow_down(float(sys.argv[2]), Path(sys.argv[3]))
        del sys.argv[1:4]
        main()
        return
    for name in ("pandas", "s3fs", "tasks.store.garbage", "tasks.outputs.exports.labels", "tasks.models.download"):
        import_module(name)  # which would be imported later, by each process that is forked

    import pytest

    from tests.support.projects.without_prefect import call_without_prefect

    call_without_prefect(pytest.MonkeyPatch())  # for as long as this process lives
    _serve(sys.stdin)


if __name__ == "__main__":
    _main()
