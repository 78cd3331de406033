"""Where everything belongs: who may import whom, what lies where, and through which single door the outside comes in.

    flows -> tasks -> refseg_core          never back
    inside refseg_core step modules never import each other; only labeling composes proposals, matching, merging
    at the top of tasks/ are tasks, which never import each other, and their specs
    no circles between files, nor between the entries of a folder, of which none has more than fifteen
    no chain of imports of more than fourteen modules

A rule takes a module, or all of them, and returns what breaks it, as a sentence, so that a failing test says which
arrow it is. New modules need no entry here: what is not a step, nor made of steps, is shared, and may be imported by
all above it. An import for types only counts for who may know whom, but makes no circle (see `shape.py`).
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.shape import (
    LAYERS,
    Module,
    circles,
    entries,
    folder_graphs,
    import_graph,
    imports,
    longest_chain,
    read_modules,
)

_MOST_ENTRIES = 15  # of a folder: files and folders
_LONGEST_CHAIN = 14  # modules, from importer to imported

_LABELING = {f"refseg_core.labeling.{step}" for step in ("proposals", "matching", "merging")}
_STEPS = {
    *("refseg_core.datasets.coco", "refseg_core.evaluation"),
    *(f"refseg_core.references.{step}" for step in ("sampling", "segmentation", "memory_bank", "prototypes")),
    *_LABELING,
}
# What in refseg_core is made of steps, and of which.
_COMPOSED_OF = {
    "refseg_core.labeling.composing": _LABELING,
    "refseg_core.labeling.batch_labeler": {*_LABELING, "refseg_core.labeling.composing"},
    "refseg_core.labeling.labeler": {
        *(f"refseg_core.references.{step}" for step in ("segmentation", "memory_bank", "prototypes")),
        "refseg_core.labeling.batch_labeler",
    },
    "refseg_core.datasets": {"refseg_core.datasets.coco"},
}
# Nothing else in refseg_core imports these.
_ABOVE_ALL = {f"refseg_core.labeling.{part}" for part in ("composing", "batch_labeler", "labeler")}

# Third-party names and the only modules that may import them.
_DOORS: dict[str, tuple[str, ...]] = {
    "fsspec": ("tasks.storage",),
    "s3fs": ("tasks.storage",),
    "aiobotocore": ("tasks.storage",),
    "botocore": ("tasks.storage",),
    "boto3": ("tasks.storage",),
    "requests": ("tasks.storage",),
    "httpx": ("tasks.storage", "flows.execution.prefect_api"),  # Prefect's client raises its errors
    "pyarrow.parquet": ("tasks.store.parquet",),
    "matplotlib": ("flows.reports.charts",),
    "supervision": ("refseg_core.labeling.image_detections",),
    "sam2": ("refseg_core.models.sam2",),
    "dinov2": ("refseg_core.models.dinov2",),
    "pycocotools": ("refseg_core.masks.rle",),
    "pillow_heif": ("refseg_core.images",),
    "pycocotools.coco": (),  # an oracle of tests, like the next
    "pycocotools.cocoeval": (),
    "prefect": ("flows", "tasks.runtime", "tasks.outputs.prefect_ui"),
    "dask": ("flows.execution.engines",),
    "distributed": ("flows.execution.engines",),
    "prefect_dask": ("flows.execution.engines",),
    "click": ("flows.cli",),
    "rich": ("flows",),
    "fastapi": ("flows.review",),
    "starlette": ("flows.review",),
    "uvicorn": ("flows.review", "flows.execution.temporary_server"),
    "xml": ("refseg_core.datasets",),
}
_KEPT_OUT = {"flows": ("torch", "torchvision")}

# What of its own layer a folder may import, besides itself.
_STANDS_ON = {
    "refseg_core.masks": ("refseg_core.errors",),
    "refseg_core.models": ("refseg_core.errors",),
    "refseg_core.visualization": ("refseg_core.errors", "refseg_core.masks"),
    "tasks.runtime": (),
    "tasks.storage": (),
    "tasks.store": ("tasks.storage", "tasks.runtime"),
    "tasks.datasets": ("tasks.storage", "tasks.store", "tasks.specs"),
    "tasks.models": ("tasks.storage", "tasks.store", "tasks.datasets", "tasks.runtime", "tasks.specs"),
    "tasks.outputs": ("tasks.storage", "tasks.store", "tasks.datasets", "tasks.runtime"),
    "flows.config": (),
    "flows.execution": ("flows.config", "flows.errors"),
}
# What of its own layer may import these, besides themselves; all of local_stack/ could go without touching the rest.
_KNOWN_BY: dict[str, tuple[str, ...]] = {
    "flows.cli": (),
    "flows.local_stack": ("flows.cli",),
    "flows.review": ("flows.cli", "flows.reports"),
}

# refseg_core has no paths, URIs, clock or processes.
_WORLD = {
    *("os", "pathlib", "shutil", "tempfile", "glob", "time", "datetime", "subprocess", "multiprocessing", "socket"),
    *("urllib", "http", "ftplib", "getpass", "platform", "click", "rich", "yaml"),
}
_PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
_LOCAL_GENERATORS = {
    "random": {"Random"},
    "np.random": {"Generator", "default_rng", "SeedSequence", "BitGenerator", "PCG64"},
    "numpy.random": {"Generator", "default_rng", "SeedSequence", "BitGenerator", "PCG64"},
}
_WEIGHTS_DOOR = "refseg_core.models.checkpoints"
_TORCH_GLOBAL = {"torch.manual_seed", "torch.seed", "torch.random.manual_seed", "torch.cuda.manual_seed_all"}


_MODULES = read_modules()


def _is_within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def against_the_layers(module: Module) -> Iterator[str]:
    """flows -> tasks -> refseg_core, never back; the source never imports its tests."""
    above = (*LAYERS[LAYERS.index(module.layer) + 1 :], "tests")
    for name in imports(module):
        if any(_is_within(name, layer) for layer in above):
            yield f"{module.name} imports {name}: arrows go {' -> '.join(reversed(LAYERS))}, never back"


def steps_that_know_each_other(module: Module) -> Iterator[str]:
    """Steps never import each other; what is shared imports no step."""
    if module.layer != "refseg_core" or module.name == "refseg_core":  # which only names what users import
        return
    own = _part(module.name)
    for name in imports(module):
        part = _part(name)
        if part == own:
            continue
        if part in _STEPS - _COMPOSED_OF.get(own, set()):
            yield f"{module.name} imports the step {part}: only {', '.join(_COMPOSED_OF)} may compose steps"
        elif part in _ABOVE_ALL - _COMPOSED_OF.get(own, set()):
            yield f"{module.name} imports {part}, which is made of steps: it stands above all of refseg_core"


def _part(name: str) -> str:
    """The step that a module of refseg_core belongs to, or what is made of steps; "" for what is shared."""
    parts = (part for part in {*_STEPS, *_COMPOSED_OF} if _is_within(name, part))
    return max(parts, key=len, default="")


def _of_layer(module: Module) -> Iterator[str]:
    """What the module imports of its own layer."""
    return (name for name in imports(module) if _is_within(name, module.layer))


def past_what_a_folder_stands_on(module: Module) -> Iterator[str]:
    """A folder imports of its layer only what it stands on, and some are known only by what is above all."""
    for folder, allowed in _STANDS_ON.items():
        if not _is_within(module.name, folder):
            continue
        for name in _of_layer(module):
            if not any(_is_within(name, one) for one in (folder, *allowed)):
                yield f"{module.name} imports {name}: {folder} stands on {', '.join(allowed) or 'nothing of its layer'}"
    for folder, knowing in _KNOWN_BY.items():
        if any(_is_within(module.name, one) for one in (folder, *knowing)):
            continue
        for name in _of_layer(module):
            if _is_within(name, folder):
                yield f"{module.name} imports {name}: only {', '.join(knowing) or 'nobody'} may know {folder}"


def tasks_that_know_each_other(module: Module) -> Iterator[str]:
    """Flows alone bring tasks together; what several tasks need lies in a folder below."""
    if module.layer != "tasks":
        return
    for name in imports(module):
        task = ".".join(name.split(".")[:2])
        if task in _TASKS - {module.name}:
            yield f"{module.name} imports the task {task}: what both need belongs in a folder of tasks/"


def strangers_among_the_tasks(module: Module) -> Iterator[str]:
    """At the top of tasks/ are only Prefect tasks and `specs.py`, their parameters."""
    if _is_at_the_top_of_tasks(module) and not _has_a_task(module):
        yield f"{module.name} has no @retried_task: what tasks stand on belongs in a folder of tasks/"


def _is_at_the_top_of_tasks(module: Module) -> bool:
    return module.folder == "tasks" and not module.is_package and module.name != "tasks.specs"


def _has_a_task(module: Module) -> bool:
    functions = (node for node in module.tree.body if isinstance(node, ast.FunctionDef))
    return any("retried_task" in ast.unparse(one) for function in functions for one in function.decorator_list)


_TASKS = {module.name for module in _MODULES if _is_at_the_top_of_tasks(module)}


def outside_past_its_door(module: Module) -> Iterator[str]:
    """Each third-party name is imported where _DOORS says, and nowhere else."""
    for name in imports(module):
        for outside, doors in _DOORS.items():
            if _is_within(name, outside) and not any(_is_within(module.name, door) for door in doors):
                yield f"{module.name} imports {name}: the door to {outside} is {', '.join(doors) or 'in tests'}"
        for place, unwanted in _KEPT_OUT.items():
            if _is_within(module.name, place) and any(_is_within(name, outside) for outside in unwanted):
                yield f"{module.name} imports {name}: {place} does without it"


def world_in_the_core(module: Module) -> Iterator[str]:
    """refseg_core is pure: no paths, URIs, clock, files, nor a global random generator."""
    if module.layer != "refseg_core":
        return
    for name in imports(module):
        if name.split(".")[0] in _WORLD:
            yield f"{module.name} imports {name}: refseg_core has no paths, URIs, clock or processes"
    forked = {id(node) for block in ast.walk(module.tree) if _forks_torch(block) for node in ast.walk(block)}
    for node in ast.walk(module.tree):
        name = _dotted(node)
        owner, _, member = name.rpartition(".")
        if owner in _LOCAL_GENERATORS and member not in _LOCAL_GENERATORS[owner]:
            yield f"{module.name} uses {name}: refseg_core draws from local generators only"
        if name in _TORCH_GLOBAL and id(node) not in forked:
            yield f"{module.name} uses {name} outside torch.random.fork_rng: the global generator is not ours"
        if isinstance(node, ast.Call) and _dotted(node.func) == "open":
            yield f"{module.name} opens a file: refseg_core takes bytes and arrays"


def _forks_torch(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items)


def pickles(module: Module) -> Iterator[str]:
    """Nothing is unpickled but weights, by torch.load in refseg_core/models/checkpoints.py."""
    for name in imports(module):
        if name.split(".")[0] in _PICKLES:
            yield f"{module.name} imports {name}: pickles run whatever they hold"
        if name == "torch.load":
            yield f"{module.name} imports {name}: write torch.load, in refseg_core/models/checkpoints.py only"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and _dotted(node) == "torch.load" and module.name != _WEIGHTS_DOOR:
            yield f"{module.name} uses torch.load: only refseg_core.models.checkpoints does"


def prints(module: Module) -> Iterator[str]:
    """Messages go through logging, results through the console of flows/."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _dotted(node.func) == "print":
            yield f"{module.name}:{node.lineno} prints: use logging, or the console in flows/"


