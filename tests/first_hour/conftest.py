from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gpt_export
import pytest
from gpt_export.bench import run as bench
from gpt_export.bench.plan import plan

from tests.conftest import Run
from tests.first_hour.place import copy_of, furnish, shrink_known_names, stand_in_packages
from tests.sharing import made_once


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, trained_checkpoint: Path) -> Path:
    """The checkpoints and texts that the docs speak of, made once. Copy it, never change it."""
    return made_once(tmp_path_factory, "furnished", lambda folder: furnish(folder, trained_checkpoint))


@pytest.fixture
def place(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh furnished folder, and the current one; the known sizes of GPT-2 are small in it."""
    folder = copy_of(furnished, tmp_path / "place")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shrink_known_names(monkeypatch)
    monkeypatch.setenv("GPT_EXPORT_NODE_MODULES", str(stand_in_packages(tmp_path / "node_modules")))
    monkeypatch.setattr("gpt_export.serving.server.SiteServer.serve_forever", lambda _: None)  # it would not end
    monkeypatch.setattr("gpt_export.bench.bandwidth.LEAST_BYTES", 2**22)
    monkeypatch.setattr("gpt_export.bench.bandwidth.CACHES", 0)
    monkeypatch.setattr("gpt_export.gate.cases.DEFAULT_POSITIONS", 300)
    monkeypatch.setattr(bench, "plan", lambda config, length: plan(replace(config, repeats=1, batches=(1,)), length))
    yield folder
    sys.modules.pop("my_model", None)


@pytest.fixture(scope="session")
def trained_small(tmp_path_factory: pytest.TempPathFactory, furnished: Path) -> Path:
    """The trained GPT's artifact with the variants that the docs open."""

    def make(folder: Path) -> None:
        text = (furnished / "text.txt").read_text("utf-8")
        source = furnished / "path" / "to" / "gpt2"
        gpt_export.export(source, folder / "artifact", precisions=("fp32", "int8", "int4"), calibration=text)

    return made_once(tmp_path_factory, "documented", make) / "artifact"


@pytest.fixture
def command(cli: Callable[..., Run]) -> Callable[[list[str]], Run]:
    """Runs the words of a command line that begins with gpt-export."""

    def run(words: list[str]) -> Run:
        assert words[0] == "gpt-export"
        return cli(*words[1:])

    return run
