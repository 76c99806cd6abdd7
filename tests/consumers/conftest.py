"""What the tests of other programs share: artifacts, environments, and the record behind the compatibility table."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gpt_export.cli.onnx import onnx

from tests.conftest import Run
from tests.consumers.exported import KINDS, Exported

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"

RECORD = "GPT_EXPORT_COMPATIBILITY"
"""The environment variable that names the file of the record; without it nothing is written."""

Record = Callable[..., None]
Consumer = Callable[[str, Any], Any]


@pytest.fixture
def compatibility() -> Record:
    """Adds one outcome to the record: `compatibility(consumer=..., version=..., variant=..., outcome=...)`.

    `outcome` is `pass`, or the reason why the cell is not applicable, as a sentence without its full stop. Call it
    after the assertions: a test that fails leaves no line. `what` says what was run, in a few words.
    """

    def record(*, consumer: str, version: str, variant: str, outcome: str, what: str = "") -> None:
        if path := os.environ.get(RECORD):
            line = {"consumer": consumer, "version": version, "variant": variant, "outcome": outcome, "what": what}
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")

    return record


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The artifact of a kind of `KINDS`, made once. Read it, never change it."""
    return cache(lambda kind: KINDS[kind](tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope="session")
def fast(tmp_path_factory: pytest.TempPathFactory, run_command: Callable[..., Run]) -> Exported:
    """The artifact of `gpt2` with every precision there is, in onnxruntime's own operators."""
    if not any("--precision" in option.opts for option in onnx.params):
        pytest.skip("this gpt-export has one precision, fp32")
    folder = tmp_path_factory.mktemp("fast")
    plain = KINDS["gpt2"](folder)
    flags = ("--profile", "ort", "--precision", "fp32,fp16,int8,int4", "--kv-cache", "fp32,int8")
    flags += ("--gate", "report")
    run = run_command("onnx", folder / "gpt2-small", "--output", folder / "fast", *flags)
    assert run.code == 0, run.err
    return Exported(folder / "fast", plain.logits, plain.vocab_size)


@pytest.fixture(scope="session")
def consumers_python() -> Path:
    """The interpreter of the environment that `make consumers` makes."""
    folder = Path(os.environ.get("GPT_EXPORT_CONSUMERS", ROOT / ".consumers")) / "python"
    installed = folder / "installed"  # a copy of the requirements that it was made from
    if not installed.is_file() or installed.read_bytes() != REQUIREMENTS.read_bytes():
        pytest.skip("Optimum, onnxruntime-genai and tritonclient are not installed as they are pinned: make consumers")
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def consumer(consumers_python: Path) -> Consumer:
    """Runs a script of this folder in that environment, with nothing of ours on its path; gives its answer."""

    def run(script: str, request: Any) -> Any:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(
            [str(consumers_python), "-I", str(SCRIPTS / f"{script}.py")],
            input=json.dumps(request),
            env=environment | {"HF_HUB_OFFLINE": "1"},
            cwd=SCRIPTS,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