def silence_about_itself(module: Module) -> Iterator[str]:
    """A module opens by saying what belongs in it."""
    if not module.name.split(".")[-1].startswith("_") and not ast.get_docstring(module.tree):
        yield f"{module.name} has no docstring: say what belongs in it and what does not"


def files_in_circles(modules: Sequence[Module]) -> Iterator[str]:
    """No file imports, by whatever way, one that imports it."""
    for group in circles(import_graph(modules)):
        yield f"{', '.join(group)} import each other: let what they share be a module of its own"


def entries_in_circles(modules: Sequence[Module]) -> Iterator[str]:
    """In no folder do two entries, files or folders with all that they hold, import each other."""
    for folder, graph in folder_graphs(import_graph(modules)).items():
        for group in circles(graph):
            yield f"{', '.join(group)} of {folder or 'the checkout'} import each other: one has to be below the other"


def chains_too_long(modules: Sequence[Module]) -> Iterator[str]:
    """A reader follows a chain of imports from its top to its bottom."""
    chain = longest_chain(import_graph(modules))
    if len(chain) > _LONGEST_CHAIN:
        yield f"{' -> '.join(chain)} are {len(chain)} modules; more than {_LONGEST_CHAIN} are too many: cut a link"


def crowded_folders(root: Path) -> Iterator[str]:
    """A folder that holds too much says nothing about where a thing belongs."""
    for folder, number in entries(root).items():
        if number > _MOST_ENTRIES:
            yield f"{folder} has {number} entries; more than {_MOST_ENTRIES} are a heap: some need their own folder"


_RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    against_the_layers,
    steps_that_know_each_other,
    past_what_a_folder_stands_on,
    tasks_that_know_each_other,
    strangers_among_the_tasks,
    outside_past_its_door,
    world_in_the_core,
    pickles,
    prints,
    silence_about_itself,
)


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule.__name__)
def test_no_module_goes(rule: Callable[[Module], Iterator[str]]) -> None:
    broken = [sentence for module in _MODULES for sentence in rule(module)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    "rule", [files_in_circles, entries_in_circles, chains_too_long], ids=lambda rule: rule.__name__
)
def test_there_are_no(rule: Callable[[Sequence[Module]], Iterator[str]]) -> None:
    broken = list(rule(_MODULES))
    assert not broken, "\n" + "\n".join(broken)


def test_no_folder_is_a_heap() -> None:
    broken = list(crowded_folders(Path(__file__).resolve().parents[1]))
    assert not broken, "\n" + "\n".join(broken)


def test_everything_that_a_rule_names_exists() -> None:
    names = {module.name for module in _MODULES}
    assert {*_STEPS, *_COMPOSED_OF, *_STANDS_ON, *_KNOWN_BY, "tasks.specs", "refseg_core.models.checkpoints"} <= names
    assert {door for doors in (*_DOORS.values(), *_STANDS_ON.values(), *_KNOWN_BY.values()) for door in doors} <= names


