"""What the tests under Node and in Chromium share: the installed packages, and how a script is run with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = Path(__file__).parent
TIMEOUT_S = 300

Script = Callable[..., Any]


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """The folder whose `node_modules` has what `package-lock.json` here names."""
    folder = Path(os.environ.get("GPT_EXPORT_CONSUMERS", ROOT / ".consumers")) / "node"
    if shutil.which("node") is None:
        pytest.skip("node is not installed: apt-get install nodejs npm")
    installed, wanted = folder / "package-lock.json", SCRIPTS / "package-lock.json"
    complete = (folder / "node_modules").is_dir() and installed.is_file()
    if not complete or installed.read_bytes() != wanted.read_bytes():
        pytest.skip("transformers.js, onnxruntime-web and playwright-core are not installed: make consumers-node")
    return folder


@pytest.fixture(scope="session")
def node(node_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script where it finds the packages: Node looks for them beside the script, so it is copied there."""

    def run(script: Path, *args: object, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", shutil.copy(script, node_folder), *map(str, args)],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    return run


@pytest.fixture(scope="session")
def ask(node: Callable[..., subprocess.CompletedProcess[str]]) -> Script:
    """The JSON answer of a script of this folder to a JSON request."""

    def run(script: str, request: Any) -> Any:
        done = node(SCRIPTS / f"{script}.mjs", stdin=json.dumps(request))
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    return run
