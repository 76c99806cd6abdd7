"""`gpt-export doctor`: what is there, what is missing for which command, and a block that tells nothing private."""

from __future__ import annotations

import getpass
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gpt_export.cli.diagnosis import features

from tests.conftest import Run
from tests.test_imports import WITHOUT


def test_versions_and_commands_are_told(
    cli: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT_EXPORT_NODE_MODULES", str(tmp_path / "none"))
    run = cli("doctor")
    assert run.code == 0, run.err
    assert f"torch {torch.__version__}" in run.out
    assert "ready    onnx, torchscript, quantize, validate" in run.out
    assert "missing  serve\n         npm install" in run.out
    found = cli("doctor", "--json").json()
    assert found["commands"]["serve"]["ready"] is False
    assert found["versions"]["torch"] == torch.__version__


def test_the_block_for_reports_names_neither_machine_nor_user(cli: Callable[..., Run]) -> None:
    block = cli("doctor").out.partition("```")[2]
    assert "gpt-export " in block
    for private in (platform.node(), str(Path.home()), getpass.getuser() + "@"):
        assert private not in block


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        ("flags : avx2 avx512f avx512_vnni", {"AVX2", "AVX-512", "VNNI"}),
        ("flags : avx2 avx_vnni amx_int8", {"AVX2", "VNNI", "AMX"}),
        ("flags : sse", set()),
    ],
)
def test_the_processors_features_are_read(
    flags: str, there: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(flags, encoding="utf-8")
    assert {name for name, found, _ in features(tmp_path / "cpuinfo") if found} == there
    assert all(found is None for _, found, _ in features(tmp_path / "nothing"))


def test_it_runs_where_torch_is_not_installed() -> None:
    code = WITHOUT + "sys.argv = ['gpt-export', 'doctor']\nfrom gpt_export.cli import main\nmain()"
    absent = "onnx,onnx_ir,onnxruntime,numpy,rich,tiktoken"
    run = subprocess.run([sys.executable, "-c", code, absent], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "For a bug report" in run.stdout
