"""YAML that people wrote: read as it stands, and refused where a key is given twice, of which one would be lost.

Not here: what the keys mean, and files that come with refseg.
"""

import re
from typing import Any

import yaml

from refseg_core.errors import redact_text

_Loader = type[yaml.SafeLoader] | type[yaml.BaseLoader]
_PLAIN_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*|[0-9]*\.[0-9]*(e[-+][0-9]+)?|\.inf)|\.nan", re.IGNORECASE)


class PlainNumbers(yaml.SafeLoader):
    """Refuses 010, 1:30 and 1_0 without quotes, which YAML reads as 8, 90 and 10, and people as something else."""


def _number(reader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    text = str(reader.construct_scalar(node))
    if not _PLAIN_NUMBER.fullmatch(text):
        problem = (
            f"write {text!r} in quotes where it is text, and without _ and : and a leading 0 where it is a number,"
        )
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return yaml.SafeLoader.yaml_constructors[node.tag](reader, node)


for _kind in ("int", "float"):
    PlainNumbers.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


def load_yaml(document: bytes | str, loader: _Loader = PlainNumbers) -> Any:
    """Returns the content of a document. Raises yaml.YAMLError, and ValueError or AttributeError for bad values."""
    reader = loader(document)
    try:
        node = reader.get_single_node()
        if node is None:
            return None
        _check_keys(node)
        return reader.construct_document(node)
    finally:
        reader.dispose()


def why_unread(error: Exception) -> str:
    """Returns the problem of a document and its place, without the line, which may hold secrets."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    return redact_text(str(error) or type(error).__name__)


def _check_keys(root: yaml.Node) -> None:
    """Raises ConstructorError naming a key that a mapping has twice; 0 and '0' are one key."""
    seen, nodes = set[int](), [root]
    while nodes:
        node = nodes.pop()
        if id(node) in seen or isinstance(node, yaml.ScalarNode):  # an alias leads back to what was seen
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_mapping(node)
            nodes += [part for pair in node.value for part in pair]
        else:
            nodes += node.value


def _check_mapping(node: yaml.MappingNode) -> None:
    keys = set[str]()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in keys:
                problem = f"remove one of two keys {key.value!r}, the second"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(key.value)
