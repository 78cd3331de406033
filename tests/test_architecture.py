"""Who may import whom, and through which single door the outside comes in.

    flows -> tasks -> refseg_core          never back
    inside refseg_core step modules never import each other; only labeling composes proposals, matching, merging

Every rule takes a module and returns what it breaks, as a sentence, so that a failing test says which arrow it is.
New modules need no entry here: what is not a step, nor made of steps, is shared, and may be imported by all above it.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_LAYERS = ("refseg_core", "tasks", "flows")  # each may import those before it

_LABELING = {f"refseg_core.labeling.{step}" for step in ("proposals", "matching", "merging")}
_STEPS = {
    *("refseg_core.datasets.coco", "refseg_core.evaluation"),
    *(f"refseg_core.references.{step}" for step in ("sampling", "segmentation", "memory_bank", "prototypes")),
    *_LABELING,
}
# What in refseg_core is made of steps, and of which.
_COMPOSED_OF = {
    "refseg_core.labeling.labeler": _LABELING,
    "refseg_core.demo": _STEPS,
    "refseg_core.datasets": {"refseg_core.datasets.coco"},
}
_ABOVE_ALL = {"refseg_core.labeling.labeler", "refseg_core.demo"}  # nothing in refseg_core imports these

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
    "sam2": ("refseg_core.models.segmenter",),
    "dinov2": ("refseg_core.models.encoder",),
    "pycocotools": ("refseg_core.masks.rle",),
    "pycocotools.coco": (),  # an oracle of tests, like the next
    "pycocotools.cocoeval": (),
    "prefect": ("flows", "tasks"),
}
_KEPT_OUT = {"tasks.storage": ("prefect",), "tasks.store.parquet": ("prefect",), "flows": ("torch", "torchvision")}

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
_TORCH_GLOBAL = {"torch.manual_seed", "torch.seed", "torch.random.manual_seed", "torch.cuda.manual_seed_all"}


class Module(NamedTuple):
    """A source file: its dotted name and its syntax tree."""

    name: str
    tree: ast.Module
    is_package: bool = False

    @property
    def layer(self) -> str:
        return self.name.split(".")[0]


def _modules() -> Iterator[Module]:
    for path in sorted(path for layer in _LAYERS for path in (_ROOT / layer).rglob("*.py")):
        parts = path.relative_to(_ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield Module(".".join(parts[:-1] if is_package else parts), ast.parse(path.read_text("utf-8")), is_package)


_MODULES = list(_modules())


def _imports(module: Module) -> Iterator[str]:
    """Dotted names, `from a import b` as a.b, relative ones resolved; at any depth of the file."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(module, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _base_of(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parents = module.name.split(".")
    parents = parents[: len(parents) - node.level + module.is_package]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _is_within(name: str, outer: str) -> bool:
    return name == outer or name.startswith(f"{outer}.")


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def against_the_layers(module: Module) -> Iterator[str]:
    """flows -> tasks -> refseg_core, never back; the source never imports its tests."""
    above = (*_LAYERS[_LAYERS.index(module.layer) + 1 :], "tests")
    for name in _imports(module):
        if any(_is_within(name, layer) for layer in above):
            yield f"{module.name} imports {name}: arrows go {' -> '.join(reversed(_LAYERS))}, never back"


def steps_that_know_each_other(module: Module) -> Iterator[str]:
    """Steps never import each other; what is shared imports no step."""
    if module.layer != "refseg_core":
        return
    own = _part(module.name)
    for name in _imports(module):
        part = _part(name)
        if part == own:
            continue
        if part in _STEPS - _COMPOSED_OF.get(own, set()):
            yield f"{module.name} imports the step {part}: only {', '.join(_COMPOSED_OF)} may compose steps"
        elif part in _ABOVE_ALL and own != "refseg_core.demo":
            yield f"{module.name} imports {part}, which is made of steps: it stands above all of refseg_core"


def _part(name: str) -> str:
    """The step that a module of refseg_core belongs to, or what is made of steps; "" for what is shared."""
    parts = (part for part in {*_STEPS, *_COMPOSED_OF} if _is_within(name, part))
    return max(parts, key=len, default="")


def outside_past_its_door(module: Module) -> Iterator[str]:
    """Each third-party name is imported where _DOORS says, and nowhere else."""
    for name in _imports(module):
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
    for name in _imports(module):
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
    """Nothing is unpickled but weights, by torch.load in tasks/models/weights.py."""
    for name in _imports(module):
        if name.split(".")[0] in _PICKLES:
            yield f"{module.name} imports {name}: pickles run whatever they hold"
        if name == "torch.load":
            yield f"{module.name} imports {name}: write torch.load, in tasks/models/weights.py only"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and _dotted(node) == "torch.load" and module.name != "tasks.models.weights":
            yield f"{module.name} uses torch.load: only tasks.models.weights does"


