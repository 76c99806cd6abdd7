"""Which module may import which: low never reaches high, nothing goes round, the runtime needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import gpt_export
import gpt_export_models
import pytest

PACKAGES = {package.__name__: Path(str(package.__file__)).parent for package in (gpt_export, gpt_export_models)}
LOW = (
    "gpt_export_models",
    "gpt_export.runtime.session",
    "gpt_export.artifact.manifest",
    "gpt_export.artifact.reading",
    "gpt_export.gate.parity",
)
HIGH = ("gpt_export.pipeline.stages", "gpt_export.cli", "gpt_export.api", "gpt_export.pipeline.revalidate")
WITHOUT_TORCH = (
    "gpt_export.runtime.session",
    "gpt_export.artifact.manifest",
    "gpt_export.artifact.reading",
    "gpt_export.gate.parity",
    "gpt_export.artifact.inspection",
    "gpt_export.serving.open",
)

Edges = dict[str, set[str]]


def modules(packages: dict[str, Path]) -> dict[str, Path]:
    """Dotted name to file of every module."""
    found = {}
    for package, folder in packages.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imports(packages: dict[str, Path], *, lazy: bool) -> Edges:
    """What each module imports, ours and others; those for type checkers alone are left out.

    Args:
        lazy: whether imports inside functions count too.
    """
    names = modules(packages)
    return {name: set(_imported(path, name, names, lazy)) for name, path in names.items()}


def _imported(path: Path, name: str, names: dict[str, Path], lazy: bool) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_text("utf-8")), lazy):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            members = {f"{base}.{alias.name}" for alias in node.names}
            yield from members & names.keys()
            if members - names.keys():
                yield base


def _statements(node: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from _statements(child, lazy)


def reached(start: str, edges: Edges) -> set[str]:
    """Every module that importing `start` can lead to; the lazy attributes of a package's `__init__` do not count."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += edges.get(name, ())
    return found - {start}


def cycle(edges: Edges) -> list[str] | None:
    """One way round, if there is any."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for other in sorted(edges.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return None

    for name in sorted(edges):
        if found := visit(name, []):
            return found
    return None


def belongs(name: str, group: tuple[str, ...]) -> bool:
    return any(name == member or name.startswith(f"{member}.") for member in group)


def trespasses(packages: dict[str, Path]) -> list[str]:
    """Low modules that reach a high one, as `low -> high`."""
    edges = imports(packages, lazy=True)
    edges["gpt_export"] = edges["gpt_export"] - {"gpt_export.api"}  # loaded on first use, for the library's front door
    return sorted(
        f"{low} -> {high}"
        for low in edges
        if belongs(low, LOW)
        for high in reached(low, edges)
        if belongs(high, HIGH) or (belongs(low, ("gpt_export_models",)) and belongs(high, ("gpt_export",)))
    )


@pytest.fixture
def copy(tmp_path: Path) -> dict[str, Path]:
    """Both packages somewhere else, to plant faults in."""
    packages = {}
    for name, path in modules(PACKAGES).items():
        root = name.partition(".")[0]
        packages[root] = tmp_path / root
        target = tmp_path / root / path.relative_to(PACKAGES[root])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return packages


def test_low_modules_never_import_high_ones() -> None:
    assert trespasses(PACKAGES) == []


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        (
            "gpt_export/runtime/session.py",
            "from gpt_export.pipeline.stages import export",
            "gpt_export.runtime.session -> gpt_export.pipeline.stages",
        ),
        (
            "gpt_export/artifact/manifest.py",
            "def f(): import gpt_export.cli",
            "gpt_export.artifact.manifest -> gpt_export.cli",
        ),
        (
            "gpt_export/artifact/hashing.py",
            "from gpt_export.pipeline import stages",
            "gpt_export.artifact.reading -> gpt_export.pipeline.stages",
        ),
        (
            "gpt_export_models/dummy.py",
            "from gpt_export.version import __version__",
            "gpt_export_models.dummy -> gpt_export.version",
        ),
    ],
)
def test_a_planted_import_of_a_high_module_is_found(copy: dict[str, Path], file: str, line: str, found: str) -> None:
    path = copy["gpt_export_models"].parent / file
    path.write_text(f"{path.read_text('utf-8')}\n{line}\n", encoding="utf-8")
    assert found in trespasses(copy)


def test_there_are_no_import_cycles() -> None:
    assert cycle(imports(PACKAGES, lazy=False)) is None


def test_a_planted_cycle_is_found(copy: dict[str, Path]) -> None:
    path = copy["gpt_export"] / "artifact" / "hashing.py"
    path.write_text(f"{path.read_text('utf-8')}\nfrom gpt_export.artifact.reading import Artifact\n", encoding="utf-8")
    assert set(cycle(imports(copy, lazy=False)) or ()) == {"gpt_export.artifact.reading", "gpt_export.artifact.hashing"}


def test_every_module_imports_on_its_own() -> None:
    # The order in which modules are first imported must not matter, which cycles through lazy imports would break.
    edges = imports(PACKAGES, lazy=False)
    light = [name for name in edges if "torch" not in reached(name, edges)]
    assert {"gpt_export.runtime.session", "gpt_export.cli", "gpt_export_models.config"} <= set(light)
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    for name in ("gpt_export.api", "gpt_export.sources.source", "gpt_export.pipeline.stages"):
        subprocess.run([sys.executable, "-c", code, name], check=True)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_nothing_that_applications_import_reaches_torch(name: str) -> None:
    everything = reached(name, imports(PACKAGES, lazy=True) | {"gpt_export": set(), "gpt_export_models": set()})
    assert not belongs_any(everything, ("torch", "tiktoken", "rich", "click"))


def test_packaging_reaches_no_torch() -> None:
    everything = reached(
        "gpt_export.targets.package", imports(PACKAGES, lazy=True) | {"gpt_export": set(), "gpt_export_models": set()}
    )
    assert not belongs_any(everything, ("torch", "onnx", "onnxruntime", "gpt_export.pipeline.stages"))


def belongs_any(names: set[str], group: tuple[str, ...]) -> set[str]:
    return {name for name in names if belongs(name, group)}


WITHOUT = textwrap.dedent(
    """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in blocked:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    blocked = set(sys.argv[1].split(","))
    sys.meta_path.insert(0, Blocker())
    """
)


def test_the_runtime_imports_where_torch_is_absent() -> None:
    code = (
        WITHOUT
        + "import gpt_export.artifact.reading, gpt_export.gate.parity; from gpt_export.runtime import Session\n"
        + "print(Session)"
    )
    absent = "torch,onnx,onnx_ir,tiktoken,rich,click,transformers"
    run = subprocess.run([sys.executable, "-c", code, absent], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "Session" in run.stdout


def test_the_blocker_blocks() -> None:
    code = WITHOUT + "import gpt_export.pipeline.stages"
    run = subprocess.run([sys.executable, "-c", code, "torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in run.stderr
