"""What is on the screen while the library works, and what stays in a log."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from collections.abc import Callable

import pytest
from gpt_export.cli import display
from gpt_export.cli.display import WrittenStages, clock, in_words, progress

from tests.conftest import GPT_EXPORT, Run


def test_a_log_gets_a_line_a_stage_and_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as on_stage:
        on_stage("graph")
        on_stage("run int8")
        on_stage.part(1, 4, "case")
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "✓ making the graph  0.0 s",
        "✓ comparing int8 with PyTorch  0.0 s",
        "  done after 0.0 s",
    ]


def test_the_stage_that_failed_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        with progress() as on_stage:
            on_stage("graph")
            on_stage("write fp32")
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    told = capsys.readouterr().err
    assert "✓ making the graph" in told
    assert "✗ writing fp32" in told
    assert "stopped after" in told


def test_parts_are_told_of_stages_that_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    far: list[str] = []
    stages = WrittenStages()
    monkeypatch.setattr(stages, "far", far.append)
    stages("run onnx")
    stages.part(1, 4, "case")
    assert far == []
    monkeypatch.setattr(display, "TOLD_S", 0.0)
    monkeypatch.setattr(stages, "_stage_begun", time.perf_counter() - 3)
    stages.part(1, 4, "case")
    assert far == ["case 1 of 4, 25%, 9.0 s left"]


def test_what_stages_are_called_is_for_people() -> None:
    assert in_words("run eager") == "running the model in PyTorch"
    assert in_words("run onnx") == "comparing fp32 with PyTorch"
    assert in_words("run the graph") == "running the fp32 graph"
    assert in_words("run int4 beside the graph") == "comparing int4 with the fp32 graph"
    assert in_words("something new") == "something new"
    assert [clock(seconds) for seconds in (0.04, 9.94, 12.4, 59.6, 125)] == ["0.0 s", "9.9 s", "12 s", "1:00", "2:05"]


def test_something_is_on_the_screen_before_torch_is_loaded(tmp_path: object) -> None:
    ours, theirs = pty.openpty()
    begun = time.perf_counter()
    with subprocess.Popen([GPT_EXPORT, "onnx", "gpt5"], stdout=theirs, stderr=theirs, cwd=str(tmp_path)) as run:
        os.close(theirs)
        seen = os.read(ours, 4096)
        first = time.perf_counter() - begun
        while True:
            try:
                seen += os.read(ours, 4096)
            except OSError:
                break
        run.wait(60)
    os.close(ours)
    whole = time.perf_counter() - begun
    assert "loading PyTorch" in seen.decode("utf-8", "replace")
    assert first < whole / 2  # half a second on a quiet machine, where the whole takes two


def test_the_library_tells_parts_to_who_listens(cli: Callable[..., Run], tmp_path: object) -> None:
    import gpt_export

    from tests import samples

    class Listening:
        def __init__(self) -> None:
            self.told: list[tuple[int, int, str]] = []

        def __call__(self, stage: str) -> None:
            pass

        def part(self, done: int, total: int, what: str) -> None:
            self.told.append((done, total, what))

    listening = Listening()
    sizes = {"context_length": samples.CONTEXT, "vocab_size": samples.VOCAB}
    gpt_export.export(samples.tiny_dummy(), f"{tmp_path}/out", on_stage=listening, **sizes)  # type: ignore[arg-type]
    assert listening.told
    assert {what for _, _, what in listening.told} == {"batch", "case"}
    assert all(0 <= done < total for done, total, _ in listening.told)
    assert cli("--help").code == 0
