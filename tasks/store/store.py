"""What a store holds: artifacts, each a folder of Parquet tables and a manifest that says what they were made from.

    STORE/<step's folder>/<key>/<table>.parquet
                               /manifest.json

An artifact's key is the hash of its recipe: equal recipes, equal artifacts. Tables are put first and the manifest
last, both created once and never overwritten; an artifact exists when its manifest does, and readers trust nothing
else. So a step that is killed leaves no half artifact, and two that race leave one.
"""

import getpass
import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, cast

from refseg_core.errors import NotFoundError, StoreError, listed
from refseg_core.table_schema import Table
from tasks.storage.folder import Folder
from tasks.storage.uris import redact
from tasks.store.manifests import ARTIFACT, RECIPE, SCHEMA_VERSION, Shape, check_schema, validate
from tasks.store.parquet import AnyTable, table_from_parquet, table_to_parquet

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_KEY_LENGTH = 16


@dataclass(frozen=True)
class Recipe:
    """What an artifact is made from. Everything here, and nothing else, decides its key.

    `version` rises when a step's code changes what it makes. `weights` are checksums of model files.
    """

    step: str
    folder: str
    version: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Recipe":
        """Returns the recipe that a manifest holds. Raises KeyError where it holds none."""
        return cls(**{name: manifest[name] for name in cls.__dataclass_fields__})

    @property
    def key(self) -> str:
        """The hash of the recipe, hexadecimal."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:_KEY_LENGTH]


class NotMadeError(Exception):
    """An artifact is missing, and the store shall make none."""


@dataclass(frozen=True)
class Artifact:
    """A small reference to what a step made; this is what tasks pass to each other."""

    folder: str
    key: str
    num_rows: Mapping[str, int]

    @property
    def name(self) -> str:
        """Where it lies below the store."""
        return f"{self.folder}/{self.key}"


class Store:
    """The artifacts of a store. One that is `find_only` makes none."""

    def __init__(self, uri: str, *, find_only: bool = False) -> None:
        self.uri = uri
        self.find_only = find_only
        self.folder = Folder(uri)

    def make(self, recipe: Recipe, compute: Callable[[], Sequence[Table]]) -> Artifact:
        """Returns the artifact of a recipe: found, or else computed and saved. Raises NotMadeError with `find_only`."""
        found = self.find(recipe)
        if found is None and self.find_only:
            raise NotMadeError(f"{redact(self.uri)}: has no {recipe.folder}/{recipe.key} yet.")
        return found or self.save(recipe, compute())

    def find(self, recipe: Recipe) -> Artifact | None:
        """Returns the artifact of a recipe, or None where it does not exist yet."""
        manifest = self.manifest(f"{recipe.folder}/{recipe.key}")
        return None if manifest is None else _artifact(manifest)

    def save(self, recipe: Recipe, tables: Sequence[Table]) -> Artifact:
        """Puts the tables, then the manifest. Where another writer was first, theirs is the artifact."""
        name = f"{recipe.folder}/{recipe.key}"
        parts = [self.put_table(f"{name}/{table_name(type(table))}.parquet", table) for table in tables]
        manifest = {**asdict(recipe), "key": recipe.key, **made_by(), "tables": parts}
        manifest = self.commit(f"{name}/{MANIFEST}", manifest)
        log.info("made %s", name)
        return _artifact(manifest)

    def put_table(self, name: str, table: Table) -> dict[str, Any]:
        """Puts a table unless it is there already; returns what a manifest says of it."""
        data = table_to_parquet(table)
        if not self.folder.create(name, data):
            # Left by a writer that was killed, or is at it now: what is there stays, and is what we describe.
            data = self.folder.read(name)
            table = self.unfinished_part(name, data, type(table))
        return describe_part(name, table, data)

    def unfinished_part(self, name: str, data: bytes, table: type[AnyTable]) -> AnyTable:
        """Returns a part that another writer left and no manifest names yet. Raises StoreError where it is damaged."""
        try:
            return table_from_parquet(data, table)
        except StoreError as error:
            raise StoreError(
                f"{redact(self.folder.join(name))}: {error} Another process left it, and no manifest names it. Remove "
                "it; it is made again."
            ) from error

    def read_part(self, folder: str, part: Mapping[str, Any], table: type[AnyTable]) -> AnyTable:
        """Returns a part that a manifest of the folder names. Raises StoreError if it is another than it says."""
        return table_from_parquet(self.read_part_file(folder, part), table)

    def read_part_file(self, folder: str, part: Mapping[str, Any]) -> bytes:
        """Returns the file of a part that a manifest of the folder names. Raises StoreError as `read_part` does."""
        name = f"{folder}/{part['name']}"
        try:
            data = self.folder.read(name)
        except NotFoundError as error:
            raise NotFoundError(
                f"{redact(self.folder.join(name))}: missing, though a manifest names it. Restore the object; `refseg "
                "verify` finds all that are missing."
            ) from error
        if len(data) != part["size"] or hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise StoreError(
                f"{redact(self.folder.join(name))}: damaged: expected {part['size']} bytes of sha256 "
                f"{part['sha256']}, got {len(data)} others. Restore the object; `refseg verify` finds all that are."
            )
        return data

    def commit(self, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Creates a manifest; returns the one that is there now, which another writer may have created first."""
        if self.folder.create(name, json.dumps(manifest, indent=2).encode()):
            return manifest
        return cast(dict[str, Any], self._json(name, self.folder.read(name)))

    def manifest(self, name: str) -> dict[str, Any] | None:
        """Returns the manifest of the artifact at `folder/key`, or None where there is none.

        Raises StoreError where it does not say what a manifest says, or was altered.
        """
        return self.read_recipe(f"{name}/{MANIFEST}", ARTIFACT)

    def read_recipe(self, name: str, shape: Shape = RECIPE) -> dict[str, Any] | None:
        """Returns a json object at `folder/key/name` that holds the recipe of this key, or None where it is absent."""
        return self._recipe(name, self.read_json(name, shape))

    def read_json(self, name: str, shape: Shape = dict) -> dict[str, Any] | None:
        """Returns a json object of the store, or None if it is absent. Raises StoreError if it has another shape."""
        return self._json(name, self.folder.read_if_there(name), shape)

    def read_jsons(self, names: Sequence[str], shape: Shape = dict) -> Iterator[dict[str, Any] | None]:
        """Yields several json objects of the store in order, None for each that is absent; fetched many at once."""
        for name, data in zip(names, self.folder.read_many(names), strict=True):
            yield self._json(name, data, shape)

    def numbered(self, folder: str, shape: Shape = dict) -> Iterator[dict[str, Any]]:
        """Yields the json objects 0000.json, 0001.json, ... of a folder, which are created without gaps.

        A listing says how many to read at once; reading decides where they end. Raises StoreError if one is lost.
        """
        listed = self.listed(folder, ".json")
        names = [numbered_name(folder, number) for number in range(len(listed))]
        for name, manifest in zip(names, self.read_jsons(names, shape), strict=True):
            if manifest is None:
                if later := [other for other in listed if f"{folder}/{other}" > name]:
                    raise StoreError(
                        f"{redact(self.folder.join(name))}: missing, though {later[-1]} was made after it. Restore the "
                        "object."
                    )
                return
            yield manifest
        number = len(names)
        while (manifest := self.read_json(numbered_name(folder, number), shape)) is not None:
            yield manifest
            number += 1

    def listed(self, folder: str, suffix: str) -> list[str]:
        """Returns names that a listing of the folder shows: a hint what to read, not what there is."""
        try:
            return [file.name for file in Folder(self.folder.join(folder)).list_files((suffix,))]
        except NotFoundError:
            return []

    def _json(self, name: str, data: bytes | None, shape: Shape = dict) -> dict[str, Any] | None:
        if data is None:
            return None
        try:
            content: dict[str, Any] = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._damaged(name, f"expected json ({error})") from error
        try:
            check_schema(content)
        except ValueError as error:
            raise StoreError(f"{redact(self.folder.join(name))}: {error}") from error
        if found := validate(content, shape):
            raise self._damaged(name, found)
        return content

    def _recipe(self, name: str, manifest: dict[str, Any] | None) -> dict[str, Any] | None:
        """Returns the manifest, after its recipe was compared with the key that it lies under."""
        if manifest is not None:
            key = name.split("/")[-2]
            if not Recipe.of(manifest).key == manifest["key"] == key:
                made_with = manifest["refseg_version"]
                raise self._damaged(
                    name, f"it was altered: its recipe is not that of {key} (by its own account of refseg {made_with})"
                )
        return manifest

    def _damaged(self, name: str, what: str) -> StoreError:
        return StoreError(
            f"{redact(self.folder.join(name))}: damaged: {what}. Restore the object; `refseg verify` finds all that "
            "are."
        )

    def manifests(self, folder: str, name: str = MANIFEST) -> list[dict[str, Any]]:
        """Returns every manifest below a folder, oldest first: to choose from, not to decide what is done."""
        names = [f"{folder}/{key}/{name}" for key in Folder(self.folder.join(folder)).list_folders()]
        read = self.read_jsons(names, ARTIFACT if name == MANIFEST else RECIPE)
        found = [self._recipe(*named) for named in zip(names, read, strict=True)]
        return sorted((manifest for manifest in found if manifest), key=lambda manifest: str(manifest["created"]))

    def whole_key(self, folder: str, start: str) -> str:
        """Returns the key of a folder that begins so, also where the folder's name is before it.

        Returns what was given where none does, which whoever looks for it says. Raises StoreError where several do.
        """
        wanted = start.strip("/").removeprefix(f"{folder}/")
        if len(wanted) >= _KEY_LENGTH or not wanted:
            return wanted
        keys = [key for key in Folder(self.folder.join(folder)).list_folders() if key.startswith(wanted)]
        if len(keys) > 1:
            raise StoreError(
                f"{redact(self.uri)}: {start!r} begins several of its {folder}: {listed(keys)}. Give more."
            )
        return keys[0] if keys else wanted

    def load(self, artifact: Artifact, table: type[AnyTable]) -> AnyTable:
        """Returns one table of an artifact. Raises StoreError where it is absent, or not what its manifest says."""
        manifest = self.manifest(artifact.name)
        parts = {} if manifest is None else {part["table"]: part for part in manifest["tables"]}
        if table_name(table) not in parts:
            raise StoreError(f"{redact(self.uri)}: has no {artifact.name} with a table of {table_name(table)}.")
        return self.read_part(artifact.name, parts[table_name(table)], table)

    def named(self, name: str) -> Artifact:
        """Returns the artifact of the name `folder/key`. Raises StoreError where it does not exist."""
        manifest = self.manifest(name)
        if manifest is None:
            raise StoreError(f"{redact(self.uri)}: has no {name}. It was not made yet, or in another store.")
        return _artifact(manifest)


