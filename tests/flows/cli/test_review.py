"""What `refseg review` cannot do is told in a message, before a page is opened."""

import os
import signal
import socket
from pathlib import Path
from threading import Thread

import httpx
import pytest

from flows.review.guard import TOKEN_HEADER
from tasks.store.thresholds import num_labeled
from tests.support.commands import done, refseg, refused
from tests.support.projects.reviewable import Reviewable

pytest_plugins = ["tests.support.projects.reviewable_project"]


def test_a_store_needs_no_command_and_its_options_are_explained() -> None:
    assert "--no-browser" in done(refseg("review", "serve", "--help"))
    assert "serve" in done(refseg("review", "--help"))


def test_a_store_without_labels_is_told(tmp_path: Path) -> None:
    assert "holds no labels" in refused(refseg("review", tmp_path, "--no-browser"))


def test_labels_that_are_not_there_are_told(reviewable: Reviewable) -> None:
    message = refused(refseg("review", reviewable.steps.store.uri, "--labels", "0" * 16, "--no-browser"))
    assert f"has no labels '{'0' * 16}'" in message


def test_a_port_that_is_taken_is_told(reviewable: Reviewable) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        message = refused(refseg("review", reviewable.steps.store.uri, "--port", port, "--no-browser"))
    assert f"--port {port} cannot be used" in message


@pytest.mark.parametrize("port", ["99999", "65536", "-1"])
def test_a_port_that_there_is_not_is_told(reviewable: Reviewable, port: str) -> None:
    message = refused(refseg("review", reviewable.steps.store.uri, "--port", port, "--no-browser"))
    assert f"{port} is not in the range 0<=x<=65535" in message


@pytest.mark.parametrize(
    ("verdict", "message"), [("accept", "Decided so far: 1 accept, by Anna (1)."), (None, "Nothing is decided yet.")]
)
def test_ctrl_c_ends_a_review_quietly_with_what_was_decided(
    reviewable: Reviewable, monkeypatch: pytest.MonkeyPatch, verdict: str | None, message: str
) -> None:
    threads: list[Thread] = []

    def launch(link: str) -> bool:
        threads.append(Thread(target=_decide_and_interrupt, args=(link, verdict)))
        threads[0].start()
        return True

    monkeypatch.setattr("flows.review.browser.open_in_browser", launch)
    output = done(refseg("review", reviewable.steps.store.uri, "--port", "0"))
    threads[0].join()
    assert output.splitlines()[-1] == f"The server has ended. {message}"
    assert "Aborted" not in output


@pytest.mark.slow
def test_labels_of_some_of_the_images_are_told(reviewable: Reviewable, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Thread] = []

    def launch(link: str) -> bool:
        threads.append(Thread(target=_decide_and_interrupt, args=(link, None)))
        threads[-1].start()
        return True

    monkeypatch.setattr("flows.review.browser.open_in_browser", launch)
    review = ("review", reviewable.steps.store.uri, "--port", "0")
    assert "Labeled so far" not in done(refseg(*review))
    shards = sorted(Path(reviewable.steps.store.uri, reviewable.run.root, "shards").iterdir())
    shards[0].unlink()
    left = num_labeled(reviewable.run)
    assert 0 < left < 5
    assert f"Labeled so far: {left} of 5 images" in done(refseg(*review))
    for thread in threads:
        thread.join()


def _decide_and_interrupt(link: str, verdict: str | None) -> None:
    """What a person does in the browser, and then in the terminal."""
    address, _, token = link.partition("/?token=")
    try:
        with httpx.Client(base_url=address, headers={TOKEN_HEADER: token}, timeout=60) as page:
            (card,) = page.get("/api/queue", params={"limit": 1}).json()["cards"]
            sent = {"decision_id": "0" * 32, "reviewer": "Anna", "verdict": verdict, "instance": card["id"]}
            if verdict is not None:
                page.post("/api/decisions", json=sent).raise_for_status()
    finally:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"images": []'])
def test_a_file_that_is_no_export_is_told(reviewable: Reviewable, tmp_path: Path, content: str) -> None:
    file = tmp_path / "corrected.json"
    file.write_text(content)
    for form in ("auto", "label-studio"):
        message = refused(refseg("review", "import", reviewable.steps.store.uri, file, "--format", form))
        assert "corrected.json" in message
