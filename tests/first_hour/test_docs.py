"""Every command of the README and the docs, as written, in a fresh folder where the models are small."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STANDS_FOR = {
    "SOURCE": "path/to/gpt2",
    "CHECKPOINT": "path/to/gpt2",
    "ARTIFACT": "artifacts/gpt2",
    "FILE.onnx": "optimum/model.onnx",
}
"""What the docs leave to the reader, in capitals."""
ELSEWHERE = ("make ", "cd ", "node ", "npm ", "python ", "tritonserver ", "eval ", "_GPT_EXPORT_COMPLETE=", ". .venv")
"""Beginnings of other lines that look like commands: set-up, other programs, a shell's own."""


@dataclass(frozen=True)
class Line:
    """A command in a page."""

    page: Path
    text: str
    stdin: str = ""

    def words(self) -> list[str]:
        """The words that a shell would make of it, placeholders filled in."""
        words = shlex.split(self.text, comments=True)
        filled = " ".join(STANDS_FOR.get(word, shlex.quote(word)) for word in words)
        return shlex.split(filled)


def code_lines(page: Path) -> list[str]:
    """The lines of indented blocks and of fenced ones that a shell reads."""
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(re.findall(r"^```(?:bash|sh|console)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).splitlines()
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line.strip() for line in (*re.findall(r"^    (?=\S)(.*)$", plain, re.MULTILINE), *fenced)]


def commands(page: Path) -> list[Line]:
    """The lines that run gpt-export, alone or behind an echo."""
    found = [re.fullmatch(r'(?:echo "(.*)" \| )?(gpt-export .*)', line) for line in code_lines(page)]
    return [Line(page, each[2], f"{each[1] or ''}\n") for each in found if each]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.fixture
def run(
    place: Path, command: Callable[[list[str]], Run], trained_small: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Line], Run]:
    """Runs a line; what it reads that no line before has made is put there."""

    def go(line: Line) -> Run:
        words = line.words()
        if "artifacts/ckpt" in words:  # the page has made it of the reader's own class
            made = ("my_model:GPT", "--weights", "ckpt.pt", "--config", "config.json", "--output", "artifacts/ckpt")
            assert command(["gpt-export", "onnx", *made]).code == 0
        for word in words:
            if word.startswith("artifacts/") and not (place / word).exists() and words[1] != "onnx":
                shutil.copytree(trained_small, place / word)
            if word.endswith("model.onnx") and not (place / word).exists():
                (place / word).parent.mkdir(exist_ok=True, parents=True)
                shutil.copyfile(trained_small / "onnx" / "model.onnx", place / word)
        monkeypatch.setattr("sys.stdin", io.StringIO(line.stdin))
        return command(words)

    return go


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_every_command_of_the_page_runs_as_written(page: Path, run: Callable[[Line], Run]) -> None:
    for line in commands(page):
        done = run(line)
        assert done.code == 0, f"{line.text}: {done.err}"


def test_the_readme_and_the_command_line_are_among_them() -> None:
    assert {"README.md", "cli.md", "variants.md"} <= {page.name for page in WITH_COMMANDS}
    assert sum(len(commands(page)) for page in WITH_COMMANDS) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_other_line_looks_like_a_command(page: Path) -> None:
    """So that a command with another beginning cannot slip by untested."""
    unknown = [
        line
        for line in code_lines(page)
        if re.match(r"(sudo |pip |python3? |\./|\$ |[A-Z_]+=\S+ )", line) and not line.startswith(ELSEWHERE)
    ]
    assert unknown == []


def test_a_command_that_is_wrong_is_found(run: Callable[[Line], Run]) -> None:
    # The control: a page that named an option of another tool would fail.
    assert run(Line(ROOT / "README.md", "gpt-export onnx path/to/gpt2 --quantise int8")).code == 2


def test_the_readmes_python_runs(place: Path, trained_small: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (place / "artifacts").mkdir(exist_ok=True)
    shutil.copytree(trained_small, place / "artifacts" / "gpt2")
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
