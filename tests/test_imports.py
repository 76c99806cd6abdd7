"""Which module may import which: down the list of wings, never round; and the runtime needs no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import gpt_export
import gpt_export_models
import pytest

PACKAGES = {package.__name__: Path(str(package.__file__)).parent for package in (gpt_export, gpt_export_models)}
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"
BEGIN, END = "<!-- wings, top down -->", "<!-- end of wings -->"
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


def imports(packages: dict[str, Path], *, lazy: bool, typing: bool = False) -> Edges:
    """What each module imports, ours and others.

    Args:
        lazy: whether imports inside functions count too.
        typing: whether those for type checkers alone count too.
    """
    names = modules(packages)
    return {name: set(_imported(path, name, names, lazy, typing)) for name, path in names.items()}


def _imported(path: Path, name: str, names: dict[str, Path], lazy: bool, typing: bool) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_text("utf-8")), lazy, typing):
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


def _statements(node: ast.AST, lazy: bool, typing: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not typing and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not lazy and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from _statements(child, lazy, typing)


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


def wings(page: str) -> list[tuple[str, ...]]:
    """The list in docs/design.md, top down: on each line what stands there, a folder or files of the package itself."""
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    return [tuple(re.split(r"\s{2,}", line.strip())[0].replace("/", "").split(", ")) for line in lines if line.strip()]


def level(name: str, order: list[tuple[str, ...]]) -> int:
    """The line of the list on which a module stands.

    Raises:
        LookupError: on none, so that a new folder is not let in before it has a place.
    """
    package, *rest = name.split(".")
    wing = package if package == "gpt_export_models" else rest[0] if rest else "__init__"
    for line, members in enumerate(order):
        if wing in members:
            return line
    raise LookupError(f"{name} stands in no wing of docs/design.md")


def climbs(packages: dict[str, Path], order: list[tuple[str, ...]]) -> list[str]:
    """Imports that lead up the list, those for type checkers and those inside functions included, as `low -> high`."""
    edges = imports(packages, lazy=True, typing=True)
    return sorted(
        f"{low} -> {high}"
        for low, found in edges.items()
        for high in found & edges.keys()
        if level(high, order) < level(low, order)
    )


ORDER = wings(DESIGN.read_text("utf-8"))


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


def test_the_list_of_wings_is_the_tree() -> None:
    folder = PACKAGES["gpt_export"]
    there = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    listed = [member for members in ORDER for member in members]
    assert len(listed) == len(set(listed))
    assert set(listed) == there | {"gpt_export_models"}


def test_every_arrow_between_wings_points_down() -> None:
    assert climbs(PACKAGES, ORDER) == []


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
            "gpt_export/gate/cases.py",
            "if TYPE_CHECKING:\n    from gpt_export.pipeline.config import ExportConfig",
            "gpt_export.gate.cases -> gpt_export.pipeline.config",
        ),
        (
            "gpt_export/weights/mapped.py",
            "from ..graph import opsets",
            "gpt_export.weights.mapped -> gpt_export.graph.opsets",
        ),
        (
            "gpt_export_models/dummy.py",
            "from gpt_export.version import __version__",
            "gpt_export_models.dummy -> gpt_export.version",
        ),
    ],
)
def test_a_planted_arrow_up_is_found(copy: dict[str, Path], file: str, line: str, found: str) -> None:
    path = copy["gpt_export_models"].parent / file
    path.write_text(f"{path.read_text('utf-8')}\n{line}\n", encoding="utf-8")
    assert climbs(copy, ORDER) == [found]


def test_a_planted_file_in_no_wing_is_found(copy: dict[str, Path]) -> None:
    (copy["gpt_export"] / "loose.py").write_text("import gpt_export.errors\n", encoding="utf-8")
    with pytest.raises(LookupError, match=r"gpt_export\.loose stands in no wing"):
        climbs(copy, ORDER)


def test_the_list_turned_round_is_not_the_order() -> None:
    assert len(climbs(PACKAGES, ORDER[::-1])) > 100


def test_there_are_no_import_circles() -> None:
    assert cycle(imports(PACKAGES, lazy=True, typing=True)) is None


@pytest.mark.parametrize(
    "line",
    [
        "from gpt_export.artifact.reading import Artifact",
        "def f(): from gpt_export.artifact.reading import Artifact",
        "if TYPE_CHECKING:\n    from gpt_export.artifact.reading import Artifact",
    ],
    ids=["at the top", "in a function", "for type checkers"],
)
def test_a_planted_circle_is_found(copy: dict[str, Path], line: str) -> None:
    path = copy["gpt_export"] / "artifact" / "hashing.py"
    path.write_text(f"{path.read_text('utf-8')}\n{line}\n", encoding="utf-8")
    found = cycle(imports(copy, lazy=True, typing=True))
    assert set(found or ()) == {"gpt_export.artifact.reading", "gpt_export.artifact.hashing"}


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
    hidden: Edges = {"gpt_export": set(), "gpt_export_models": set()}
    everything = reached(name, imports(PACKAGES, lazy=True) | hidden)
    assert not belongs_any(everything, ("torch", "rich", "click"))
    assert "tiktoken" not in reached(
        name, imports(PACKAGES, lazy=False) | hidden
    )  # texts alone take it, when they come


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
