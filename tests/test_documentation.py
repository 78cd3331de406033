"""The documentation says what is so: its links lead somewhere, its paths exist, its commands and keys are refseg's."""

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

from flows.cli.main import main
from flows.config.run_config import keys
from tasks.store.steps import STEPS
from tests.demo_scenes.dataset import draw_demo_targets

_ROOT = Path(__file__).resolve().parents[1]
_README = _ROOT / "README.md"
_RESULTS = _ROOT / "deployments" / "guides" / "results.md"
_GUIDES = [_ROOT / "deployments" / "runbook.md", *sorted((_ROOT / "deployments" / "guides").glob("*.md"))]
_PAGES = [_README, *_GUIDES, _ROOT / "refseg_core" / "demo" / "weights" / "README.md"]
_MOST_LINES = 45  # of a section of the README: a screen
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?:flows|tasks|refseg_core|deployments|tests)/[\w./-]*")
_MODULE = re.compile(r"\bpython -m ((?:flows|tasks|refseg_core|tests)[\w.]*)")
_COMMAND = re.compile(r"(?:^|\$\()(?:\w+=\S+ )*(?:\S*/)?refseg ([^)]+)")
_BRITISH = re.compile(
    r"\b(\w*(?:colour|behaviour|neighbour|harbour|labelled|labelling|modelling|artefact)\w*|grey\w*|centre\w*|licence\w*|"
    r"(?:normal|organ|recogn|initial|optim|summar|synchron|serial)is(?:e|ed|es|ing|ation)|whilst)\b",
    re.I,
)


class _Page:
    """A page's text, and what of it is prose, inline code and code blocks."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.text = path.read_text("utf-8")
        self.blocks = [block for _, block in _BLOCK.findall(self.text)]
        self.prose = _BLOCK.sub("", self.text)
        self.inline = [" ".join(code.split()) for code in _INLINE.findall(self.prose)]


def broken_links(page: _Page) -> Iterator[str]:
    """Links within the project name a file that exists and a heading in it."""
    for link in _LINK.findall(page.prose):
        place, _, anchor = link.partition("#")
        if "://" in link:
            continue
        path = page.folder / place
        if place and not path.exists():
            yield f"{link}: no such file"
        elif anchor and anchor not in _anchors(path.read_text("utf-8") if place else page.text):
            yield f"{link}: no such heading"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def lost_paths(page: _Page) -> Iterator[str]:
    """Paths and modules of the project exist."""
    for code in page.inline:
        if _PATH.fullmatch(code) and not (_ROOT / code).exists():
            yield f"{code}: no such path"
    for module in _MODULE.findall(page.text):
        if find_spec(module) is None:
            yield f"{module}: no such module"


def wrong_commands(page: _Page) -> Iterator[str]:
    """Commands, their options and arguments are those of the command line; a mention may leave arguments out."""
    lines = [line for block in page.blocks for line in block.splitlines()]
    for codes, is_mention in ((lines, False), (page.inline, True)):
        for code in codes:
            for words in _COMMAND.findall(code):
                problem = _problem(shlex.split(words, comments=True), is_mention=is_mention)
                if problem:
                    yield f"refseg {words}: {problem}"


def _problem(words: list[str], *, is_mention: bool) -> str:
    try:
        _parse(words)
    except click.exceptions.NoArgsIsHelpError:
        return ""
    except click.MissingParameter as error:
        return "" if is_mention else error.format_message()
    except click.UsageError as error:
        return error.format_message()
    return ""


def _parse(words: list[str]) -> None:
    """Reads a command line as the program does, without running it."""
    command: click.Command | None = main
    context, name = None, "refseg"
    while command is not None:
        context = command.make_context(name, list(words), parent=context)
        words = [*context._protected_args, *context.args]
        is_group = isinstance(command, click.Group) and words
        name, command, words = command.resolve_command(context, words) if is_group else ("", None, [])


def unknown_keys(page: _Page) -> Iterator[str]:
    """Keys of the configuration exist."""
    for code in page.inline:
        name = re.split(r"[:=]", code.removeprefix("--"))[0]
        section, dot, _ = name.partition(".")
        if dot and section in _sections() and name not in _sections():
            yield f"{code}: no such key"


@cache
def _sections() -> set[str]:
    """The configuration's keys and all that they lie in: references, references.sampling and so on."""
    parts = [key.name.split(".") for key in keys()]
    return {".".join(names[:end]) for names in parts for end in range(1, len(names) + 1)}


