"""Lists of categories: what their lines and words mean, for YOLO and for formats that count from 1."""

from pathlib import Path

import pytest

from refseg_core.errors import DatasetError
from tasks.datasets.class_names import ClassNames, find_class_names
from tasks.storage.folder import Folder


def found(folder: Path, name: str, text: str, kind: str = "yolo") -> ClassNames:
    (folder / name).write_text(text)
    classes = find_class_names(Folder(str(folder)), kind)
    assert classes is not None
    return classes


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "labels.txt"])
@pytest.mark.parametrize("first", ["background", "__ignore__", "_background_", "Background"])
def test_for_yolo_the_number_of_a_line_is_that_of_its_class(name: str, first: str, tmp_path: Path) -> None:
    assert found(tmp_path, name, f"{first}\ncat\ndog\n").names == [first, "cat", "dog"]


def test_elsewhere_a_background_is_no_category(tmp_path: Path) -> None:
    assert found(tmp_path, "classes.txt", "__ignore__\n_background_\ncat\ndog\n", "voc").names == ["cat", "dog"]


@pytest.mark.parametrize("names", ["[off, on, 007]", "{0: off, 1: on, 2: 007}", "\n- off\n- 'on'\n- 007"])
def test_names_are_the_words_as_they_are_written(names: str, tmp_path: Path) -> None:
    assert found(tmp_path, "data.yaml", f"nc: 3\nnames: {names}\n").names == ["off", "on", "007"]


@pytest.mark.parametrize(
    ("name", "text", "is_as_before"),
    [
        ("classes.txt", "cat\ndog\n", True),
        ("classes.txt", "background\ncat\n", False),
        ("data.yaml", "names: [cat, 7, '007']\n", True),
        ("data.yaml", "names: [yes, cat]\n", False),
        ("data.yaml", "names: [1.50]\n", False),
    ],
)
def test_only_lists_that_older_versions_took_otherwise_say_so(
    name: str, text: str, is_as_before: bool, tmp_path: Path
) -> None:
    assert (found(tmp_path, name, text).readings == ()) == is_as_before


@pytest.mark.parametrize("again", ["0", "'0'"])
def test_a_number_that_has_two_names_is_refused_with_its_place(again: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data\.yaml: .*remove one of two keys '0', the second in line 4, column 3"):
        found(tmp_path, "data.yaml", f"names:\n  0: box\n  1: ball\n  {again}: cup\n")


def test_an_address_in_a_damaged_file_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="in line 1, column") as caught:
        found(tmp_path, "data.yaml", "train: https://me:hunter2@host/a: b\nnames: [a]\n")
    assert "hunter2" not in str(caught.value)


def test_lists_that_contradict_each_other_are_told_with_what_differs(tmp_path: Path) -> None:
    labels = tmp_path / "pets" / "labels"
    labels.mkdir(parents=True)
    (labels.parent / "data.yaml").write_text("names: [cat, dog]")
    (labels.parent / "obj.names").write_text("dog\ncat\n")
    classes = found(labels, "classes.txt", "cat\ndog\n")
    (oddity,) = classes.oddities
    assert "contradict the one that is taken" in oddity.what
    assert oddity.examples == ("pets/obj.names: number 0 is 'dog', in labels/classes.txt 'cat'",)
    assert classes.names == ["cat", "dog"]
    longer = found(labels, "classes.txt", "cat\ndog\nbird\n").oddities[0]
    assert longer.count == 2
    assert longer.examples[0].endswith(": number 2 is 'none', in labels/classes.txt 'bird'")


def test_a_number_of_classes_that_is_not_that_of_the_names_is_told(tmp_path: Path) -> None:
    assert found(tmp_path, "data.yaml", "nc: 2\nnames: [a, b]\n").oddities == ()
    (oddity,) = found(tmp_path, "data.yaml", "nc: 80\nnames: [a, b]\n").oddities
    assert oddity.examples == ("nc: 80, and 2 names",)


@pytest.mark.parametrize("shape", ["[17, 3]", "[7, 2]"])
def test_the_shape_of_keypoints_is_read(shape: str, tmp_path: Path) -> None:
    numbers = [int(number) for number in shape.strip("[]").split(",")]
    assert found(tmp_path, "data.yaml", f"names: [a]\nkpt_shape: {shape}\n").keypoints == tuple(numbers)
    assert found(tmp_path, "data.yaml", "names: [a]\n").keypoints is None


@pytest.mark.parametrize("shape", ["17", "[17]", "[0, 3]", "[4, 5]", "[a, b]", "[[17], 3]", "[1_7, 3]", "[²,3]"])
def test_keypoints_that_cannot_be_are_refused(shape: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data\.yaml: cannot be read .*: expected 'kpt_shape', the number of"):
        found(tmp_path, "data.yaml", f"names: [a]\nkpt_shape: {shape}\n")


def test_where_no_list_is_found_it_says_where_it_looked(tmp_path: Path) -> None:
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    with pytest.raises(DatasetError, match="what the classes are called is not known") as error:
        find_class_names(Folder(str(labels)), "yolo")
    assert f"Looked in {labels}, {labels.parent}, {tmp_path} for one of data.yaml" in str(error.value)
    (tmp_path / "data.yaml").write_text("names: [boat]")
    found = find_class_names(Folder(str(labels)), "yolo")
    assert found is not None and list(found.names) == ["boat"]
