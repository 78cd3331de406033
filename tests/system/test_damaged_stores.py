"""A store that is damaged: every command names what is damaged, and none makes it worse."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tasks.store.garbage import find_garbage, remove
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.commands import contents, done, refseg, refused, without_prefect
from tests.support.projects.project import Project

pytest_plugins = ["tests.support.projects.tiny_project"]


class Damage(NamedTuple):
    """What is done to an object: its new bytes, or None where it is deleted."""

    name: str
    apply: Callable[[bytes], bytes | None]


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def _with(**changes: Any) -> Callable[[bytes], bytes]:
    """A json object with other values; `...` drops the key."""

    def change(data: bytes) -> bytes:
        content = json.loads(data) | changes
        return json.dumps({key: value for key, value in content.items() if value is not ...}).encode()

    return change


def _with_part(**changes: Any) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        content = json.loads(data)
        content["tables"][0] |= changes
        return json.dumps(content).encode()

    return change


_OF_ALL = [
    Damage("empty", lambda _: b""),
    Damage("cut", lambda data: data[: len(data) // 2]),
    Damage("altered", _flipped),
    Damage("zeros", lambda data: bytes(len(data))),
]
_OF_JSON = [
    *(
        Damage(f"json {text!r:.20}", lambda _, text=text: text)
        for text in (b"[]", b"{}", b"null", b"7", b'"a"', b"[1]")
    ),
    Damage("no text", lambda _: b"\xff\xfe\xfa"),
    Damage("nested", lambda _: b"[" * 100_000),
]
_DROPPED = ["tables", "inputs", "settings", "key", "created", "weights", "version", "step"]
_OF_RECIPES = [
    *(Damage(f"without {key}", _with(**{key: ...})) for key in _DROPPED),
    *(Damage(f"{key} null", _with(**{key: None})) for key in _DROPPED),
    Damage("another version", _with(version=99)),
    Damage("another step", _with(step="other")),
    Damage("other inputs", _with(inputs={"dataset": "dataset/0123456789abcdef"})),
    Damage("other settings", _with(settings={"images": "/etc"})),
    Damage("another key", _with(key="../../etc")),
]
_OF_PARTS = [
    *(
        Damage(f"part's {key} null", _with_part(**{key: None}))
        for key in ("name", "table", "size", "sha256", "num_rows")
    ),
    *(Damage(f"part's {key} another", _with_part(**{key: value})) for key, value in (("name", "x"), ("table", "x"))),
    *(Damage(f"part's {key} wrong", _with_part(**{key: -1})) for key in ("size", "num_rows")),
]


@pytest.fixture(autouse=True)
def plain_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without Prefect."""
    without_prefect(monkeypatch)


@pytest.fixture
def finished(project: Project) -> Project:
    """A project whose store is finished, evaluated, and then labeled once more with one more image."""
    done(refseg("run", project.write_config()))
    listed = project.write_config(targets__annotations=None)
    done(refseg("run", listed))
    project.add_target("new.png", 50)
    done(refseg("run", listed))
    done(refseg("gc", project.folder / "store", "--yes", "--min-age", "0"))
    return project


def _objects(store: Path) -> list[str]:
    """The last object of each kind."""
    return sorted({re.sub(r"/[0-9a-f-]{4,}", "/", name): name for name in contents(store)}.values())


def _damages(name: str) -> Iterator[Damage]:
    yield from _OF_ALL
    if name.endswith(".json"):
        yield from _OF_JSON
    if name.endswith(("manifest.json", "recipe.json")):
        yield from (damage for damage in _OF_RECIPES if "tables" not in damage.name or name.endswith("manifest.json"))
    if name.endswith("manifest.json") or "/plans/0" in name or "/shards/" in name:
        # Nobody reads which table a plan's part is.
        yield from (damage for damage in _OF_PARTS if "table another" not in damage.name or "/plans/" not in name)
    if "/plans/0" in name:
        yield from (Damage(f"{number} a shard", _with(images_per_shard=number)) for number in (0, -1, "2", None))
    if "/requests/0002" in name:  # nobody reads what the earlier ones say
        yield from (
            Damage(f"dataset {value!r}", _with(dataset=value)) for value in (None, "", "a", "dataset/0", "../x")
        )
    if "/shards/" in name:
        yield from (Damage(f"images {value!r}", _with(images=value)) for value in (None, {}, {"ok": 1}, [1]))
        yield from (Damage(f"list of tables {value!r}", _with(tables=value)) for value in (None, [], {}))