_A_TASK = "@retried_task('x')\ndef x() -> None:\n    return None\n"
_PLANTED = [
    ("refseg_core.tables", "import tasks.storage", against_the_layers),
    ("refseg_core.tables", "from tasks import storage", against_the_layers),
    ("tasks.store.label_store", "def load():\n    from flows.cli.main import main", against_the_layers),
    ("flows.cli.main", "from tests.support.models import tiny_encoder", against_the_layers),
    (
        "refseg_core.labeling.matching",
        "from refseg_core.labeling.merging import Merged",
        steps_that_know_each_other,
    ),
    ("refseg_core.labeling.matching", "from refseg_core.labeling import merging", steps_that_know_each_other),
    ("refseg_core.labeling.matching", "from . import merging", steps_that_know_each_other),
    ("refseg_core.labeling.matching", "from .merging import Merged", steps_that_know_each_other),
    ("refseg_core.images", "from refseg_core.datasets.coco import parse_coco", steps_that_know_each_other),
    ("refseg_core.analysis.label_agreement", "import refseg_core.evaluation", steps_that_know_each_other),
    (
        "refseg_core.labeling.batch_labeler",
        "from refseg_core.references.sampling import sample_references",
        steps_that_know_each_other,
    ),
    (
        "refseg_core.datasets.coco.writer",
        "from refseg_core.labeling.batch_labeler import BatchLabeler",
        steps_that_know_each_other,
    ),
    ("refseg_core.masks.rle", "from refseg_core.tables import Images", past_what_a_folder_stands_on),
    ("refseg_core.models.dinov2", "from refseg_core import images", past_what_a_folder_stands_on),
    ("tasks.storage.retry", "from tasks.store.store import Store", past_what_a_folder_stands_on),
    ("tasks.store.store", "from tasks.outputs import pictures", past_what_a_folder_stands_on),
    ("tasks.datasets.indexed", "def load():\n    import tasks.models.loading", past_what_a_folder_stands_on),
    ("flows.execution.engines", "from flows.pipeline import run_pipeline", past_what_a_folder_stands_on),
    ("flows.demo", "from flows.cli.main import main", past_what_a_folder_stands_on),
    ("flows.service.status", "from flows.local_stack import options", past_what_a_folder_stands_on),
    ("tasks.label_shard", f"{_A_TASK}from tasks.evaluate import evaluate", tasks_that_know_each_other),
    ("tasks.label_shard", f"{_A_TASK}from tasks import evaluate", tasks_that_know_each_other),
    ("tasks.helpers", "def help_out() -> None:\n    return None", strangers_among_the_tasks),
    ("tasks.datasets.image_reader", "import fsspec.core", outside_past_its_door),
    ("tasks.store.label_store", "import pyarrow.parquet as pq", outside_past_its_door),
    ("tasks.store.label_store", "from pyarrow import parquet", outside_past_its_door),
    ("refseg_core.labeling.proposals", "from sam2.build_sam import build_sam2", outside_past_its_door),
    ("refseg_core.datasets.coco", "from pycocotools import mask", outside_past_its_door),
    ("refseg_core.masks.rle", "from pycocotools.coco import COCO", outside_past_its_door),
    ("refseg_core.evaluation.curves", "from pycocotools import cocoeval", outside_past_its_door),
    ("refseg_core.labeling.batch_labeler", "from prefect import task", outside_past_its_door),
    ("tasks.storage.folder", "from prefect import task", outside_past_its_door),
    ("tasks.store.parquet", "from prefect import task", outside_past_its_door),
    ("tasks.models.loading", "import click", outside_past_its_door),
    ("flows.pipeline", "from click import echo", outside_past_its_door),
    ("flows.pipeline", "import prefect_dask", outside_past_its_door),
    ("flows.pipeline", "import torch", outside_past_its_door),
    ("refseg_core.datasets.coco", "from pathlib import Path", world_in_the_core),
    ("refseg_core.labeling.batch_labeler", "import time", world_in_the_core),
    ("refseg_core.images", "open('a.jpg')", world_in_the_core),
    ("refseg_core.references.sampling", "import random\nrandom.shuffle([1])", world_in_the_core),
    ("refseg_core.references.sampling", "import numpy as np\nnp.random.rand(3)", world_in_the_core),
    ("refseg_core.models.dinov2", "import torch\ntorch.manual_seed(0)", world_in_the_core),
    ("tasks.store.store", "import pickle", pickles),
    ("tasks.store.store", "from joblib import dump", pickles),
    ("tasks.models.loading", "import torch\ntorch.load('a.pt')", pickles),
    ("tasks.models.loading", "from torch import load", pickles),
    ("flows.cli.main", "print('done')", prints),
    ("refseg_core.datasets.coco.writer", "import json", silence_about_itself),
]


