"""A store of 100,000 instances is reviewed as quickly as a small one: each answer takes less than 100 ms.

The time that is held is that of the processor, for asking and answering together, so that other work of the machine
does not count. The time of the clock is counted, too.
"""

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from flows.review.guard import TOKEN_HEADER
from flows.review.opening import OpenReview, open_review
from refseg_core.analysis.label_filter import ScoreThresholds
from refseg_core.masks.rle import Rle, encode_masks, rle_boxes
from refseg_core.tables import Detections, LabeledImages
from tasks.store.label_store import StoredLabels
from tests.support.counts import count
from tests.support.projects.project import write_project
from tests.support.projects.steps import Steps

pytest_plugins = ["tests.support.projects.tiny_project"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_NUM_IMAGES, _EACH = 500, 200
_SIZE = (480, 640)
_MOST_SECONDS = 0.1
_REPEATS = 25


def _masks() -> list[Rle]:
    """Ellipses all over an image, with run lengths of some hundred characters."""
    y, x = np.mgrid[: _SIZE[0], : _SIZE[1]]
    generator = np.random.default_rng(0)
    drawn = generator.uniform((20, 20, 8, 8), (620, 460, 90, 70), (_EACH, 4))
    return [encode_masks((((x - a) / w) ** 2 + ((y - b) / h) ** 2 < 1)[None])[0] for a, b, w, h in drawn]


def _label(steps: Steps) -> StoredLabels:
    plan = steps.plan(steps.prototypes())
    run, masks, generator = StoredLabels(steps.store, plan.key), _masks(), np.random.default_rng(1)
    boxes = rle_boxes(masks)
    for shard in plan.pending:
        images = run.plans.images_of(shard)
        number = len(images) * _EACH
        scores = np.sort(generator.beta(2, 3, (len(images), _EACH)))[:, ::-1].ravel()
        detections = Detections(
            image_id=np.repeat(images.image_id, _EACH),
            category_id=generator.choice([3, 8], number),
            score=scores,
            predicted_iou=np.full(number, 0.9),
            box_xyxy=np.tile(boxes, (len(images), 1)),
            mask_rle=np.array([*masks, None], dtype=object)[np.tile(np.arange(_EACH), len(images))],
        )
        nothing = {"status": "ok", "error": None, "num_prompts": 16, "max_similarity": 0.75, "seconds": 0.5}
        sizes = {"height": _SIZE[0], "width": _SIZE[1], "num_proposals": 999, "num_detections": _EACH}
        labeled = [
            LabeledImages.row(image_id=one, version=version, **sizes, **nothing)
            for one, version in zip(images.image_id, images.version, strict=True)
        ]
        run.commit(shard, detections, LabeledImages.concatenate(labeled))
    return run


@pytest.fixture
def opened(tmp_path: Path, tiny_weights: Path, tiny_models: None) -> Iterator[OpenReview]:
    project = write_project(tmp_path, tiny_weights, num_targets=_NUM_IMAGES)
    project.content["batches"]["images_per_shard"] = 64
    run = _label(Steps(project))
    started = time.perf_counter()
    opened = open_review(run, ScoreThresholds(0.5), token="a token")
    count(f"review: seconds to open {_NUM_IMAGES * _EACH} instances", round(time.perf_counter() - started))
    thread = Thread(target=opened.serve)
    thread.start()
    yield opened
    opened.server.should_exit = True
    thread.join()


class _Seconds(NamedTuple):
    """The medians over some calls, each about another instance; `longest` is that of the clock."""

    of_processor: float
    of_clock: float
    longest: float


def _seconds(ask: Callable[[int], httpx.Response]) -> _Seconds:
    times = []
    for number in range(_REPEATS):
        started = time.process_time(), time.perf_counter()
        answer = ask(number)
        times.append((time.process_time() - started[0], time.perf_counter() - started[1]))
        assert answer.status_code == 200, answer.text
    of_processor, of_clock = zip(*times, strict=True)
    return _Seconds(statistics.median(of_processor), statistics.median(of_clock), max(of_clock))


def test_every_answer_takes_less_than_a_tenth_of_a_second(opened: OpenReview) -> None:
    address = opened.link.partition("/?")[0]
    index, order = opened.session.index, opened.session.ranking.order
    assert len(index) == _NUM_IMAGES * _EACH
    with httpx.Client(base_url=address, headers={TOKEN_HEADER: "a token"}, timeout=60) as browser:
        identities = [index.instances.identity[row] for row in order[: 4 * _REPEATS].tolist()]

        def decide(number: int) -> httpx.Response:
            sent: dict[str, Any] = {"decision_id": uuid.uuid4().hex, "reviewer": "Anna", "verdict": "accept"}
            return browser.post("/api/decisions", json=sent | {"instance": identities[number]})

        asked: dict[str, Callable[[int], httpx.Response]] = {
            "store": lambda _: browser.get("/api/store"),
            "queue": lambda number: browser.get("/api/queue", params={"start": 16 * number}),
            "queue, filtered": lambda number: browser.get("/api/queue", params={"image": f"t{number}", "category": 3}),
            "instance": lambda number: browser.get(f"/api/instances/{identities[number]}"),
            "decision": decide,
            "heard": lambda number: browser.post("/api/heard", json={"client": "x", "version": number}),
            "image": lambda number: browser.get(f"/pictures/images/{number}"),
            "crop": lambda number: browser.get(f"/pictures/instances/{identities[number + _REPEATS]}"),
        }
        seconds = {name: _seconds(ask) for name, ask in asked.items()}
    for name, one in seconds.items():
        count(f"review of {len(index)} instances: median ms of {name!r}, processor", round(1000 * one.of_processor))
        count(f"review of {len(index)} instances: median ms of {name!r}, clock", round(1000 * one.of_clock))
        count(f"review of {len(index)} instances: longest ms of {name!r}, clock", round(1000 * one.longest))
    assert {name: one for name, one in seconds.items() if one.of_processor > _MOST_SECONDS} == {}
