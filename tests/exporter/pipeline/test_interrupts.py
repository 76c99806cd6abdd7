"""Ctrl-C, a polite kill, and a full disk: told in one sentence, and nothing left."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gpt_export
import pytest
from gpt_export.errors import OutputError
from gpt_export_models import DummyGPTModel

from tests import samples
from tests.conftest import GPT_EXPORT, Run, tree

SLOW = """
import time, torch
from tests import samples

class Slow(samples.WithEmbedding):
    context_length = 24
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if not torch.jit.is_scripting():
            time.sleep(0.5)
        return self.head(self.emb(ids))
"""
WIDE_CONFIG = samples.TINY_CONFIG | {"vocab_size": 4000, "emb_dim": 256}
"""8 MB of weights."""
WIDE = f"""
from gpt_export_models import DummyGPTModel
def make():
    model = DummyGPTModel({WIDE_CONFIG!r})
    model.context_length = 24
    return model
"""


def command(*args: str) -> list[str]:
    return [GPT_EXPORT, *args]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


INTERRUPTED = "Error: interrupted; nothing was published"


@pytest.mark.parametrize(
    ("number", "code", "words", "replacing"),
    [
        pytest.param(signal.SIGINT, 130, INTERRUPTED, False, id="SIGINT-new"),
        pytest.param(signal.SIGINT, 130, INTERRUPTED, True, id="SIGINT-replacing"),
        pytest.param(signal.SIGTERM, 143, "", True, id="SIGTERM-replacing"),
        pytest.param(signal.SIGHUP, 129, "", False, id="SIGHUP-new"),
    ],
)
def test_an_interrupted_export_leaves_nothing_and_loses_nothing(
    number: signal.Signals, code: int, words: str, replacing: bool, tiny: Path, user_module: Callable[[str], str]
) -> None:
    name = user_module(SLOW)
    output = tiny if replacing else tiny.parent / "new" / "x"
    before = tree(tiny)
    options = ["--force"] if replacing else []
    process = subprocess.Popen(
        command("onnx", f"{name}:Slow", "--output", str(output), *options),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 120
    while not list(output.parent.glob(f".{output.name}.staging-*/onnx/model.onnx")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert words in err
    assert tree(tiny) == before
    assert {path.name for path in tiny.parent.iterdir()} - {"__pycache__", f"{name}.py"} == {"tiny"}


def run_limited(cwd: Path, *args: str) -> Run:
    """The command where no file may grow beyond 1 MB: writes fail as on a full disk."""
    done = subprocess.run(
        command(*args),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    return Run(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_a_file_that_may_not_grow_ends_like_a_full_disk(
    kind: str, tmp_path: Path, user_module: Callable[[str], str]
) -> None:
    name = user_module(WIDE)
    run = run_limited(tmp_path, kind, f"{name}:make", "--output", "new/x")
    run.refused(1, "written", "free space")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"may not mount a small disk ({mount.stderr.strip()}); RLIMIT_FSIZE above covers the same code")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def export_wide(output: Path, on_stage: Callable[[str], None]) -> None:
    module = samples.seeded(DummyGPTModel(WIDE_CONFIG))
    gpt_export.export(module, output, context_length=24, vocab_size=4000, on_stage=on_stage)


@pytest.mark.parametrize("stage", ["write fp32", "write TorchScript", "run eager"])
def test_a_disk_that_fills_up_on_the_way_publishes_nothing(stage: str, small_disk: Path) -> None:
    def fill(name: str) -> None:
        if name == stage:
            with (small_disk / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(65536))
                except OSError:
                    pass

    # Small enough to pass the check of free space at the start.
    small = samples.TINY_CONFIG | {"vocab_size": 1000, "emb_dim": 64}
    module = samples.seeded(DummyGPTModel(small))
    with pytest.raises(OutputError, match=r"No space left on device|cannot be written") as caught:
        gpt_export.export(module, small_disk / "new" / "x", context_length=24, vocab_size=1000, on_stage=fill)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    assert {path.name for path in small_disk.iterdir()} == {"filler"}


def test_a_disk_that_is_too_small_is_told_at_once(small_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"has \d+ MB free, the export needs \d+ MB; free space or choose another"):
        export_wide(small_disk / "x", lambda _: None)
    assert list(small_disk.iterdir()) == []
