from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpt_export
import numpy as np
import pytest
import torch
from gpt_export.artifact.reading import Artifact
from gpt_export.pipeline import stages
from gpt_export.pipeline.config import ExportConfig
from gpt_export.runtime.session import Session
from gpt_export.sources.gpt import checkpoint_source
from gpt_export.sources.source import Source
from gpt_export.weights.quantize.schemes import PRECISIONS
from gpt_export_models import GPT_CONFIG_124M, DummyGPTModel
from torch import nn

from tests import samples
from tests.byte_gpt import save_byte_gpt
from tests.sharing import WORKER, made_once, threads_of_this_process
from tests.signals import let_children_be_interrupted
from tests.trained_gpt import HELD_OUT, TEXTS, save_trained_gpt

os.environ.pop("COLUMNS", None)  # pytest-xdist says one to its workers, and lines are broken where one is said
GPT_EXPORT = str(Path(sys.executable).with_name("gpt-export"))
"""The console script of the environment that runs the tests."""
TRAINED = Path("checkpoint") / "model.pth"


def pytest_configure() -> None:
    let_children_be_interrupted()
    if WORKER in os.environ:  # children too keep to their share of the cores
        os.environ.setdefault("OMP_NUM_THREADS", str(threads_of_this_process()))


@pytest.fixture(autouse=True, scope="session")
def few_threads() -> None:
    torch.set_num_threads(threads_of_this_process())


@dataclass(frozen=True)
class Run:
    """What a finished command left."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Stdout, which must be one JSON value and nothing else."""
        return json.loads(self.out)

    def refused(self, code: int, *words: str) -> str:
        """The one sentence on stderr of a failure with this exit code, which must have all the words."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        sentences = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        assert len(sentences) == 1, self.err
        for word in words:
            assert word in sentences[0], sentences[0]
        return sentences[0]


@pytest.fixture(scope="session")
def run_command() -> Callable[..., Run]:
    """Runs the console script in a process of its own."""

    def run(*args: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Run:
        done = subprocess.run(
            [GPT_EXPORT, *map(str, args)],
            cwd=cwd,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Runs the command line in this process, which saves importing torch each time."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*args: object) -> Run:
        from gpt_export.cli import cli as group

        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            group.main([str(arg) for arg in args], prog_name="gpt-export")
        captured = capsys.readouterr()
        return Run(int(caught.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, run_command: Callable[..., Run]) -> tuple[Path, Run]:
    """The main job, run once as a user runs it: the 124M skeleton's artifact, and what the command said."""

    def make(folder: Path) -> None:
        run = run_command("onnx", "--output", folder / "dummy-124m", "--json")
        assert run.code == 0, run.err
        (folder / "run.json").write_text(json.dumps(dataclasses.asdict(run)), encoding="utf-8")

    folder = made_once(tmp_path_factory, "main", make)
    return folder / "dummy-124m", Run(**json.loads((folder / "run.json").read_text("utf-8")))


@pytest.fixture(scope="session")
def artifact_124m(exported: tuple[Path, Run]) -> Path:
    """The artifact of the 124M skeleton. Read it, never change it."""
    return exported[0]


@pytest.fixture(scope="session")
def dummy_124m() -> DummyGPTModel:
    """The eager skeleton that `artifact_124m` was made from, dropout off."""
    torch.manual_seed(123)
    return DummyGPTModel(GPT_CONFIG_124M).eval()


@pytest.fixture(scope="session")
def session_124m(artifact_124m: Path) -> Session:
    return Session.open(artifact_124m)


@pytest.fixture
def export_tiny(tmp_path: Path) -> Callable[..., Artifact]:
    """Exports a small module to a folder of the test."""

    def export(module: nn.Module, output: Path | None = None, **settings: Any) -> Artifact:
        settings = {"context_length": samples.CONTEXT, "vocab_size": samples.VOCAB, "name": "tiny"} | settings
        return gpt_export.export(module, output or tmp_path / "out" / "tiny", **settings)

    return export


@pytest.fixture(scope="session")
def tiny_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"context_length": samples.CONTEXT, "vocab_size": samples.VOCAB}

    def make(folder: Path) -> None:
        gpt_export.export(samples.tiny_dummy(), folder / "artifact", name="tiny", **sizes)

    return made_once(tmp_path_factory, "tiny", make) / "artifact"


