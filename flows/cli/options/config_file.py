"""The argument and flags of commands that read a configuration file: one flag for each of its keys.

Not here: the keys (`flows/config/run_config.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
import yaml

from flows.config.loading import load_config
from flows.config.run_config import Key, RunConfig, keys
from refseg_core.errors import ConfigurationError, brief
from tasks.storage.uris import typed
from tasks.storage.yaml_documents import PlainNumbers, load_yaml, why_unread

_SHORT = {"batches.max_memory": ("--max-memory",), "labeling.path": ("--path",), "targets.limit": ("--limit",)}


def config_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the argument of the configuration file and a flag for each of its keys."""
    for key in reversed(list(keys())):
        names = [f"--{key.name}", *_SHORT.get(key.name, ())]
        command = click.option(*names, key.name.replace(".", "__"), metavar="VALUE", help=key.field.description)(
            command
        )
    return click.argument("config_file", metavar="CONFIG.yaml", type=click.Path(dir_okay=False))(command)


def load_with_flags(config_file: str, flags: dict[str, str | None]) -> RunConfig:
    """Returns the configuration of a file, with the flags that were given in the place of its keys."""
    return load_config(config_file, {key.name: _parse_flag(key, value) for key, value in _given(flags)})


def typed_with_flags(config_file: str, flags: dict[str, str | None]) -> str:
    """Returns the file and the flags as they are typed in a command that people are shown."""
    return " ".join([typed(config_file), *(f"--{key.name} {typed(value)}" for key, value in _given(flags))])


def _given(flags: dict[str, str | None]) -> Iterator[tuple[Key, str]]:
    for key in keys():
        value = flags[key.name.replace(".", "__")]
        if value is not None:
            yield key, value


def parse_changes(changes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Returns the values of keys that were given by name, as their flags would read them.

    A name that is no key keeps its text; loading the configuration names it. Raises ConfigurationError.
    """
    known = {key.name: key for key in keys()}
    return {name: _parse_flag(known[name], value) if name in known else value for name, value in changes}


def _parse_flag(key: Key, value: str) -> Any:
    if value == "null":
        return None
    if key.is_list and not value.startswith("["):
        return [part.strip() for part in value.split(",")]
    if key.is_text:
        return value
    try:
        # Lists hold names and ids, which stay text, whatever YAML would convert them to.
        return load_yaml(value, yaml.BaseLoader if key.is_list else PlainNumbers)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--{key.name}: {brief(value)} cannot be read: {why_unread(error)}.") from error
