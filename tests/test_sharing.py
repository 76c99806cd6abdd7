"""One process makes what all of them look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sharing import WORKER, WORKERS, made_once, threads_of_this_process


class Factory:
    """As much of pytest's factory as is asked for."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def getbasetemp(self) -> Path:
        self._base.mkdir(exist_ok=True)
        return self._base


def test_two_processes_share_what_the_first_one_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKER, "gw0")
    calls = []
    found = [
        made_once(Factory(tmp_path / worker), "thing", lambda folder: calls.append((folder / "x").write_text("x")))
        for worker in ("popen-gw0", "popen-gw1")
    ]
    assert found[0] == found[1]
    assert len(calls) == 1
    assert (found[0] / "x").read_text() == "x"


def test_what_failed_half_way_is_made_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        made_once(Factory(tmp_path / "base"), "thing", fail)
    folder = made_once(Factory(tmp_path / "base"), "thing", lambda folder: (folder / "whole").write_text("x"))
    assert [path.name for path in folder.iterdir()] == ["whole"]


@pytest.mark.parametrize(("cores", "workers", "threads"), [(2, "1", 2), (2, "2", 1), (1, "2", 1), (64, "4", 2)])
def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, workers: str, threads: int) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setenv(WORKERS, workers)
    assert threads_of_this_process() == threads
