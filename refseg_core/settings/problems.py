"""What is wrong with settings, in words: the key, what is expected there, and what came."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from refseg_core.errors import brief, did_you_mean

_QUOTED = re.compile(r"'([^']*)'")
_KIND = re.compile(r"(float|int|str|bool|none|nullable|constrained|literal|tuple|list|function)([-\[].*)?$")
"""How pydantic names the alternatives of a key, behind the key itself."""
_KINDS = {
    **{"int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number"},
    **{"float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number"},
    **{"bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text"},
    **{"tuple_type": "a list", "list_type": "a list", "model_type": "keys below it", "dict_type": "keys below it"},
    "is_boolean": "a number",
}
_BOUNDS = {
    **{"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")},
    **{"greater_than": ("more than", "gt"), "less_than": ("less than", "lt")},
}


def problems_of(error: ValidationError, known: Sequence[str] = ()) -> list[str]:
    """Returns what is wrong, a text for each key that begins with it; `known`: all keys, for those that are unknown."""
    problems: dict[str, list[Mapping[str, Any]]] = {}
    for problem in error.errors():
        problems.setdefault(_key(problem["loc"]), []).append(problem)
    return [
        f"{key}: {_described(key, of_key, known)}" if key else _described(key, of_key, known)
        for key, of_key in problems.items()
    ]


def _key(place: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in place if isinstance(part, int) or not _KIND.match(part))


def _described(key: str, problems: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    first = problems[0]
    match first["type"]:
        case "extra_forbidden":
            return f"no such key.{did_you_mean(key, known) or _known_sections(known)}"
        case "missing":
            return "is missing and has no default."
        case "value_error":
            return f"{str(first['ctx']['error']).rstrip('.')}."
    expected = list(dict.fromkeys(_expected(problem) for problem in problems))
    choices = [choice for problem in problems for choice in _choices(problem)]
    hint = did_you_mean(first["input"], choices) if isinstance(first["input"], str) else ""
    return f"expected {' or '.join(expected)}, got {brief(first['input'])}.{hint}"


def _known_sections(known: Sequence[str]) -> str:
    sections = list(dict.fromkeys(key.partition(".")[0] for key in known))
    return f" Known are {', '.join(sections)}." if sections else ""


def _expected(problem: Mapping[str, Any]) -> str:
    kind = problem["type"]
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{words} {problem['ctx'][bound]:g}"
    if kind == "literal_error":
        return f"{problem['ctx']['expected']}"
    return _KINDS.get(kind) or f"something else ({problem['msg']})"


def _choices(problem: Mapping[str, Any]) -> Iterator[str]:
    if problem["type"] == "literal_error":
        yield from _QUOTED.findall(problem["ctx"]["expected"])
