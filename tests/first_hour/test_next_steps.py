"""The commands that an export prints at its end work as they are printed, whatever was exported."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export.artifact.manifest import read_manifest
from gpt_export.cli.publish_text import summary

from tests.conftest import Run

SOURCES = {
    "a known name": "gpt2-124m --gate off",
    "a checkpoint of the book": "model.pth --config config.json",
    "a head count": "model.pth --heads 3 --gate off",
    "nanoGPT": "out/ckpt.pt --gate off",
    "another family": "path/to/llama --gate off",
    "a class": "my_model:GPT --seed 7 --gate off",
    "a class on its weights": "my_model:GPT --weights ckpt.pt --config config.json --gate off",
    "no fp32": "path/to/gpt2 --precision int8,int4 --calibration text.txt --gate off",
    "a place with a blank": "path/to/gpt2 --output 'my models/the first' --gate off",
    "no cache": "model.pth --config config.json --no-cache --gate off",
}
"""Most are not compared at their export, which other tests do: what is printed is the same."""
ONCE = ("no fp32",)
"""Where Python is run in a process of its own."""


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_printed_next_works_as_printed(kind: str, place: Path, command: Callable[[list[str]], Run]) -> None:
    made = command(["gpt-export", "onnx", *shlex.split(SOURCES[kind])])
    assert made.code == 0, made.err
    following = [line.strip() for line in made.out.partition("Next:\n")[2].splitlines()]
    verbs = [shlex.split(line)[1] for line in following]
    assert verbs == ["validate", "inspect", "generate", "serve", "bench", "-c"]
    for line in following:
        words = shlex.split(line)
        if words[0] == "python" and kind not in ONCE:
            exec(words[2], {})
        elif words[0] == "python":
            done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False, cwd=place)
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip()
        elif words[1] != "bench":  # which measures for seconds, and is run by the test of the docs
            run = command(words)
            assert run.code == 0, f"{line}: {run.err}"
    for report in [line for line in made.out.splitlines() if line.startswith("  report: ")]:
        assert (place / report.partition(": ")[2]).read_text("utf-8").startswith("<!DOCTYPE html>")


def test_of_torchscript_alone_there_is_less_to_do(place: Path, command: Callable[[list[str]], Run]) -> None:
    made = command(["gpt-export", "torchscript", "my_model:GPT"])
    assert made.code == 0, made.err
    following = [line.strip() for line in made.out.partition("Next:\n")[2].splitlines()]
    assert [shlex.split(line)[1] for line in following] == ["validate", "inspect"]
    assert "artifacts/gpt-torchscript" in following[0]
    for line in following:
        assert command(shlex.split(line)).code == 0
    assert place.is_dir()


def test_a_source_that_is_not_named_again_is_asked_for(place: Path, command: Callable[[list[str]], Run]) -> None:
    # The control: without what the printed line has behind the artifact, validate refuses.
    assert command(["gpt-export", "onnx", "out/ckpt.pt", "--gate", "off"]).code == 0
    command(["gpt-export", "validate", "artifacts/ckpt"]).refused(2, "name it with --against")
    assert place.is_dir()


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_of_the_result_hides_its_verdict(
    columns: int, trained_small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    told = summary(read_manifest(trained_small), Path("artifacts/gpt2")).splitlines()
    assert max(map(len, told)) < columns
    assert told[0] == "Published: artifacts/gpt2"
    verdicts = [line.split()[1] for line in told if line.startswith(("  passed  ", "  FAILED  "))]
    assert verdicts == ["fp32", "int8", "int4", "weights", "int8", "int4"]
    assert any(line.startswith("  report: artifacts/gpt2/report.html") for line in told)
