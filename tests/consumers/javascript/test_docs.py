"""What the pages on transformers.js and onnxruntime-web show is run, and the page is hosted as its README says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gpt_export.serving.packages import NEEDED, page_versions
from gpt_export_models.tokenizer import Gpt2Tokenizer

from tests.browser.chromium import find_chromium
from tests.consumers.exported import STEPS, Exported
from tests.consumers.javascript.conftest import ROOT, Script

DOCS = ROOT / "docs" / "consumers"
PROMPT = "Every effort moves you"
needs_chromium = pytest.mark.skipif(
    find_chromium() is None, reason="chromium is not installed: apt-get install chromium"
)


def block(page: Path) -> str:
    """The JavaScript of a page, which has one block of it."""
    (found,) = re.findall(r"^```javascript\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.fixture
def host() -> Iterator[Callable[[Path], str]]:
    """The address of a folder on Python's own web server, which sends no headers of ours."""
    running = []

    def start(folder: Path) -> str:
        command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        running.append(process)
        assert process.stdout is not None
        port = re.search(r"port (\d+)", process.stdout.readline())
        assert port is not None
        return f"http://127.0.0.1:{port[1]}/"

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_the_lines_for_transformers_js_continue_a_prompt(
    node: Callable[..., subprocess.CompletedProcess[str]], exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made, tokenizer = exported("gpt2"), Gpt2Tokenizer()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "gpt2").symlink_to(made.folder)
    (tmp_path / "lines.mjs").write_text(block(DOCS / "transformers-js.md"), "utf-8")
    done = node(tmp_path / "lines.mjs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == PROMPT + tokenizer.decode(made.eager([tokenizer.encode(PROMPT)])[0]) + "\n"


@needs_chromium
def test_the_lines_for_onnxruntime_web_give_logits(
    ask: Script, node_folder: Path, host: Callable[[Path], str], exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made = exported("gpt2")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "gpt2").symlink_to(made.folder)
    (tmp_path / "node_modules").symlink_to(node_folder / "node_modules")
    last = "globalThis.found = Array.from(logits.data.slice(-logits.dims[2]));"
    (tmp_path / "lines.mjs").write_text(f"{block(DOCS / 'web.md')}\n{last}\n", "utf-8")
    (tmp_path / "index.html").write_text(
        '<link rel="icon" href="data:,"><script type="module" src="lines.mjs"></script>'
    )
    answer = ask("page", {"url": host(tmp_path), "chromium": find_chromium(), "scenario": "foreign"})
    assert answer["console"] == []
    eager = made.logits(np.array([Gpt2Tokenizer().encode(PROMPT)], np.int64))[0, -1]
    assert np.abs(np.array(answer["found"]) - eager).max() < 1e-4 * np.abs(eager).max()


@needs_chromium
def test_the_page_is_hosted_as_its_readme_says(
    ask: Script, node_folder: Path, host: Callable[[Path], str], exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made = exported("gpt2")
    site = Path(
        shutil.copytree(
            ROOT / "exporter/gpt_export/serving/web", tmp_path / "site", ignore=shutil.ignore_patterns("node_modules")
        )
    )
    (site / "node_modules").symlink_to(node_folder / "node_modules")
    (site / "artifact").symlink_to(made.folder)
    visit = {"url": host(site), "chromium": find_chromium(), "scenario": "generate", "prompt": PROMPT, "count": STEPS}
    answer = ask("page", visit)
    assert answer["ids"] == made.eager([Gpt2Tokenizer().encode(PROMPT)])[0]
    assert answer["console"] == answer["failed"] == []
    assert answer["isolated"] is False
    assert ", 1 thread." in answer["engine"]


def test_the_readme_names_what_the_server_serves() -> None:
    text = (ROOT / "examples" / "web" / "README.md").read_text("utf-8")
    assert tuple(re.findall(r"^    (\S+\.(?:mjs|wasm))$", text, re.MULTILINE)) == NEEDED


def test_the_docs_name_the_versions_of_the_page() -> None:
    text = (DOCS / "web.md").read_text("utf-8")
    assert all(f"{name}@{version}" in text for name, version in page_versions().items())
