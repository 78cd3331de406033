"""The configuration file of `refseg init`: every key with its meaning, bounds and default."""

import textwrap
from collections.abc import Iterator

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.config.run_config import RunConfig, section_of

_COMMENT_WIDTH = 100
_EXAMPLES = {
    "store": "runs/boats",
    "references.images": "references",
    "references.annotations": "references.json",
    "targets.images": "images",
}


def template() -> str:
    """Returns the text of the file."""
    lines = [
        "# refseg: one run. Fill in the paths; everything else has its default.",
        "# Paths are relative to this file, or URIs such as s3://bucket/prefix. `refseg run THIS_FILE` does the rest.",
    ]
    return "\n".join([*lines, *_lines(RunConfig, None)]) + "\n"


def _lines(model: type[BaseModel], defaults: BaseModel | None, indent: int = 0, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        section, dotted = section_of(field), f"{prefix}{name}"
        default = field.default if defaults is None else getattr(defaults, name)
        if section is not None and indent == 0:
            yield ""
        yield from _comment(f"{field.description}{_bounds(field)}", " " * indent)
        if section is None:
            written = yaml.safe_dump(_EXAMPLES.get(dotted, default), default_flow_style=True).removesuffix("...\n")
            yield f"{' ' * indent}{name}: {written.strip()}"
        else:
            yield f"{' ' * indent}{name}:"
            yield from _lines(section, default if isinstance(default, BaseModel) else None, indent + 2, f"{dotted}.")


def _comment(text: str, space: str) -> list[str]:
    indent = f"{space}# "
    return textwrap.wrap(text, _COMMENT_WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _bounds(field: FieldInfo) -> str:
    limits = {type(limit).__name__: limit for limit in field.metadata}
    low, high = getattr(limits.get("Ge"), "ge", None), getattr(limits.get("Le"), "le", None)
    if low is None:
        return ""
    return f" At least {low}." if high is None else f" From {low} to {high}."
