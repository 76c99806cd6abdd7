"""What the pages and the card show is run, in a folder that has an artifact where they say."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export_models.tokenizer import Gpt2Tokenizer

from tests.conftest import Run
from tests.consumers.conftest import ROOT
from tests.consumers.exported import STEPS, Exported

PAGES = sorted((ROOT / "docs" / "consumers").glob("*.md"))
PROMPT = "Every effort moves you"


def blocks(text: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run_python(python: Path, code: str, cwd: Path) -> str:
    done = subprocess.run(
        [str(python), "-I", "-c", code],
        cwd=cwd,
        env={"HF_HUB_OFFLINE": "1", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def place(exported: Callable[[str], Exported], tmp_path: Path) -> Path:
    """A folder with the artifact `artifacts/gpt2`, which the pages speak of."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "gpt2").symlink_to(exported("gpt2").folder)
    return tmp_path


def test_there_are_pages() -> None:
    assert {"onnxruntime", "optimum", "genai", "triton"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page.read_text("utf-8"))], ids=lambda page: page.stem
)
def test_the_pages_python_runs_from_top_to_bottom(page: Path, place: Path, consumers_python: Path) -> None:
    run_python(consumers_python, "\n".join(blocks(page.read_text("utf-8"))), place)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_pages_packages_are_made(page: Path, place: Path, run_command: Callable[..., Run]) -> None:
    for line in re.findall(r"^    gpt-export (package .*)$", page.read_text("utf-8"), re.MULTILINE):
        run = run_command(*shlex.split(line), cwd=place)
        assert run.code == 0, run.err


@pytest.mark.parametrize("kind", ["gpt2", "carried", "ids", "uncached"])
def test_the_cards_snippets_run_in_the_artifacts_folder(
    kind: str, exported: Callable[[str], Exported], consumers_python: Path
) -> None:
    folder = exported(kind).folder
    found = blocks((folder / "README.md").read_text("utf-8"))
    assert len(found) == (3 if kind == "uncached" else 4)
    for code in found:
        if "gpt_export" in code:
            subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
        else:
            run_python(consumers_python, code, folder)


def test_the_example_continues_a_prompt_as_eager_does(exported: Callable[[str], Exported]) -> None:
    made, tokenizer = exported("gpt2"), Gpt2Tokenizer()
    script = ROOT / "examples" / "python" / "generate.py"
    done = subprocess.run(
        [sys.executable, str(script), str(made.folder), PROMPT, str(STEPS)], capture_output=True, text=True, check=True
    )
    ids = tokenizer.encode(PROMPT)
    (new,) = made.eager([ids])
    assert done.stdout == tokenizer.decode([*ids, *new]) + "\n"


def test_the_example_has_nothing_of_ours_and_thirty_lines() -> None:
    text = (ROOT / "examples" / "python" / "generate.py").read_text("utf-8")
    code = text.split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    assert not re.search(r"^(from|import) (exporter|models)", text, re.MULTILINE)
