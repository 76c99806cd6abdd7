"""The source archive: it holds what a clone holds, and its tests pass where it is unpacked."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments.conftest import ROOT, build_wheel, environment_of, project_files

MADE = re.compile(r"PKG-INFO|setup\.cfg|gpt_export\.egg-info/.*")
"""What the build backend adds."""
QUICK = (
    "tests/models/test_config.py",
    "tests/exporter/graph/test_torchscript_names.py",
    "tests/benches/test_parity_doc.py",
    "tests/environments/test_wheel.py::test_the_readme_links_to_files_that_are_there",
)
"""Tests of both packages, of the docs and of the benches, that take seconds."""


@pytest.fixture(scope="module")
def unpacked(source_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the archive unpacks to."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(source_archive) as archive:
        archive.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def python(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel made from the unpacked archive."""
    folder = tmp_path_factory.mktemp("from-archive")
    return environment_of(build_wheel(unpacked, folder), folder / "environment")


def test_it_holds_every_file_of_the_project_and_nothing_else(source_archive: Path) -> None:
    with tarfile.open(source_archive) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in names if not MADE.fullmatch(name)} == {
        name for name in project_files(ROOT) if not MADE.fullmatch(name)
    }


def test_its_tests_are_all_collected(unpacked: Path, python: Path, run_in: Callable[..., str]) -> None:
    out = run_in(python, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", cwd=unpacked)
    assert "error" not in out.splitlines()[-1]
    collected = {line.partition("::")[0] for line in out.splitlines() if "::" in line}
    assert collected == {name for name in project_files(ROOT) if re.fullmatch(r"tests/(.*/)?test_\w+\.py", name)}


def test_its_tests_run_on_what_was_built_from_it(unpacked: Path, python: Path, run_in: Callable[..., str]) -> None:
    where = run_in(python, "-c", "import gpt_export; print(gpt_export.__file__)", cwd=unpacked)
    assert Path(where.strip()).is_relative_to(python.parents[1])
    out = run_in(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICK, cwd=unpacked)
    assert re.search(r"\d+ passed", out.splitlines()[-1])
    assert "failed" not in out
    assert "skipped" not in out
