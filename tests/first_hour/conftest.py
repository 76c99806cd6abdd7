from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.first_hour.place import copy_of, furnish, shrink_known_names, stand_in_packages
from tests.sharing import made_once


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints and texts that the docs speak of, made once. Copy it, never change it."""
    return made_once(tmp_path_factory, "furnished", furnish)


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
    yield folder
    sys.modules.pop("my_model", None)


@pytest.fixture
def command(cli: Callable[..., Run]) -> Callable[[list[str]], Run]:
    """Runs the words of a command line that begins with gpt-export."""

    def run(words: list[str]) -> Run:
        assert words[0] == "gpt-export"
        return cli(*words[1:])

    return run
