"""YAML is read as PyYAML reads it, but for keys that are given twice."""

from typing import Any

import pytest
import yaml

from tasks.storage.yaml_documents import load_yaml, why_unread


@pytest.mark.parametrize(
    ("document", "content"),
    [
        ("", None),
        ("a: [1, yes, x]", {"a": [1, True, "x"]}),
        ("base: &b {x: 1}\nmore: {<<: *b, x: 2}\nagain: *b", {"base": {"x": 1}, "more": {"x": 2}, "again": {"x": 1}}),
    ],
)
def test_documents_are_read(document: str, content: Any) -> None:
    assert load_yaml(document) == content


@pytest.mark.parametrize(("document", "line"), [("a: 1\nb: 2\na: 1", 3), ("- {b: {a: 1,\n  'a': 2}}", 2)])
def test_a_key_that_is_given_twice_is_refused_with_its_place(document: str, line: int) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        load_yaml(document)
    assert why_unread(caught.value).startswith(f"remove one of two keys 'a', the second in line {line}, column ")


def test_a_document_that_holds_itself_is_read() -> None:
    content = load_yaml("&a [*a]")
    assert content[0] is content
