"""`refseg bank diff A B`: references and categories that only one has, moved prototypes, and what labels changed."""

import re
from collections.abc import Iterator

import pytest

from tests.support.commands import done, refseg, refused, without_prefect
from tests.support.projects.project import Project, scene
from tests.support.samples import write_images

pytest_plugins = ["tests.support.projects.tiny_project"]


@pytest.fixture
def plain(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose runs need no Prefect, and a picture beside it."""
    without_prefect(monkeypatch)
    write_images(project.folder, {"boat7.png": scene(70)})
    project.write_config()
    yield project


def _address(said: str) -> str:
    found = re.search(r"prototypes? in (\S+)", said)
    assert found is not None
    return found[1]


def _bank(project: Project, *flags: str) -> str:
    return _address(done(refseg("bank", project.folder / "run.yaml", "--out", project.folder / "sheets", *flags)))


@pytest.mark.slow
def test_a_new_reference_and_a_new_category_are_told_with_what_they_did_to_labels(plain: Project) -> None:
    picture = plain.folder / "boat7.png"
    first = _bank(plain)
    pilot = ("pilot", plain.folder / "run.yaml", "--images", "3", "--out", plain.folder / "pilot")
    done(refseg(*pilot))
    flags = ("--add", f"box={picture}", "--box", "12,14,52,54", "--add", f"boat={picture}", "--box", "68,20,104,80")
    second = _bank(plain, *flags)
    said = done(refseg("bank", "diff", first, second))
    assert "No labels were made with both" in said

    done(refseg(*pilot))
    said = done(refseg("bank", "diff", first, second))
    assert "Only in the second: added-0 (box, boat7.png)" in said
    assert "Only in the first" not in said
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in said.splitlines()
        if "│" in line
    }
    assert rows["box"][0] == "1 -> 2"
    assert 0 < float(rows["box"][1]) < 1
    assert rows["bar"][:2] == ["1", "1.000"]
    assert rows["boat"][:2] == ["0 -> 1", "-"]
    assert rows["boat"][2] == rows["boat"][3] == "0"
    assert "in 3 images" in said
    assert re.search(r"AP of masks: \d\.\d{3}, then \d\.\d{3} \([+-]\d\.\d{3}\)", said)


@pytest.mark.slow
def test_a_bank_does_not_differ_from_itself(plain: Project) -> None:
    address = _bank(plain)
    done(refseg("pilot", plain.folder / "run.yaml", "--images", "2", "--out", plain.folder / "pilot"))
    said = done(refseg("bank", "diff", address, address[:-9]))  # as status shows it
    assert "Only in" not in said
    assert said.count("1.000") == 2
    assert "(+0.000)" in said


@pytest.mark.parametrize(
    ("address", "expected"), [("nowhere", "expected the address of prototypes"), ("store/prototypes/00", "has no")]
)
def test_an_address_of_something_else_is_refused(address: str, expected: str, plain: Project) -> None:
    assert expected in refused(refseg("bank", "diff", address, address))
