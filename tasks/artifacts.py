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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from refseg_core.columns import Table
from refseg_core.errors import StoreError
from tasks.addresses import redact
from tasks.storage import AnyTable, Folder, table_from_parquet, table_to_parquet

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

    @property
    def key(self) -> str:
        """The hash of the recipe, hexadecimal."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:_KEY_LENGTH]


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
    """The artifacts of a store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.folder = Folder(uri)

    def make(self, recipe: Recipe, compute: Callable[[], Sequence[Table]]) -> Artifact:
        """The artifact of a recipe: found, or else computed and saved."""
        return self.find(recipe) or self.save(recipe, compute())

    def find(self, recipe: Recipe) -> Artifact | None:
        """The artifact of a recipe, or None where it does not exist yet."""
        manifest = self.manifest(f"{recipe.folder}/{recipe.key}")
        return None if manifest is None else _artifact(recipe, manifest)

    def save(self, recipe: Recipe, tables: Sequence[Table]) -> Artifact:
        """Puts the tables, then the manifest. Where another writer was first, theirs is the artifact."""
        name = f"{recipe.folder}/{recipe.key}"
        parts = [self.put_table(f"{name}/{table_name(type(table))}.parquet", table) for table in tables]
        manifest = {**asdict(recipe), "key": recipe.key, **made_by(), "tables": parts}
        manifest = self.commit(f"{name}/{MANIFEST}", manifest)
        log.info("made %s", name)
        return _artifact(recipe, manifest)

    def put_table(self, name: str, table: Table) -> dict[str, Any]:
        """Puts a table unless it is there already; returns what a manifest says of it."""
        data = table_to_parquet(table)
        if not self.folder.create(name, data):
            # Left by a writer that was killed, or is at it now: what is there stays, and is what we describe.
            data = self.folder.read(name)
            table = table_from_parquet(data, type(table))
        return {
            "name": name.rpartition("/")[2],
            "table": table_name(type(table)),
            "num_rows": len(table),
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    def commit(self, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Creates a manifest; returns the one that is there now, ours or that of whoever was first."""
        if self.folder.create(name, json.dumps(manifest, indent=2).encode()):
            return manifest
        committed: dict[str, Any] = json.loads(self.folder.read(name))
        return committed

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of the artifact at `folder/key`, or None where there is none."""
        return self.read_json(f"{name}/{MANIFEST}")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A json object of the store, or None where it is absent."""
        data = self.folder.read_if_there(name)
        return None if data is None else json.loads(data)

    def manifests(self, folder: str, name: str = MANIFEST) -> list[dict[str, Any]]:
        """Every manifest below a folder, oldest first: for people to choose from, not for deciding what is done."""
        found = [self.read_json(f"{folder}/{key}/{name}") for key in Folder(self.folder.join(folder)).list_folders()]
        return sorted((manifest for manifest in found if manifest), key=lambda manifest: str(manifest["created"]))

    def load(self, artifact: Artifact, table: type[AnyTable]) -> AnyTable:
        """One table of an artifact."""
        return self.folder.read_table(f"{artifact.name}/{table_name(table)}.parquet", table)

    def artifact(self, folder: str, key: str) -> Artifact:
        """The artifact at `folder/key`. Raises StoreError where it does not exist."""
        manifest = self.manifest(f"{folder}/{key}")
        if manifest is None:
            raise StoreError(f"{redact(self.uri)}: has no {folder}/{key}. It was not made yet, or in another store.")
        return Artifact(folder, key, _num_rows(manifest))


def made_by() -> dict[str, str]:
    """Who makes an artifact, when, with which version: for people, not part of any key."""
    return {
        "refseg_version": version("refseg"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "created_by": f"{_user()}@{platform.node()}",
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers often run as a user id without a name
        return str(os.getuid())


def table_name(table: type[Table]) -> str:
    """A table's name in the store: LabeledImages is labeled_images."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", table.__name__).lower()


def _artifact(recipe: Recipe, manifest: Mapping[str, Any]) -> Artifact:
    return Artifact(recipe.folder, recipe.key, _num_rows(manifest))


def _num_rows(manifest: Mapping[str, Any]) -> dict[str, int]:
    return {part["table"]: part["num_rows"] for part in manifest["tables"]}
