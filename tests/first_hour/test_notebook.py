"""The notebook runs from its first cell to its last, in a fresh folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.first_hour.place import stand_in_packages
from tests.first_hour.test_docs import ROOT

NOTEBOOK = ROOT / "examples" / "notebook" / "from_chapter_to_browser.ipynb"


def cells() -> list[str]:
    """The code of each cell."""
    found = json.loads(NOTEBOOK.read_text("utf-8"))
    return ["".join(cell["source"]) for cell in found["cells"] if cell["cell_type"] == "code"]


def test_it_goes_from_the_chapter_to_the_browser_in_ten_cells(tmp_path: Path) -> None:
    pytest.importorskip("llms_from_scratch", reason="the book's package: pip install --no-deps llms-from-scratch")
    assert len(cells()) == 10
    packages = stand_in_packages(tmp_path / "node_modules")
    asks = "import urllib.request\nprint(urllib.request.urlopen(url).status)"
    run = subprocess.run(
        [sys.executable, "-c", "\n".join([*cells(), asks])],
        cwd=tmp_path,
        env=os.environ | {"GPT_EXPORT_NODE_MODULES": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = run.stdout.splitlines()
    assert any(line.startswith("True ") for line in told)
    assert next(line for line in told if line.startswith("Every effort")) != "Every effort"
    assert told[-2].startswith("http://127.0.0.1:")
    assert told[-1] == "200"


def test_nothing_that_a_run_left_is_kept_in_it() -> None:
    found = json.loads(NOTEBOOK.read_text("utf-8"))
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in found["cells"][1:])