@pytest.mark.parametrize(("name", "source", "rule"), _PLANTED)
def test_what_breaks_a_rule_is_found_by_that_rule_and_named(
    name: str, source: str, rule: Callable[[Module], Iterator[str]]
) -> None:
    documented = source if rule is silence_about_itself else f'"""A module."""\n{source}'
    module = Module(name, ast.parse(documented))
    assert [other for other in _RULES if list(other(module))] == [rule]
    assert all(name in sentence for sentence in rule(module))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (
            "flows.pipeline",
            "from prefect import flow\nfrom tasks.evaluate import evaluate\nimport refseg_core.settings",
        ),
        ("tasks.storage.folder", "import fsspec"),
        ("tasks.specs", "from refseg_core.settings import Settings"),
        ("tasks.label_shard", f"{_A_TASK}from tasks.store import lineage\nfrom tasks.specs import LabelJob"),
        ("tasks.outputs.prefect_ui.progress", "from prefect.artifacts import create_progress_artifact"),
        ("flows.cli.service", "from flows.local_stack.options import StackOptions\nimport click"),
        ("tasks.store.parquet", "import pyarrow.parquet as pq"),
        ("refseg_core.models.checkpoints", "import torch\ntorch.load('a.pt', weights_only=True)"),
        ("refseg_core.labeling.batch_labeler", "from refseg_core.labeling import matching, merging"),
        (
            "refseg_core.visualization.panels",
            "from refseg_core.visualization import colors\nfrom .plates import plate",
        ),
        ("refseg_core.references.sampling", "import random\nrandom.Random(3).shuffle([1])\n'a.b'.split('.')"),
        ("refseg_core.models.sam2", "import torch\nwith torch.random.fork_rng():\n    torch.manual_seed(3)"),
        ("flows.terminal", "console.print('done')"),
    ],
)
def test_what_breaks_no_rule_is_let_through(name: str, source: str) -> None:
    module = Module(name, ast.parse(f'"""A module."""\n{source}'))
    assert [sentence for rule in _RULES for sentence in rule(module)] == []


