"""Values of flags that are lists: numbers, and variants of the labeling settings."""

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import ValidationError

from refseg_core.errors import ConfigurationError, brief
from refseg_core.settings import LabelingSettings
from refseg_core.settings.labeling_methods import LABELING_METHODS
from refseg_core.settings.labeling_paths import LABELING_PATHS
from refseg_core.settings.problems import problems_of
from tasks.storage.yaml_documents import load_yaml


def parse_numbers(flag: str, given: str, least: int) -> list[int]:
    """Returns different numbers of at least `least`, given as 1,2,5. Raises ConfigurationError for anything else."""
    numbers = [part.strip() for part in given.split(",")]
    are_numbers = all(part.isascii() and part.isdecimal() and int(part) >= least for part in numbers)
    if len(set(numbers)) < len(numbers) or not are_numbers:
        raise ConfigurationError(
            f"{flag}: expected numbers of at least {least}, each once, as 1,2,5; got {brief(given)}."
        )
    return [int(part) for part in numbers]


def parse_variants(given: str, settings: LabelingSettings) -> dict[str, LabelingSettings]:
    """Returns the settings of each variant, by name: the given ones, changed as the variant says.

    `exact,wide:path=exact,points_per_side=64` are two: a path, and a name of one's own with keys of `labeling`. A path
    stands for the published method on it, a method for itself on its path; they take keys, too, and then their name is
    all of it, as in `guided:guidance_thresh=0.3`. A path or method among the keys decides the other, as in a
    configuration. Raises ConfigurationError.
    """
    variants = {}
    known = {path: settings.published_on(path) for path in LABELING_PATHS}
    known |= {method: settings.choosing(method=method) for method in LABELING_METHODS}
    for text in _texts(given):
        name, _, changes = text.partition(":")
        if not name or not (name in known or changes):
            raise ConfigurationError(
                f"--variants: {brief(text)} is neither a path or method, {', '.join(known)}, nor a name with keys of "
                "labeling, as wide:path=exact,points_per_side=64."
            )
        own_name = text if name in known else name
        if own_name in variants:
            raise ConfigurationError(f"--variants: expected each once; got {brief(own_name)} twice.")
        variants[own_name] = _changed(known.get(name, settings), text, changes)
    return variants


def _texts(given: str) -> Iterator[str]:
    """Yields each variant's text: a part with '=' and no name of its own belongs to the one before."""
    text = ""
    for part in map(str.strip, given.split(",")):
        if text and "=" in part and ":" not in part.partition("=")[0]:
            text += f",{part}"
            continue
        if text:
            yield text
        text = part
    yield text


def _changed(settings: LabelingSettings, text: str, changes: str) -> LabelingSettings:
    pairs = [change.partition("=") for change in changes.split(",") if change]
    values = {key.strip(): _value(text, key, value) for key, _, value in pairs}
    try:
        if values.keys() & {"method", "path"}:
            return settings.choosing(**values)
        return LabelingSettings.model_validate(settings.model_dump() | values)
    except ValidationError as error:
        raise ConfigurationError(
            f"--variants: {brief(text)}: {' '.join(problems_of(error, [*LabelingSettings.model_fields]))}"
        ) from error


def _value(text: str, key: str, value: str) -> Any:
    try:
        return load_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--variants: {brief(text)}: {key}: {brief(value)} cannot be read.") from error
