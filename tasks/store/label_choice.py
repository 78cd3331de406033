"""Which labels a store holds besides those at hand, and in what they differ, for people to choose from."""

from collections.abc import Iterator, Mapping
from typing import Any

from refseg_core.errors import brief, listed
from tasks.store.label_store import FOLDER, StoredLabels
from tasks.store.store import Store

_MOST_SHOWN = 4


def other_labels(store: Store, key: str) -> list[str]:
    """Returns the key of each other labeling, the newest first, with its age and what differs from those of `key`."""
    own = StoredLabels(store, key).recipe_or_error()
    recipes = reversed(store.manifests(FOLDER, "recipe.json"))
    return [
        f"{recipe['key']} (begun {recipe['created']}; {listed(_differences(recipe, own), _MOST_SHOWN)})"
        for recipe in recipes
        if recipe["key"] != key
    ]


def _differences(other: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    yield from _different_settings(other["settings"], own["settings"])
    for kind, title in (("inputs", "other"), ("weights", "other weights of the")):
        for name in sorted({*other[kind], *own[kind]}):
            if other[kind].get(name) != own[kind].get(name):
                yield f"{title} {name}"
    if other["version"] != own["version"]:
        yield f"version {other['version']} of the computation instead of {own['version']}"


def _different_settings(settings: Mapping[str, Any], own: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yields what differs, nested keys by their path; values that are shown alike, as long ones are cut, have none."""
    for name in sorted({*settings, *own}):
        value, own_value = settings.get(name), own.get(name)
        if isinstance(value, Mapping) and isinstance(own_value, Mapping):
            yield from _different_settings(value, own_value, f"{path}{name}.")
        elif value != own_value:
            shown, own_shown = _shown(value), _shown(own_value)
            yield f"another {path}{name}" if shown == own_shown else f"{path}{name} {shown} instead of {own_shown}"


def _shown(value: Any) -> str:
    return "unset" if value is None else brief(value)