def _planted(*sources: tuple[str, str]) -> list[Module]:
    return [Module(name, ast.parse(source)) for name, source in sources]


def test_circles_are_found_and_named_between_files_and_between_folders() -> None:
    a_circle = _planted(("flows.a", "def f():\n    import flows.b"), ("flows.b", "from flows.c.d import e"))
    a_circle += _planted(("flows.c.d", "from flows import a"), ("flows.c.other", "import flows.a"))
    assert [sentence.split(" import ")[0] for sentence in files_in_circles(a_circle)] == ["flows.a, flows.b, flows.c.d"]
    assert [sentence.split(" import ")[0] for sentence in entries_in_circles(a_circle)] == ["a, b, c of flows"]
    between_folders = _planted(("tasks.a.one", "import tasks.b.two"), ("tasks.b.two", ""))
    between_folders += _planted(("tasks.b.three", "import tasks.a.four"), ("tasks.a.four", ""))
    assert not list(files_in_circles(between_folders))
    assert [sentence.split(" import ")[0] for sentence in entries_in_circles(between_folders)] == ["a, b of tasks"]


def test_a_chain_that_is_too_long_is_found_and_named() -> None:
    def chain(length: int) -> list[Module]:
        names = [f"tasks.link{index}" for index in range(length)]
        links = zip(names, [*(f"import {name}" for name in names[1:]), ""], strict=True)
        return _planted(*links)

    assert not list(chains_too_long(chain(_LONGEST_CHAIN)))
    (sentence,) = chains_too_long(chain(_LONGEST_CHAIN + 1))
    assert sentence.startswith("tasks.link0 -> tasks.link1 -> ")


def test_an_import_for_types_makes_no_circle_and_yet_goes_against_the_layers() -> None:
    for_types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flows.b import B"
    assert not list(files_in_circles(_planted(("flows.a", for_types), ("flows.b", "import flows.a"))))
    assert list(against_the_layers(*_planted(("tasks.a", for_types))))


def test_a_heap_is_found_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "tasks" / "store"
    (folder / "inner").mkdir(parents=True)
    (folder / "left_behind" / "__pycache__").mkdir(parents=True)
    (folder / "left_behind" / "__pycache__" / "gone.pyc").touch()
    for name in ("inner/__init__", "__init__", *(f"file{number}" for number in range(_MOST_ENTRIES - 1))):
        (folder / f"{name}.py").touch()
    assert not list(crowded_folders(tmp_path))
    (folder / "notes.md").touch()
    assert [sentence.split(" entries")[0] for sentence in crowded_folders(tmp_path)] == ["tasks/store has 16"]
