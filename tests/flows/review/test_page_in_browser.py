"""A real browser reviews: by keys, with drawing, through a kill of the server, and by two people at once.

REFSEG_PICTURES=FOLDER keeps the pictures that it takes, for people to look at.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from flows.review.opening import OpenReview, open_review
from refseg_core.analysis.decisions import of_aspect, standing
from refseg_core.analysis.label_filter import ScoreThresholds
from tasks.store.reviews import StoredReview, read_reviewed
from tests.support.projects.reviewable import Reviewable
from tests.support.servers.browser import Page, any_browser

pytest_plugins = ["tests.support.projects.reviewable_project", "tests.support.servers.browser_pictures"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_PROGRAM = "from flows.cli.main import main; main(prog_name='refseg')"
_SAVED = "document.getElementById('saved').textContent"
_CARDS = "[...document.querySelectorAll('.card img')].map((image) => image.src)"
_NOW = "document.querySelector('.card.now img')?.src"
_CURRENT = "document.querySelector('.card.now')?.title"


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser's page."""
    with any_browser(width=1400, height=900) as page:
        yield page


@pytest.fixture
def opened(reviewable: Reviewable) -> Iterator[OpenReview]:
    """A review that is served by a thread."""
    config = reviewable.steps.config
    opened = open_review(reviewable.run, ScoreThresholds(0.5), models=config.models)
    thread = Thread(target=opened.serve)
    thread.start()
    yield opened
    opened.server.should_exit = True
    thread.join()


def _begin(page: Page, link: str, name: str) -> None:
    """Opens the link as a person of that name does, up to the first instance."""
    page.open(link)
    page.wait_for("!!document.querySelector('#naming[open]')")
    page.evaluate("document.getElementById('naming-name').focus()")
    page.type(name)
    page.press("Enter")
    page.wait_for(_CURRENT)
    page.wait_for("!!document.querySelector('#stage .focus')")


def _press(page: Page, key: str) -> None:
    """Presses a key, and waits until the next instance is there."""
    before = page.evaluate("document.querySelector('#stage .focus')?.getAttribute('d') + location.href")
    shown = page.evaluate(_CURRENT)
    page.press(key)
    page.wait_for(
        f"{_CURRENT} !== {shown!r} || document.getElementById('done').hidden === false"
        f" || document.querySelector('#stage .focus')?.getAttribute('d') + location.href !== {before!r}"
    )


def _all_saved(page: Page) -> None:
    page.wait_for(f"{_SAVED} === 'saved'")


def _verdicts(reviewable: Reviewable) -> list[str]:
    """What counts, by the store alone."""
    return sorted(standing(StoredReview.of_labels(reviewable.run).read()).verdict.tolist())


