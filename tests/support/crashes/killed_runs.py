"""Runs that are killed, and what must be true of what they leave; the fixtures are in `crash_scenes.py`."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from refseg_core.errors import NotFoundError
from refseg_core.tables import LabeledImages
from tasks.storage.folder import Folder
from tasks.store.parquet import table_from_parquet
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.counts import count
from tests.support.crashes.crashing import Attempt, Crashing, Death, Outcome
from tests.support.samples import table_rows
from tests.support.servers.object_stores import ObjectStore

NUM_IMAGES = 10
TABLES = ("detections", "labeled_images", "category_similarities")
_CHANGING = ("created", "created_by")  # what manifests say that is another at every attempt

Contents = dict[str, Any]
"""What a store shows, by name: the bytes of tables and the content of manifests, without what always differs."""


def visible_names(store: str) -> list[str]:
    """The objects that a store shows; a killed process may leave hidden local files."""
    try:
        files = Folder(store).list_files()
    except NotFoundError:  # killed before there was anything
        return []
    return [file.name for file in files if not file.name.rpartition("/")[2].startswith(".")]


def contents(store: str) -> Contents:
    """Everything a store shows. Fails where a table or a manifest is not whole."""
    names = visible_names(store)
    found = zip(names, Folder(store).read_many(names), strict=True)
    return {name: _content(name, data) for name, data in found if data is not None}


def _content(name: str, data: bytes) -> Any:
    if name.endswith(".json"):
        manifest = json.loads(data)
        for part in manifest.get("tables", ()):
            if part["table"] == "labeled_images":  # its column of seconds differs, and so do its bytes
                del part["size"], part["sha256"]
        return {key: value for key, value in manifest.items() if key not in _CHANGING}
    if "/labeled_images/" in name:
        return table_rows(table_from_parquet(data, LabeledImages), without=["seconds"])
    return data


def folder_as_one_table(store: str, table: str, filesystem: Any) -> pd.DataFrame:
    """What a person sees who reads all parts of a table of labels with pandas."""
    parts = [name for name in visible_names(store) if f"/{table}/" in name]
    if not parts:
        return pd.DataFrame({"image_id": []})
    folder = Folder(store).join(parts[0].rpartition("/")[0])
    return pd.read_parquet(folder.removeprefix("s3://"), filesystem=filesystem)


def rows_by_image(table: pd.DataFrame) -> dict[str, list[str]]:
    """Each image's rows as text, in order, without their times."""
    rows: dict[str, list[str]] = {}
    for row in table.drop(columns="seconds", errors="ignore").to_dict("records"):
        rows.setdefault(row["image_id"], []).append(str({name: _plain(value) for name, value in row.items()}))
    return rows


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


@dataclass(frozen=True)
class Undisturbed:
    """What one undisturbed run leaves: the store, its contents, and the rows of each table by image."""

    store: str
    contents: Contents
    rows: Mapping[str, dict[str, list[str]]]
    num_calls: int


@dataclass
class Scene:
    """A project, the place where its images lie and its stores will lie, and what undisturbed runs leave there."""

    crashing: Crashing
    content: Mapping[str, Any]
    place: str
    server: ObjectStore | None = None
    _undisturbed: dict[str, Undisturbed] = field(default_factory=dict)
    _num_stores: int = 0

    def new_store(self) -> str:
        """The URI of a store in which nothing is."""
        self._num_stores += 1
        return f"{self.place}/store-{self._num_stores}"

    @property
    def filesystem(self) -> Any:
        """How others than refseg read there."""
        return None if self.server is None else self.server.filesystem()

    def write_config(self, file: Path, *, store: str, **changes: Any) -> Path:
        """Writes the configuration file of the whole pipeline, with these sections instead of its own."""
        file.write_text(yaml.safe_dump({**self.content, "store": store, **changes}), encoding="utf-8")
        return file

    def run(self, store: str, *, pictures: str | None = None, **special: Any) -> Attempt:
        """An attempt to run the whole pipeline."""
        content = {**self.content, "store": store, "pictures": pictures}
        return Attempt("run", {"content": content}, self.environment, **special)

    @property
    def environment(self) -> Mapping[str, str]:
        return {} if self.server is None else self.server.environment

    def undisturbed(self, finds: str = "everything") -> Undisturbed:
        """What one undisturbed run leaves; it is run when it is first asked for."""
        if finds not in self._undisturbed:
            store = self.new_store()
            (outcome,) = self.crashing.attempt(self.run(store, finds=finds))
            rows = {table: rows_by_image(folder_as_one_table(store, table, self.filesystem)) for table in TABLES}
            assert {len(of_table) for of_table in rows.values()} == {NUM_IMAGES}, "there must be something to lose"
            self._undisturbed[finds] = Undisturbed(store, contents(store), rows, outcome.num_calls)
        return self._undisturbed[finds]


@dataclass
class Crashes:
    """Attempts on one store, and the count of what became of them."""

    scene: Scene
    store: str

    def attempt(self, *specials: Mapping[str, Any]) -> list[Outcome]:
        """Runs the pipeline, once for each mapping of what is special about it, all at once."""
        return self.make(*(self.scene.run(self.store, **special) for special in specials or ({},)))

    def make(self, *attempts: Attempt) -> list[Outcome]:
        """Makes the attempts, and counts who is killed."""
        outcomes = self.scene.crashing.attempt(*attempts)
        count("crash tests: kills", sum(outcome.is_killed for outcome in outcomes))
        return outcomes

    def kill(self, *deaths: Death, **special: Any) -> None:
        """Runs of which each is killed at its moment, one after the other."""
        for death in deaths:
            (outcome,) = self.attempt({"death": death, **special})
            assert outcome.is_killed, f"{death} did not come"

    def kill_perhaps(self, death: Death) -> bool:
        """A run that is killed unless it has ended before; says whether it was."""
        (outcome,) = self.attempt({"death": death})
        return outcome.is_killed

    def elsewhere(self) -> "Crashes":
        """The same in a store in which nothing is."""
        return replace(self, store=self.scene.new_store())

    def assert_whole(self) -> None:
        """Whatever is there is as the undisturbed run leaves it, and whoever reads the folders sees whole images."""
        undisturbed, found = self.scene.undisturbed(), contents(self.store)
        assert {name: undisturbed.contents.get(name) for name in found} == found
        assert verify_store(Store(self.store)).problems == []
        for table in TABLES:
            seen = rows_by_image(folder_as_one_table(self.store, table, self.scene.filesystem))
            assert {image: undisturbed.rows[table].get(image) for image in seen} == seen
        self.count_images(may_lack=True)

    def assert_exact(self) -> None:
        """The store is exactly that of one undisturbed run."""
        self.count_images()
        assert contents(self.store) == self.scene.undisturbed().contents
        assert verify_store(Store(self.store)).problems == []

    def count_images(self, *, may_lack: bool = False) -> None:
        """Counts images that were lost and that were labeled twice, and fails where there are any."""
        seen = Counter(folder_as_one_table(self.store, "labeled_images", self.scene.filesystem)["image_id"])
        lost = 0 if may_lack else NUM_IMAGES - len(seen)
        doubled = sum(number > 1 for number in seen.values())
        count("crash tests: images lost", lost)
        count("crash tests: images doubled", doubled)
        assert (lost, doubled) == (0, 0)