def describe_part(name: str, table: Table, data: bytes) -> dict[str, Any]:
    """Returns what a manifest says of a part: `data` is the table as it was put."""
    return {
        "name": name.rpartition("/")[2],
        "table": table_name(type(table)),
        "num_rows": len(table),
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def numbered_name(folder: str, number: int) -> str:
    """Returns where a folder's json object of that number lies."""
    return f"{folder}/{number:04d}.json"


def made_by() -> dict[str, Any]:
    """Returns what every manifest says of its making, none of it part of any key: schema, version, when and by whom."""
    return {
        "schema_version": SCHEMA_VERSION,
        "refseg_version": _refseg_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "created_by": f"{_user()}@{platform.node()}",
    }


@cache
def _refseg_version() -> str:
    """Read once: every manifest has it."""
    return version("refseg")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers often run as a user id without a name
        return str(os.getuid())


def table_name(table: type[Table]) -> str:
    """Returns a table's name in the store: LabeledImages is labeled_images."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", table.__name__).lower()


def size_of(manifest: Mapping[str, Any]) -> int:
    """Returns the size of the tables that a manifest names, in bytes."""
    return sum(part["size"] for part in manifest["tables"])


def _artifact(manifest: Mapping[str, Any]) -> Artifact:
    num_rows = {part["table"]: part["num_rows"] for part in manifest["tables"]}
    return Artifact(manifest["folder"], manifest["key"], num_rows)