def _place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image is in the window."""
    place = page.evaluate(
        f"(() => {{ const at = new DOMPoint({x}, {y}).matrixTransform(document.getElementById('stage').getScreenCTM());"
        " return [at.x, at.y]; })()"
    )
    return place[0], place[1]


def test_twenty_instances_are_reviewed_by_keys_one_is_drawn_and_one_promoted(
    opened: OpenReview, reviewable: Reviewable, page: Page, pictures: Path
) -> None:
    _begin(page, opened.link, "Anna <b>B</b>")
    page.picture(pictures / "review.jpg")
    for key in ["a", "r", "a", "p", "a", "r"] * 3 + ["a"]:
        _press(page, key)
    page.press("c")
    page.wait_for("!!document.querySelector('#palette[open] li.on')")
    page.picture(pictures / "palette.jpg")
    _press(page, "2")
    _all_saved(page)
    assert _verdicts(reviewable) == ["accept"] * 10 + ["category"] + ["part"] * 3 + ["reject"] * 6
    page.press("e")
    page.wait_for("document.getElementById('state').textContent.includes('used as reference')")
    page.press("d")
    page.wait_for("!document.getElementById('mode').hidden")
    page.drag(_place(page, 62, 12), _place(page, 112, 88))
    page.wait_for("!!document.querySelector('#stage .draft')?.getAttribute('d')")
    page.wait_for("document.getElementById('mode').textContent.includes('Enter keeps it')")
    page.picture(pictures / "drawing.jpg")
    page.press("Enter")
    page.wait_for("!!document.querySelector('#palette[open]')")
    page.press("1")
    page.wait_for("!document.querySelector('#palette[open]')")
    _all_saved(page)
    page.wait_for("document.getElementById('counts').textContent.includes('1 added')")
    assert [_verdicts(reviewable).count(one) for one in ("add", "reference")] == [1, 1]
    decisions = standing(StoredReview.of_labels(reviewable.run).read())
    assert set(decisions.reviewer) == {"Anna <b>B</b>"}
    assert "Anna <b>B</b>: 22" in page.text
    ((added,),) = [decisions[decisions.verdict == "add"].mask_rle.tolist()]
    kept = {mask for found, _ in read_reviewed(reviewable.run, reviewable.images()) for mask in found.mask_rle}
    assert added in kept
    page.press("v")
    page.wait_for("!!document.querySelector('#stage.whole')")
    picture = Image.open(page.picture(pictures / "whole.jpg"))
    assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 500
    for undone in ("1 added", "1 used as reference", "1 other category"):
        page.press("u")
        page.wait_for(f"!document.getElementById('counts').textContent.includes('{undone}')")
    _all_saved(page)
    assert len(of_aspect(standing(StoredReview.of_labels(reviewable.run).read()), "label")) == 19


def test_a_merge_and_going_back_by_keys(opened: OpenReview, reviewable: Reviewable, page: Page) -> None:
    _begin(page, opened.link, "Anna")
    first = page.evaluate(_CURRENT)
    page.press("m")
    page.wait_for("!!document.querySelector('#stage.merging text')")
    _press(page, "1")
    _all_saved(page)
    assert _verdicts(reviewable) == ["mask", "merge"]
    page.press("b")
    page.wait_for("document.getElementById('state').textContent === 'merged by Anna'")
    assert page.evaluate(_CURRENT) == first
    page.press("u")
    page.wait_for("document.getElementById('state').textContent === ''")
    _all_saved(page)
    assert _verdicts(reviewable) == []


def test_cards_filters_and_views_choose_what_is_looked_at(opened: OpenReview, page: Page) -> None:
    _begin(page, opened.link, "Anna")
    first = page.evaluate(_CURRENT)
    page.evaluate("document.querySelectorAll('.card')[3].click()")
    page.wait_for(f"{_CURRENT} !== {first!r}")
    page.press("z")
    page.wait_for("!document.getElementById('stage').getAttribute('viewBox').startsWith('0.00 0.00 128')")
    page.press("h")
    page.wait_for("!!document.querySelector('#stage.hidden')")
    page.evaluate(
        "(() => { const form = document.getElementById('filter'); form.elements.category.value = '8';"
        " form.elements.category.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    page.wait_for("[...document.querySelectorAll('.card')].every((card) => card.title.startsWith('bar in '))")
    page.press("u")
    page.wait_for("document.getElementById('notice').textContent === 'There is nothing of yours to undo.'")
    page.evaluate(
        "(() => { const form = document.getElementById('filter'); form.elements.image.value = 't0.png';"
        " form.elements.image.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    page.wait_for(f"{_CARDS}.length === 3 && document.querySelectorAll('.card.now').length === 1")
    shown = page.evaluate(_CARDS)
    for _ in range(4):  # each once, also where the queue begins again for what was skipped
        _press(page, "n")
        assert sorted(page.evaluate(_CARDS)) == sorted(shown)
    for left in (2, 1):
        _press(page, "a")
        _all_saved(page)
        page.wait_for(f"document.getElementById('counts').textContent.endsWith('; {left} left here')")
        assert sorted(page.evaluate(_CARDS)) == sorted(shown)
    looked = page.evaluate(_NOW)
    page.press("n")
    page.wait_for(f"{_CARDS}.at(-1) === {looked!r} && {_NOW} === {looked!r}")
    page.evaluate("location.reload()")
    page.wait_for(f"!!document.querySelector('.card.now') && {_CARDS}.length > 3")
    assert looked in page.evaluate(_CARDS), "what the same person looked at before is theirs"


def _start(reviewable: Reviewable, port: int, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Starts the command in a process of its own; returns it, and the link that it prints."""
    out = folder / f"out-{time.monotonic_ns()}"
    arguments = ["review", reviewable.steps.store.uri, "--port", str(port), "--no-browser"]
    with out.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", _PROGRAM, *arguments], stdout=file, stderr=subprocess.STDOUT)
    end = time.monotonic() + 120
    while "http://" not in (text := out.read_text()):
        assert process.poll() is None and time.monotonic() < end, text
        time.sleep(0.2)
    time.sleep(0.5)
    return process, next(word for word in out.read_text().split() if word.startswith("http://"))


def test_nothing_is_lost_when_the_server_is_killed_in_between(
    reviewable: Reviewable, page: Page, tmp_path: Path
) -> None:
    process, link = _start(reviewable, 0, tmp_path)
    port = int(link.split(":")[2].partition("/")[0])
    try:
        _begin(page, link, "Anna")
        for _ in range(2):
            _press(page, "a")
        _all_saved(page)
        page.press("a")
        process.kill()
        process.wait()
        for _ in range(2):
            _press(page, "r")
        page.wait_for(f"{_SAVED}.startsWith('not saved yet')")
        kept = _verdicts(reviewable)
        assert kept in (["accept"] * 2, ["accept"] * 3)
        process, link = _start(reviewable, port, tmp_path)
        page.evaluate(f"fetch({link!r}).then((answer) => answer.status)")  # the link in another tab
        _all_saved(page)
    finally:
        process.kill()
        process.wait()
    assert _verdicts(reviewable) == ["accept"] * 3 + ["reject"] * 2


def test_two_people_review_at_once(opened: OpenReview, reviewable: Reviewable, page: Page) -> None:
    with any_browser(width=1400, height=900) as other:
        _begin(page, opened.link, "Anna")
        page.wait_for(f"{_SAVED} === 'saved'")
        time.sleep(1)  # so that the server has heard what Anna looks at
        _begin(other, opened.link, "Bob")
        for _ in range(6):
            _press(page, "a")
            _press(other, "r")
        for one in (page, other):
            _all_saved(one)
            one.wait_for(
                "document.getElementById('people').textContent === 'Anna: 6 · Bob: 6'"
                " || document.getElementById('people').textContent === 'Bob: 6 · Anna: 6'"
            )
    rows = StoredReview.of_labels(reviewable.run).read()
    assert len(rows) == 12
    assert opened.session.by_reviewer == {"Anna": 6, "Bob": 6}
    last = dict(zip(rows.instance_id, rows.verdict, strict=True))
    assert sorted(last.values()) == _verdicts(reviewable)
