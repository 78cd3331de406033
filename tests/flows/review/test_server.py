"""The server answers those who have the token, from this machine and from its own page, and only with what is shown."""

import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest

from flows.review.guard import TOKEN_HEADER
from flows.review.opening import OpenReview, open_review
from flows.review.queue import QueueFilter, ReviewQueue
from flows.review.session import ReviewSession
from refseg_core.analysis.label_filter import ScoreThresholds
from refseg_core.errors import ConfigurationError
from refseg_core.references.segmentation import PromptedImage
from tasks.specs import Models, ModelSettings
from tasks.store.label_store import StoredLabels
from tasks.store.reviews import StoredReview
from tasks.store.shard_plans import Shard
from tests.support.projects.reviewable import FOUND, SIZE, Reviewable, without_images

pytest_plugins = ["tests.support.projects.reviewable_project"]
pytestmark = pytest.mark.slow  # together: each has a server of its own

_TOKEN = "a token"
_JSON = {"content-type": "application/json"}


@contextmanager
def _served(reviewable: Reviewable, models: Models | None) -> Iterator[OpenReview]:
    opened = open_review(reviewable.run, ScoreThresholds(0.5), models=models, token=_TOKEN)
    thread = Thread(target=opened.serve)
    thread.start()
    try:
        yield opened
    finally:
        opened.server.should_exit = True
        thread.join()


def _address(opened: OpenReview) -> str:
    return opened.link.partition("/?")[0]


def _stranger(opened: OpenReview, **headers: str) -> httpx.Client:
    """A browser without the token, or a program with these headers."""
    return httpx.Client(base_url=_address(opened), headers=headers, timeout=60)


@pytest.fixture
def opened(reviewable: Reviewable) -> Iterator[OpenReview]:
    with _served(reviewable, reviewable.steps.config.models) as opened:
        yield opened


@pytest.fixture
def browser(opened: OpenReview) -> Iterator[httpx.Client]:
    """A browser in which the link was opened; what it sends comes from the page."""
    with _stranger(opened, origin=_address(opened)) as browser:
        assert browser.get("/", params={"token": _TOKEN}, follow_redirects=True).status_code == 200
        yield browser


@pytest.fixture
def stranger(opened: OpenReview) -> Iterator[httpx.Client]:
    """A browser in which the link was not opened."""
    with _stranger(opened) as stranger:
        yield stranger


def _identity(opened: OpenReview, row: int) -> str:
    return opened.session.index.instances.identity[row]


def _cookie(opened: OpenReview) -> str:
    return f"refseg_review_{opened.listening.getsockname()[1]}=another"


def _decide(browser: httpx.Client, **given: Any) -> dict[str, Any]:
    sent = {"decision_id": uuid.uuid4().hex, "reviewer": "Anna"} | given
    answer = browser.post("/api/decisions", json=sent)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def test_answers_are_sent_at_once(opened: OpenReview) -> None:
    """By its protocol asyncio knows a socket of which it shall not wait to fill packets: 40 ms for each answer."""
    assert opened.listening.proto == socket.IPPROTO_TCP


# --- who may ask ----------------------------------------------------------------------------------------------------