def _commands(store: Path, out: Path) -> list[tuple[str | Path, ...]]:
    return [
        ("status", store),
        ("status", store, "--json"),
        ("export", store, "--out", out / "results.json"),
        ("export", store, "--format", "coco", "--out", out / "coco.json"),
    ]


def _is_reported(store: Path, *command: str | Path) -> bool:
    """Whether the command was refused; it must else have ended well."""
    result = refseg(*command)
    if result.exit_code == (command[0] == "verify"):  # which then lists the faults
        return False
    assert str(store) in refused(result)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("of_labels", [True, False], ids=["labels", "artifacts"])
def test_whatever_is_damaged_is_named_and_no_command_makes_it_worse(of_labels: bool, finished: Project) -> None:
    store, out = finished.folder / "store", finished.folder / "out"
    num_cases = 0
    for name in (name for name in _objects(store) if name.startswith("labels/") == of_labels):
        data = (store / name).read_bytes()
        for damage in _damages(name):
            (store / name).write_bytes(damage.apply(data) or b"")
            before = contents(store)
            verified = verify_store(Store(str(store)))
            # An altered name or count is noted where it shows: at the part, or at the table that lacks.
            assert verified.problems, (name, damage.name)
            key = name.split("/")[1]
            assert all(key in problem.name or "made from" in problem.what for problem in verified.problems)
            if damage in (*_OF_ALL, *_OF_JSON, *_OF_RECIPES):
                assert {problem.name for problem in verified.problems} == {name}, (name, damage.name, verified.problems)
            reading = [*_commands(store, out), ("verify", store)]
            _is_reported(store, "gc", store, "--yes", "--min-age", "0")
            _is_reported(store, *reading[num_cases % len(reading)])
            assert contents(store) == before, (name, damage.name)
            num_cases += 1
        (store / name).write_bytes(data)
        assert verify_store(Store(str(store))).problems == []
    assert num_cases > 100


@pytest.mark.slow
def test_a_run_over_a_damaged_store_ends_well_or_names_the_damage_and_rewrites_nothing(finished: Project) -> None:
    store = finished.folder / "store"
    config = finished.write_config(targets__annotations=None)
    for name in _objects(store):
        data = (store / name).read_bytes()
        for damage in (_OF_ALL[1], _OF_ALL[2], *(_OF_JSON[:2] if name.endswith(".json") else ())):
            (store / name).write_bytes(damage.apply(data) or b"")
            before = contents(store)
            for command in (("run", config), ("show", store, "--limit", "1", "--out", finished.folder / "out")):
                _is_reported(store, *command)
            after = contents(store)
            assert {key: after[key] for key in before} == before, (name, damage.name)
        (store / name).write_bytes(data)
    assert verify_store(Store(str(store))).problems == []
    done(refseg("run", config))


_MADE_AGAIN = ("gone_labels/", "metrics/", "/shards/")  # a run makes them again, and needs no others for it


@pytest.mark.slow
def test_whatever_is_deleted_is_named_or_made_again(finished: Project) -> None:
    """Exactly as it was, but for times; and gc takes nothing for a leftover that only lost its manifest."""
    store = finished.folder / "store"
    config = finished.write_config(targets__annotations=None)
    for name in _objects(store):
        data = (store / name).read_bytes()
        (store / name).unlink()
        before = contents(store)
        faults = {problem.name for problem in verify_store(Store(str(store))).problems}
        is_unused = any(kind in name for kind in _MADE_AGAIN) and name.endswith(".json")
        if not is_unused:
            # A last plan shows by its shards, a last request by the one before it, whose dataset is removed already.
            assert faults, name
            assert name in faults or "/plans/0" in name or "/requests/" in name
            assert _is_reported(store, "gc", store, "--yes", "--min-age", "0"), (name, faults)
            assert contents(store) == before, name
        for command in _commands(store, finished.folder / "out")[:2]:
            _is_reported(store, *command)
        is_reported = _is_reported(store, "run", config)
        after = contents(store)
        assert {key: after[key] for key in before} == before, name
        if not is_reported and name in after and name.endswith(".parquet"):
            assert after[name] == data, name
        (store / name).write_bytes(data)
        assert verify_store(Store(str(store))).problems == [], name


@pytest.mark.slow
def test_a_removal_of_whole_labels_may_be_stopped_anywhere(finished: Project) -> None:
    store = Store(str(finished.folder / "store"))
    run, _ = newest_labels(store)
    garbage = find_garbage(store, min_age_hours=0, labels=[run.key])
    for stop in range(len(garbage)):
        remove(store, garbage[stop : stop + 1])
        assert verify_store(store).problems == []
        find_garbage(store, min_age_hours=0)
    assert find_garbage(store, min_age_hours=0) == []
