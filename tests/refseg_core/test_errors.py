"""All problems of an input come in one error, which stays short however many there are."""

import pytest

from refseg_core.datasets.oddities import OddityCounter
from refseg_core.errors import (
    DatasetError,
    Problems,
    brief,
    counted,
    in_natural_order,
    listed,
    printable,
    shortened,
    singular,
)


def _message(problems: Problems) -> str:
    with pytest.raises(DatasetError) as caught:
        problems.raise_if_any("boats.json")
    return str(caught.value)


def test_without_problems_nothing_is_raised() -> None:
    problems = Problems()
    problems.add_all("a kind", [])
    problems.add_repeated("a kind", ["a", "b"])
    problems.raise_if_any("boats.json")


def test_every_kind_has_its_count_and_its_first_offenders() -> None:
    problems = Problems()
    problems.add_all("a number is wrong: correct it", [str(number) for number in range(7)])
    problems.add("a name is missing: add it", "image 3")
    problems.add("a map is colored. Is it a picture?", "a.png")
    assert _message(problems).splitlines() == [
        "boats.json cannot be used; 9 problems:",
        "- 7 x a number is wrong: correct it. Found: 0, 1, 2, 3, 4 and 2 more",
        "- 1 x a name is missing: add it. Found: image 3",
        "- 1 x a map is colored. Is it a picture? Found: a.png",
    ]


def test_what_is_repeated_is_named_once() -> None:
    problems = Problems()
    problems.add_repeated("a name is used twice", ["b", "a", "b", "c", "a", "b"])
    assert _message(problems).endswith("- 2 x a name is used twice. Found: b, a")


def test_many_kinds_and_long_offenders_are_cut() -> None:
    problems = Problems()
    for number in range(20):
        problems.add_all(f"kind {number}", ["x" * 10_000] * 9)
    message = _message(problems)
    assert message.endswith("- and 8 more kinds of problems")
    assert len(message) < 10_000


def test_what_cannot_be_printed_is_escaped() -> None:
    assert shortened("a\ud800") == "a\\ud800"
    assert shortened("a\tb\n\x1b[2J\x9bc\u2028é") == "a\\tb\\n\\x1b[2J\\x9bc\\u2028é"
    assert printable("a\tb\n\x1b[2J", kept="\n\t") == "a\tb\n\\x1b[2J"


@pytest.mark.parametrize("length", [1, 50])
def test_no_secret_of_an_address_in_somebodys_data_is_shown(length: int) -> None:
    address = f"https://user:{'hunter' * length}@host/a.jpg?X-Amz-Signature={'hunter' * length}"
    problems, oddities = Problems(), OddityCounter()
    problems.add("a name is wrong: correct it", address)
    oddities.add("names that are odd", address)
    for shown in (shortened(address), brief(address), _message(problems), oddities.found()[0].examples[0]):
        assert "https://host/a.jpg" in shown
        assert "hunt" not in shown


def test_a_list_of_names_counts_those_that_it_leaves_out() -> None:
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed(["a", "b"], 2) == "a, b"
    assert listed([str(number) for number in range(2008)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2,000 more"


def test_one_of_a_kind_is_singular() -> None:
    assert [counted(number, "image") for number in (0, 1, 2, 1200)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,200 images",
    ]
    assert [counted(number, "category") for number in (1, 3)] == ["1 category", "3 categories"]
    assert [counted(number, "key") for number in (1, 3)] == ["1 key", "3 keys"]
    assert counted(2, "dropped one", "dropped ones") == "2 dropped ones"


def test_what_one_of_a_kind_is_called() -> None:
    plurals = ["images", "categories", "boxes", "misses", "memory_bank"]
    assert list(map(singular, plurals)) == ["image", "category", "box", "miss", "memory_bank"]


def test_numbers_in_names_are_sorted_as_numbers() -> None:
    assert in_natural_order(["added-10", "12", "7", "added-2", "a"]) == ["7", "12", "a", "added-2", "added-10"]
    assert in_natural_order([]) == []