def test_the_link_keeps_the_token_out_of_the_address(stranger: httpx.Client) -> None:
    answer = stranger.get("/", params={"token": _TOKEN}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/review.js", "/api/store", "/api/queue", "/pictures/images/0", "/nothing"]
)
def test_without_the_token_nothing_is_answered(opened: OpenReview, stranger: httpx.Client, path: str) -> None:
    for answer in (stranger.get(path), stranger.get(path, params={"token": "another"})):
        assert answer.status_code == 401
        assert "Open the link" in answer.text
    assert stranger.get(path, headers={TOKEN_HEADER: "another"}).status_code == 401
    assert stranger.get(path, headers={"cookie": _cookie(opened)}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8100", "127.0.0.1.evil.example", "localhost:evil", ""])
def test_other_names_of_this_machine_are_refused_with_the_token_too(browser: httpx.Client, host: str) -> None:
    assert browser.get("/api/store", headers={"host": host, TOKEN_HEADER: _TOKEN}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8100", "localhost:9000", "[::1]:8100", "localhost"])
def test_this_machine_may_have_any_of_its_names_and_ports(stranger: httpx.Client, host: str) -> None:
    assert stranger.get("/api/store", headers={"host": host, TOKEN_HEADER: _TOKEN}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9", "null", "http://localhost", "http://[::1", None]
)
def test_what_other_pages_send_is_refused_and_changes_nothing(
    browser: httpx.Client, opened: OpenReview, origin: str | None
) -> None:
    sent = {"decision_id": "0" * 32, "reviewer": "x", "verdict": "accept", "instance": _identity(opened, 0)}
    with _stranger(opened) as another:
        another.cookies = browser.cookies
        headers = {} if origin is None else {"origin": origin}
        assert another.post("/api/decisions", json=sent, headers=headers).status_code == 403
    assert opened.session.version == 0
    with _stranger(opened, **{TOKEN_HEADER: _TOKEN}) as program:
        assert program.post("/api/decisions", json=sent).status_code == 200


def test_the_page_runs_no_scripts_but_its_own_and_fits_into_no_other(browser: httpx.Client) -> None:
    answer = browser.get("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert "<script>" not in answer.text and "onclick" not in answer.text and "style=" not in answer.text
    assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")  # it loads nothing from elsewhere


def test_the_server_listens_on_this_machine_only(opened: OpenReview) -> None:
    assert opened.listening.getsockname()[0] == "127.0.0.1"
    assert opened.link.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_named(opened: OpenReview, reviewable: Reviewable) -> None:
    port = opened.listening.getsockname()[1]
    with pytest.raises(ConfigurationError, match=f"--port {port} cannot be used"):
        open_review(reviewable.run, ScoreThresholds(0.5), port=port)


# --- what is answered -----------------------------------------------------------------------------------------------


def test_the_queue_is_the_ranking_without_what_is_decided(browser: httpx.Client, opened: OpenReview) -> None:
    whole = browser.get("/api/queue", params={"limit": 100, "near": False}).json()
    order = [_identity(opened, row) for row in opened.session.ranking.order.tolist()]
    assert [card["id"] for card in whole["cards"]] == order
    assert (whole["num_all"], whole["num_open"]) == (35, 35)
    _decide(browser, verdict="accept", instance=order[0])
    rest = browser.get("/api/queue", params={"limit": 2, "near": False}).json()
    assert ([card["id"] for card in rest["cards"]], rest["num_open"]) == (order[1:3], 34)
    next_part = browser.get("/api/queue", params={"limit": 2, "near": False, "start": rest["cards"][-1]["place"] + 1})
    assert [card["id"] for card in next_part.json()["cards"]] == order[3:5]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ({}, 30),
        ({"near": False}, 35),
        ({"category": 3}, 15),
        ({"category": [3, 8]}, 30),
        ({"min_score": 0.6}, 10),
        ({"max_score": 0.5, "near": False}, 15),
        ({"image": "T1.PNG"}, 6),
        ({"image": "nothing"}, 0),
        ({"state": "decided"}, 30),
        ({"reason": "threshold", "near": False}, 5),
        ({"reason": "size", "near": False}, 10),
        ({"reason": "audit"}, 20),
    ],
)
def test_the_queue_is_filtered(browser: httpx.Client, wanted: dict[str, Any], number: int) -> None:
    answer = browser.get("/api/queue", params={"limit": 100, **wanted}).json()
    assert answer["num_all"] == number
    assert len(answer["cards"]) == (0 if wanted.get("state") == "decided" else number)


def test_what_somebody_looks_at_is_not_offered_to_others_for_a_while(reviewable: Reviewable) -> None:
    now = [0.0]
    session = ReviewSession(reviewable.index(), StoredReview.open(reviewable.run))
    queue = ReviewQueue(session, clock=lambda: now[0])
    first = int(session.ranking.order[0])
    queue.hold("Bob", first)

    def offered(client: str) -> int:
        return queue.part(QueueFilter(), start=0, limit=1, client=client).rows[0][0]

    assert offered("Bob") == first
    assert offered("Anna") != first
    assert queue.held_by_others("Anna") == {first: "Bob"}
    queue.hold("Bob", None)
    queue.hold("Bob · page 1", first)
    assert offered("Anna · page 3") != first
    assert offered("Bob · page 2") == first, "Bob opened the page again"
    now[0] = 30.0
    assert offered("Anna") == first


def test_an_instance_comes_with_its_image_and_what_lies_around_it(browser: httpx.Client, opened: OpenReview) -> None:
    found = browser.get(f"/api/instances/{_identity(opened, 0)}").json()
    assert (found["size"], found["score"], found["category"]) == ([128, 96], 0.81, 3)
    shown = {one["id"]: one for one in found["instances"]}
    assert shown[found["id"]]["path"] == "M12 14h40v40h-40z"
    assert len(shown) == len([score for _, score, _ in FOUND if score >= 0.5])
    whole = browser.get("/api/images/0", params={"whole": True}).json()
    assert len(whole["instances"]) == len(FOUND)
    (reference, *_) = browser.get("/api/references/3").json()
    assert browser.get(f"/pictures/references/{reference['row']}").headers["content-type"] == "image/jpeg"


def test_references_are_told_by_how_much_an_instance_looks_like_them(browser: httpx.Client, opened: OpenReview) -> None:
    for row, category in ((0, 3), (1, 8)):  # the objects themselves
        first, *others = browser.get(f"/api/likeness/{_identity(opened, row)}").json()
        assert opened.session.index.references.category_id[first["row"]] == category
        assert all(first["similarity"] > other["similarity"] for other in others)
        assert -1 <= first["similarity"] <= 1
    assert len(others) == len(opened.session.index.references) - 1


def test_an_object_is_drawn_added_and_taken_back(browser: httpx.Client, opened: OpenReview) -> None:
    assert browser.post("/api/masks", json={"image": 0}).status_code == 200
    asked = browser.post("/api/masks", json={"image": 0, "box": [60, 10, 110, 90]}).json()
    assert asked["path"].startswith("M")
    assert browser.post("/api/masks", json={"image": 0, "points": [[80, 40]]}).status_code == 200
    added = _decide(browser, verdict="add", mask=asked["mask"], category=8)
    (identity,) = added["changed"]
    assert added["changed"][identity]["verdict"] == "add"
    paths = [one["path"] for one in browser.get("/api/images/0").json()["instances"]]
    assert asked["path"] in paths
    found = browser.get(f"/api/instances/{identity}").json()
    assert (found["category"], found["image"], found["score"], found["size"]) == (8, 0, None, [128, 96])
    undone = browser.post("/api/undo", json={"decision_id": "1" * 32, "reviewer": "Anna"}).json()
    assert undone["changed"][identity]["verdict"] is None
    assert asked["path"] not in [one["path"] for one in browser.get("/api/images/0").json()["instances"]]


def test_a_mask_of_another_image_is_refused(browser: httpx.Client, opened: OpenReview) -> None:
    asked = browser.post("/api/masks", json={"image": 1, "box": [60, 10, 110, 90]}).json()
    sent = {"decision_id": "0" * 32, "reviewer": "x", "verdict": "mask", "instance": _identity(opened, 0)}
    answer = browser.post("/api/decisions", json=sent | {"mask": asked["mask"]})
    assert (answer.status_code, "of another image" in answer.json()["error"]) == (400, True)
    assert opened.session.version == 0


@pytest.mark.parametrize(
    ("box", "status"), [([500, 10, 600, 90], 400), ([10, 10, 10, 90], 400), ([-1e300, -1e300, 1e300, 1e300], 422)]
)
def test_a_box_that_holds_nothing_of_the_image_is_refused(browser: httpx.Client, box: list[float], status: int) -> None:
    answer = browser.post("/api/masks", json={"image": 0, "box": box})
    assert (answer.status_code, "box" in answer.text) == (status, True)


def test_an_empty_mask_is_refused(browser: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = np.zeros(SIZE, dtype=bool), 0.5
    monkeypatch.setattr(PromptedImage, "in_box", lambda *_: nothing)
    answer = browser.post("/api/masks", json={"image": 0, "box": [60, 10, 110, 90]})
    assert (answer.status_code, "Nothing is found there" in answer.json()["error"]) == (400, True)


def test_without_weights_drawing_says_what_to_do_and_everything_else_goes_on(reviewable: Reviewable) -> None:
    nowhere = ModelSettings(model="sam2_demo", weights=str(Path(reviewable.steps.store.uri) / "nowhere.pt"))
    absent = Models(segmenter=nowhere, encoder=reviewable.steps.config.encoder, device="cpu")
    for models, message in ((absent, "nowhere.pt"), (None, "Start `refseg review` with the run's file")):
        with _served(reviewable, models) as opened, _stranger(opened, **{TOKEN_HEADER: _TOKEN}) as browser:
            answer = browser.post("/api/masks", json={"image": 0, "points": [[8, 8]]})
            assert (answer.status_code, message in answer.json()["error"]) == (400, True)
            _decide(browser, verdict="accept", instance=_identity(opened, 0))


def test_others_hear_of_decisions_and_names_stay_what_they_are(browser: httpx.Client, opened: OpenReview) -> None:
    name = "<img src=x onerror=alert(1)>"
    _decide(browser, verdict="accept", instance=_identity(opened, 0), reviewer=f"  {name}\n")
    heard = browser.post("/api/heard", json={"client": "Bob", "version": 0})
    assert heard.json()["changed"][_identity(opened, 0)]["by"] == name
    assert heard.headers["content-type"] == "application/json"
    assert heard.json()["reviewers"] == {name: 1}
    again = browser.post("/api/heard", json={"client": "Bob", "version": heard.json()["version"]})
    assert again.json()["changed"] == {}


@pytest.mark.parametrize(
    "path",
    [
        "/api/instances/0",
        "/api/images/99",
        "/api/images/-1",
        "/pictures/images/99",
        "/pictures/instances/0",
        "/pictures/references/99",
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(browser: httpx.Client, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("There is no")


def test_an_image_that_is_gone_is_told_and_can_still_be_decided_on(
    browser: httpx.Client, opened: OpenReview, reviewable: Reviewable
) -> None:
    with without_images(reviewable):
        answer = browser.get("/pictures/images/0")
        _decide(browser, verdict="reject", instance=_identity(opened, 0))
    assert (answer.status_code, "t0.png" in answer.json()["error"]) == (400, True)


def test_what_is_decided_when_the_store_is_gone_is_told_and_can_be_decided_when_it_is_back(
    browser: httpx.Client, opened: OpenReview, reviewable: Reviewable
) -> None:
    store = Path(reviewable.steps.store.uri)
    sent = {"decision_id": "0" * 32, "reviewer": "x", "verdict": "accept", "instance": _identity(opened, 0)}
    browser.get(f"/api/instances/{_identity(opened, 0)}")  # it is in memory
    moved = store.rename(store.with_name("moved"))
    answer = browser.post("/api/decisions", json=sent)
    assert (answer.status_code, "the store is gone" in answer.json()["error"]) == (400, True)
    assert (store.exists(), opened.session.version) == (False, 0)
    moved.rename(store)
    assert browser.post("/api/decisions", json=sent).status_code == 200


def test_only_what_is_shown_is_read(browser: httpx.Client, opened: OpenReview, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = StoredLabels.open_detections

    def note(run: StoredLabels, shard: Shard) -> Any:
        read.append(shard.name)
        return original(run, shard)

    monkeypatch.setattr(StoredLabels, "open_detections", note)
    browser.get("/api/queue", params={"limit": 100})
    browser.post("/api/heard", json={"client": "Bob"})
    assert read == []
    for _ in range(3):
        browser.get(f"/api/instances/{_identity(opened, 30)}")
    assert read == ["0000-00002"]


def test_what_is_sent_is_checked(browser: httpx.Client, opened: OpenReview) -> None:
    good = {"decision_id": "0" * 32, "reviewer": "x", "verdict": "accept", "instance": _identity(opened, 0)}
    for wrong in ({"decision_id": "../x"}, {"reviewer": "x" * 201}, {"verdict": None}):
        assert browser.post("/api/decisions", json=good | wrong).status_code == 422
    answer = browser.post("/api/decisions", json=good | {"mask": "0"})
    assert "draw it again" in answer.json()["error"]
    assert opened.session.version == 0
    answers = [browser.post("/api/decisions", json=good | one) for one in ({}, {}, {"reviewer": "y"})]
    assert [one.status_code for one in answers] == [200, 200, 409]
    assert "another decision with the id" in answers[-1].json()["error"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused_in_a_sentence(browser: httpx.Client, number: str) -> None:
    for field in ('"image": 0, "box": [%s, 0, 9, 9]', '"image": %s', '"image": 0, "points": [[0, %s]]'):
        answer = browser.post("/api/masks", content="{" + field % number + "}", headers=_JSON)
        assert (answer.status_code, answer.json()["error"].startswith("body.")) == (422, True)


@pytest.mark.parametrize("field", ["decision_id", "reviewer", "verdict", "instance", "into", "mask"])
def test_text_that_is_no_text_is_refused_in_a_sentence(browser: httpx.Client, opened: OpenReview, field: str) -> None:
    sent = {"decision_id": "0" * 32, "reviewer": "x", "verdict": "merge", "instance": _identity(opened, 0)}
    answer = browser.post("/api/decisions", content=json.dumps(sent | {field: "\ud800"}), headers=_JSON)
    assert (answer.status_code, answer.json()["error"].startswith(f"body.{field}: ")) == (422, True)
    assert browser.post("/api/heard", content='{"client": "\\ud800"}', headers=_JSON).status_code == 422
    assert opened.session.version == 0


def test_places_and_numbers_that_are_too_large_are_refused(browser: httpx.Client) -> None:
    for wanted in ({"start": 10**30}, {"start": 2**63}, {"start": -1}, {"limit": 10**30}):
        answer = browser.get("/api/queue", params=wanted)
        assert (answer.status_code, answer.json()["error"].startswith("query.")) == (422, True), wanted
    for field, known in (("state", "'open', 'decided' or 'all'"), ("reason", "expected one of threshold, ")):
        answer = browser.get("/api/queue", params={field: "zz"})
        assert (answer.status_code, known in answer.json()["error"]) == (422, True)
    assert browser.get("/api/queue", params={"category": 10**30}).json()["cards"] == []
    for path in ("/api/images", "/api/references", "/pictures/references"):
        assert browser.get(f"{path}/{10**30}").status_code in (200, 400), path
    assert browser.get("/api/queue", params={"start": 10**6}).json()["cards"] == []