def prints(module: Module) -> Iterator[str]:
    """Messages go through logging, results through the console of flows/."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _dotted(node.func) == "print":
            yield f"{module.name}:{node.lineno} prints: use logging, or the console in flows/"


def silence_about_itself(module: Module) -> Iterator[str]:
    """A module opens by saying what belongs in it."""
    if not module.name.split(".")[-1].startswith("_") and not ast.get_docstring(module.tree):
        yield f"{module.name} has no docstring: say what belongs in it and what does not"


_RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    against_the_layers,
    steps_that_know_each_other,
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


def test_every_step_of_the_table_exists() -> None:
    names = {module.name for module in _MODULES}
    assert {*_STEPS, *_COMPOSED_OF} <= names
    assert set(_DOORS["fsspec"]) | set(_DOORS["sam2"]) | {"tasks.models.weights"} <= names


_PLANTED = [
    ("refseg_core.tables", "import tasks.storage", against_the_layers),
    ("refseg_core.tables", "from tasks import storage", against_the_layers),
    ("tasks.store.label_store", "def load():\n    from flows.cli.main import main", against_the_layers),
    ("flows.cli.main", "from tests.support.models import tiny_encoder", against_the_layers),
    (
        "refseg_core.labeling.matching",
        "from refseg_core.labeling.merging import mask_boxes",
        steps_that_know_each_other,
    ),
    ("refseg_core.labeling.matching", "from refseg_core.labeling import merging", steps_that_know_each_other),
    ("refseg_core.labeling.matching", "from . import merging", steps_that_know_each_other),
    ("refseg_core.labeling.matching", "from .merging import mask_boxes", steps_that_know_each_other),
    ("refseg_core.masks.rle", "from refseg_core.datasets.coco import parse_coco", steps_that_know_each_other),
    ("refseg_core.visualization.panels", "import refseg_core.evaluation", steps_that_know_each_other),
    (
        "refseg_core.labeling.labeler",
        "from refseg_core.references.sampling import sample_references",
        steps_that_know_each_other,
    ),
    (
        "refseg_core.datasets.coco.writer",
        "from refseg_core.labeling.labeler import Labeler",
        steps_that_know_each_other,
    ),
    ("refseg_core.datasets.coco.writer", "from refseg_core.demo.scenes import draw", steps_that_know_each_other),
    ("tasks.datasets.image_reader", "import fsspec.core", outside_past_its_door),
    ("tasks.store.label_store", "import pyarrow.parquet as pq", outside_past_its_door),
    ("tasks.store.label_store", "from pyarrow import parquet", outside_past_its_door),
    ("refseg_core.labeling.proposals", "from sam2.build_sam import build_sam2", outside_past_its_door),
    ("refseg_core.datasets.coco", "from pycocotools import mask", outside_past_its_door),
    ("refseg_core.masks.rle", "from pycocotools.coco import COCO", outside_past_its_door),
    ("refseg_core.evaluation.curves", "from pycocotools import cocoeval", outside_past_its_door),
    ("refseg_core.labeling.labeler", "from prefect import task", outside_past_its_door),
    ("tasks.storage", "from prefect import task", outside_past_its_door),
    ("flows.pipeline", "import torch", outside_past_its_door),
    ("refseg_core.datasets.coco", "from pathlib import Path", world_in_the_core),
    ("refseg_core.labeling.labeler", "import time", world_in_the_core),
    ("refseg_core.images", "open('a.jpg')", world_in_the_core),
    ("refseg_core.references.sampling", "import random\nrandom.shuffle([1])", world_in_the_core),
    ("refseg_core.references.sampling", "import numpy as np\nnp.random.rand(3)", world_in_the_core),
    ("refseg_core.models.encoder", "import torch\ntorch.manual_seed(0)", world_in_the_core),
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
        ("tasks.storage", "import fsspec"),
        ("tasks.store.parquet", "import pyarrow.parquet as pq"),
        ("tasks.models.weights", "import torch\ntorch.load('a.pt', weights_only=True)"),
        ("refseg_core.labeling.labeler", "from refseg_core.labeling import matching, merging"),
        (
            "refseg_core.visualization.panels",
            "from refseg_core.visualization import colours\nfrom .plates import plate",
        ),
        ("refseg_core.references.sampling", "import random\nrandom.Random(3).shuffle([1])\n'a.b'.split('.')"),
        ("refseg_core.demo.training.loop", "import torch\nwith torch.random.fork_rng():\n    torch.manual_seed(3)"),
        ("flows.terminal", "console.print('done')"),
    ],
)
def test_what_breaks_no_rule_is_let_through(name: str, source: str) -> None:
    module = Module(name, ast.parse(f'"""A module."""\n{source}'))
    assert [sentence for rule in _RULES for sentence in rule(module)] == []
