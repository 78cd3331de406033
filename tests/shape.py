"""The shape of the source in numbers: `python -m tests.shape [PATH]` prints it for this checkout, or for that at PATH.

Read with `ast` only: nothing is imported, so that any checkout can be measured beside this one. `test_architecture.py`
holds the limits. An import counts wherever it stands in a file, in functions too. One under `if TYPE_CHECKING` counts
for who may know whom, but neither for circles nor for chains, since nothing happens when the program runs. That a
package's `__init__.py` runs before its modules does not count; that somebody imports from it does.
"""

import ast
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

LAYERS = ("refseg_core", "tasks", "flows")  # each may import those before it
_ROOT = Path(__file__).resolve().parents[1]
_NOT_COUNTED = {"__init__.py", "py.typed"}
_PICTURES = (".jpg", ".png")  # of a dataset, which nobody reads one by one

Graph = Mapping[str, set[str]]  # who imports whom
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """A source file: its dotted name and its syntax tree."""

    name: str
    tree: ast.Module
    is_package: bool = False
    num_lines: int = 0

    @property
    def layer(self) -> str:
        return self.name.split(".")[0]

    @property
    def folder(self) -> str:
        """The dotted name of the folder it lies in."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def read_modules(root: Path = _ROOT, folders: Iterable[str] = LAYERS) -> list[Module]:
    """Returns every Python file in some folders of a checkout, in the order of their paths."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    return [_read(root, path) for path in paths]


def _read(root: Path, path: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    text = path.read_text("utf-8")
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, ast.parse(text), is_package, len(text.splitlines()))


def imports(module: Module, *, for_types: bool = True) -> Iterator[str]:
    """Yields dotted names, `from a import b` as a.b, relative ones resolved; those for types only if asked."""
    left_out = set() if for_types else _for_types(module.tree)
    for node in ast.walk(module.tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(module, node)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _for_types(tree: ast.Module) -> set[int]:
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    return {id(node) for block in blocks for statement in block.body for node in ast.walk(statement)}


def _base_of(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parents = module.name.split(".")
    parents = parents[: len(parents) - node.level + module.is_package]
    return ".".join([*parents, *([node.module] if node.module else [])])


def import_graph(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Returns for each module which others of them it imports."""
    modules = list(modules)
    names = {module.name for module in modules}
    graph: dict[str, set[str]] = {}
    for module in modules:
        met = {_module_of(name, names) for name in imports(module, for_types=False)}
        graph[module.name] = {name for name in met if name} - {module.name}
    return graph


def _module_of(name: str, names: set[str]) -> str:
    """Returns the module that a dotted name is or lies in, "" for one of another project."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def folder_graphs(graph: Graph) -> dict[str, dict[str, set[str]]]:
    """Returns for each folder the graph of its entries: a file is one, and a folder with all that it holds."""
    graphs: dict[str, dict[str, set[str]]] = {}
    for importer, imported in graph.items():
        for other in imported:
            folder, one, two = _parting(importer, other)
            if one and two:
                graphs.setdefault(folder, {}).setdefault(one, set()).add(two)
    return graphs


def _parting(one: str, two: str) -> tuple[str, str, str]:
    """Returns the folder in which the ways to two modules part, and the entry each goes to; "" is the folder itself."""
    parts = one.split("."), two.split(".")
    shared = 0
    while shared < min(map(len, parts)) and parts[0][shared] == parts[1][shared]:
        shared += 1
    one_entry, two_entry = ("".join(part[shared : shared + 1]) for part in parts)
    return ".".join(parts[0][:shared]), one_entry, two_entry


def circles(graph: Graph) -> list[list[str]]:
    """Returns the groups of names each of which reaches every other, each sorted; found by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            start = stack.index(name)
            found.append(sorted(stack[start:]))
            del stack[start:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return [group for group in found if len(group) > 1]


def longest_chain(graph: Graph) -> list[str]:
    """Returns the longest way from importer to imported; what lies in a circle counts as one name of it."""
    member = {name: group[0] for group in circles(graph) for name in group}
    acyclic: dict[str, set[str]] = {}
    for name, others in graph.items():
        acyclic.setdefault(member.get(name, name), set()).update(member.get(other, other) for other in others)
    known: dict[str, list[str]] = {}

    def chain(name: str) -> list[str]:
        if name not in known:
            after = (chain(other) for other in sorted(acyclic.get(name, ())) if other != name)
            known[name] = [name, *max(after, key=len, default=[])]
        return known[name]

    return max((chain(name) for name in sorted(acyclic)), key=len, default=[])


def entries(root: Path = _ROOT, folders: Iterable[str] = (*LAYERS, "tests")) -> dict[str, int]:
    """Returns how many files and folders each folder holds, the fullest first; folders without a file are none."""
    held: dict[str, set[str]] = {}
    for path in (path for top in folders for path in (root / top).rglob("*") if _is_counted(path)):
        parts = path.relative_to(root).parts
        if not any(part == "__pycache__" or part.startswith(".") for part in parts):
            for depth in range(1, len(parts)):
                held.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    counted = {folder: len(names - _NOT_COUNTED) for folder, names in held.items()}
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _is_counted(path: Path) -> bool:
    return path.is_file() and path.suffix not in _PICTURES


def _functions(modules: Iterable[Module]) -> Iterator[tuple[int, str]]:
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, _Function):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{module.name}.{node.name}"


def _public_names(modules: Iterable[Module]) -> Iterator[str]:
    """Yields functions, classes and constants that other modules may use."""
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, _Function | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            else:
                continue
            yield from (f"{module.name}.{name}" for name in names if not name.startswith("_"))


def _report(root: Path) -> Iterator[str]:
    modules = read_modules(root)
    graph = import_graph(modules)
    full = list(entries(root).items())
    yield f"entries per folder, the fullest: {', '.join(f'{folder} {number}' for folder, number in full[:8])}"
    chain = longest_chain(graph)
    yield f"longest import chain: {len(chain)}"
    yield from (f"  {name}" for name in chain)
    between_files = circles(graph)
    yield f"circles between files: {len(between_files)}"
    yield from (f"  {', '.join(group)}" for group in between_files)
    between = [(folder, group) for folder, inner in folder_graphs(graph).items() for group in circles(inner)]
    yield f"circles between the entries of a folder: {len(between)}"
    yield from (f"  {folder or '.'}: {', '.join(group)}" for folder, group in between)
    lengths = sorted(_functions(modules))
    lines = [length for length, _ in lengths]
    median, percentile_95 = statistics.median(lines), statistics.quantiles(lines, n=20)[-1]
    yield (
        f"lines of a function: {median:g} at the median, {percentile_95:g} at the 95th percentile, "
        f"{lines[-1]} the longest ({lengths[-1][1]}), {len(lines)} functions"
    )
    for layer in (*LAYERS, "tests"):
        files = read_modules(root, [layer])
        yield f"{layer}: {sum(module.num_lines for module in files)} lines in {len(files)} files"
    yield f"public names: {len(list(_public_names(modules)))}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in _report(Path(sys.argv[1]) if sys.argv[1:] else _ROOT))
