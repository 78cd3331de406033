"""Reads the configuration file of a run, with overriding flags, and reports all its errors at once."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from flows.config.run_config import PATHS, RunConfig, all_of, check_config, keys
from refseg_core.errors import ConfigurationError, brief, redact_text
from refseg_core.settings.problems import problems_of
from tasks.storage.uris import redact, typed
from tasks.storage.yaml_documents import load_yaml, why_unread

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//|:)")  # a scheme, or chained ones


def load_config(path: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Reads a configuration file; relative paths in it are relative to its folder. Overrides are by dotted key.

    Raises ConfigurationError naming every wrong key and value at once.
    """
    if _URI.match(path):
        raise ConfigurationError(f"{redact(path)}: is an address, and a configuration is a local file. Copy it here.")
    file = Path(path)
    try:
        content = load_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file. `refseg init {typed(path)}` writes one to fill in; `refseg demo` needs none."
        ) from None
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
        # PyYAML raises ValueError and AttributeError for malformed dates and numbers.
        raise ConfigurationError(f"{path}: cannot be read as YAML: {why_unread(error)}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"{path}: expected keys such as store, references and targets, got {type(content).__name__}."
        )
    return load_content(content, overrides or {}, source=path, base=file.resolve().parent)


def load_content(content: dict[str, Any], overrides: Mapping[str, Any], *, source: str, base: Path) -> RunConfig:
    """Returns the configuration of a content whose paths are relative to `base`; overrides are by dotted key."""
    _resolve_paths(content, base)
    for name, value in overrides.items():
        _override(content, name, value)
    return parse_config(content, source=source)


def parse_config(content: Mapping[str, Any], *, source: str) -> RunConfig:
    """Checks a configuration. Raises ConfigurationError naming every wrong key and value at once."""
    try:
        config = RunConfig.model_validate(content)
    except ValidationError as error:
        known = [*RunConfig.model_fields, *(key.name for key in keys())]
        raise ConfigurationError(redact_text(all_of(problems_of(error, known), source))) from None
    check_config(config, source=source)
    return config


def _override(content: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{section}: expected keys below it, got {brief(inner)}.")
        content = inner
    content[last] = value


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    for name in PATHS:
        *sections, last = name.split(".")
        inner: Any = content
        for section in sections:
            inner = inner.get(section) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get(last), str):
            inner[last] = _below(folder, inner[last])


def _below(folder: Path, path: str) -> str:
    if not path or _URI.match(path):
        return path
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigurationError(f"{path}: there is no home folder of this user. Give the whole path.") from error