def british_spellings(page: _Page) -> Iterator[str]:
    """The project is written in American English."""
    for match in _BRITISH.finditer(page.text):
        yield f"{match[0]}: the American spelling is another"


_Rule = Callable[[_Page], Iterator[str]]
_RULES: tuple[_Rule, ...] = (broken_links, lost_paths, wrong_commands, unknown_keys, british_spellings)


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", _PAGES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_no_page_has(path: Path, rule: _Rule) -> None:
    broken = list(rule(_Page(path)))
    assert not broken, "\n" + "\n".join(broken)


def test_the_readme_links_to_every_guide() -> None:
    links = {(_ROOT / link).resolve() for link in _LINK.findall(_README.read_text("utf-8"))}
    assert set(_GUIDES) <= links


@pytest.mark.parametrize("folder", dict.fromkeys(step.folder for step in STEPS))
def test_the_guide_to_results_tells_every_folder_of_a_store(folder: str) -> None:
    assert f" {folder}/<key>/ " in _RESULTS.read_text(encoding="utf-8").replace("STORE/", " ")


def test_no_section_of_the_readme_is_longer_than_a_screen() -> None:
    sections = re.split(r"^(?=## )", _README.read_text("utf-8"), flags=re.M)
    lengths = {section.splitlines()[0]: len(section.splitlines()) for section in sections}
    assert len(lengths) > 5
    assert {title: length for title, length in lengths.items() if length > _MOST_LINES} == {}


_PLANTED: list[tuple[str, _Rule]] = [
    ("[a guide](guides/nothing.md)", broken_links),
    ("[a section](#not-here)", broken_links),
    ("`refseg_core/nothing.py`", lost_paths),
    ("`python -m tests.nothing`", lost_paths),
    ("`refseg nothing`", wrong_commands),
    ("```\nrefseg run\n```", wrong_commands),
    ("```\nA=1 .venv/bin/refseg run run.yaml --labeling.nothing 3  # why\n```", wrong_commands),
    ('```\neval "$(refseg completion tcsh)"\n```', wrong_commands),
    ("`refseg service up --nothing`", wrong_commands),
    ("`labeling.nothing: 3`", unknown_keys),
    ("the colour", british_spellings),
    ("it was labelled", british_spellings),
    ("normalised", british_spellings),
]


@pytest.mark.parametrize(("text", "rule"), _PLANTED)
def test_what_is_wrong_is_found_by_one_rule(text: str, rule: _Rule, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text + "\n", "utf-8")
    page: Any = _Page(tmp_path / "page.md")
    assert [other for other in _RULES if list(other(page))] == [rule]


@pytest.mark.slow
def test_the_library_guide_runs_and_finds_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the demo's models and a drawn scene under the names of the guide's files."""
    for name, packaged in (("sam2_hiera_tiny.pt", "sam2_demo.pt"), ("dinov2_vits14_pretrain.pth", "dinov2_demo.pt")):
        (tmp_path / name).symlink_to(_ROOT / "refseg_core" / "demo" / "weights" / packaged)
    (scene,) = draw_demo_targets(1)
    boat_HW = scene.instances[0].mask
    for name, pixels in (("boat", scene.image), ("bird", scene.image), ("harbor", scene.image)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
    Image.fromarray(boat_HW).save(tmp_path / "boat_mask.png")
    monkeypatch.chdir(tmp_path)

    names: dict[str, Any] = {}
    for block in re.findall(
        r"^```python\n(.*?)^```$", (_ROOT / "deployments/guides/library.md").read_text("utf-8"), re.M | re.S
    ):
        exec(block, names)

    boats_NHW = names["masks"][np.array(names["detections"].category) == "boat"]
    shared_N = (boats_NHW & boat_HW).sum((1, 2)) / (boats_NHW | boat_HW).sum((1, 2))
    assert shared_N.max() > 0.8
    assert (tmp_path / "labels.jpg").exists()