@pytest.fixture
def tiny(tiny_original: Path, tmp_path: Path) -> Path:
    """An artifact of a small skeleton (`samples.tiny_dummy`) that the test may damage."""
    return Path(shutil.copytree(tiny_original, tmp_path / "tiny"))


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Writes Python source as a module into the current folder, `tmp_path`; gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made: list[str] = []

    def write(source: str) -> str:
        name = f"user_module_{re.sub(r'[^0-9a-zA-Z]', '_', tmp_path.name)}_{len(made)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


SavedExport = Callable[..., Path]


@pytest.fixture(scope="session")
def export_saved(tmp_path_factory: pytest.TempPathFactory) -> SavedExport:
    """Exports the small GPT over bytes (`tests.byte_gpt`) under a name, once; gives the artifact's folder."""

    def export(name: str, *, tokenizer: bool = True, cached: bool = True, **config: Any) -> Path:
        def make(folder: Path) -> None:
            path, config_file = save_byte_gpt(folder / "checkpoint", tokenizer=tokenizer)
            source = checkpoint_source(path, config_file=config_file, cached=cached)
            stages.export(source, ExportConfig(**config), folder / "artifact")

        return made_once(tmp_path_factory, name, make) / "artifact"

    return export


@pytest.fixture(scope="session")
def byte_original(export_saved: SavedExport) -> Path:
    """The artifact of a small GPT over bytes (`tests.byte_gpt`) with its tokenizer. Read it, never change it."""
    return export_saved("bytes")


@pytest.fixture(scope="session")
def byte_uncached(export_saved: SavedExport) -> Path:
    """As `byte_original`, from ids to logits without a cache."""
    return export_saved("uncached", cached=False)


@pytest.fixture(scope="session")
def byte_portable(export_saved: SavedExport) -> Path:
    """As `byte_original`, in standard operators alone."""
    return export_saved("portable", profile="portable")


@pytest.fixture(scope="session")
def byte_variants(export_saved: SavedExport) -> Path:
    """As `byte_original`, in every precision; its weights are too few and too random for the gates of the others."""
    return export_saved("variants", precisions=("fp32", "fp16", "int8", "int4"), gate="report")


@pytest.fixture(scope="session")
def ids_alone(export_saved: SavedExport) -> Path:
    """As `byte_original`, without a tokenizer."""
    return export_saved("ids", tokenizer=False)


@pytest.fixture(scope="session")
def trained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small trained GPT (`tests.trained_gpt`), its configuration and tokenizer beside it."""
    return made_once(tmp_path_factory, "trained", lambda folder: save_trained_gpt(folder / "checkpoint")) / TRAINED


@pytest.fixture(scope="session")
def trained_source(trained_checkpoint: Path) -> Source:
    return checkpoint_source(trained_checkpoint, config_file=trained_checkpoint.with_name("book.json"))


@pytest.fixture(scope="session")
def trained_variants(tmp_path_factory: pytest.TempPathFactory, trained_source: Source) -> Path:
    """The trained GPT in every precision, each of which passed its gate. Read it, never change it."""

    def make(folder: Path) -> None:
        config = ExportConfig(precisions=PRECISIONS, texts=TEXTS, corpus=HELD_OUT)
        stages.export(trained_source, config, folder / "artifact")

    return made_once(tmp_path_factory, "precisions", make) / "artifact"


@pytest.fixture(scope="session")
def trained_kv8(tmp_path_factory: pytest.TempPathFactory, trained_source: Source) -> Path:
    """The trained GPT with a cache of 8 bits, in each precision that can have one. Read it, never change it."""

    def make(folder: Path) -> None:
        config = ExportConfig(precisions=("fp32", "int8", "int4"), kv_caches=("int8",), texts=TEXTS, corpus=HELD_OUT)
        stages.export(trained_source, config, folder / "artifact")

    return made_once(tmp_path_factory, "kv8", make) / "artifact"


@pytest.fixture
def max_difference() -> Callable[[Session, nn.Module, np.ndarray], float]:
    """The largest distance of the session's logits from eager's."""

    def distance(session: Session, module: nn.Module, ids: np.ndarray) -> float:
        return float(np.abs(session.logits(ids) - samples.eager_logits(module, ids)).max())

    return distance


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
