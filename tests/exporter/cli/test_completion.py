"""What the shell completes: sources by name, and the variants of the artifact that stands on the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.artifact.variant_names import VARIANTS
from gpt_export.cli import completion
from gpt_export.sources.names import known_names

from tests.conftest import Run


def test_the_names_are_those_that_the_library_knows() -> None:
    assert known_names() == completion.SOURCES
    assert completion.VARIANTS == VARIANTS


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("onnx gpt2-3", {"gpt2-355m"}),
        ("torchscript du", {"dummy-124m"}),
        ("onnx --precision fp32,in", {"fp32,int8", "fp32,int4"}),
        ("quantize", {"quantize"}),
        ("doc", {"doctor"}),
    ],
)
def test_a_shell_is_offered_what_there_is(words: str, found: set[str], run_command: Callable[..., Run]) -> None:
    listed = completed(run_command, words)
    assert found <= listed


def completed(run_command: Callable[..., Run], words: str) -> set[str]:
    line = f"gpt-export {words}"
    run = run_command(
        env={"_GPT_EXPORT_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    )
    assert run.code == 0, run.err
    return {entry.partition(",")[2] for entry in run.out.splitlines()}


def test_variants_are_those_of_the_artifact(tiny_original: Path, run_command: Callable[..., Run]) -> None:
    assert completed(run_command, f"generate {tiny_original} x --variant f") == {"fp32"}
    assert {"fp32", "fp16"} <= completed(run_command, "bench nowhere --variant f")
