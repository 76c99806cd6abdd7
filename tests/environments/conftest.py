"""The wheel, and environments that hold it: no source folder, and no more packages than are meant to be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLD = ("onnxruntime==1.17.3", "numpy<2")
"""The oldest onnxruntime that artifacts promise to load in, and what it was compiled for."""


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's own files."""
    folder = tmp_path_factory.mktemp("source") / "gpt-export"
    for name in project_files(ROOT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def project_files(root: Path) -> list[str]:
    """The project's own files below `root`, relative to it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if (root / name).is_file()]
    if not names or not (root / ".git").exists():  # an unpacked source archive, perhaps inside of somebody's clone
        (written,) = root.glob("*.egg-info/SOURCES.txt")
        names = [name for name in written.read_text("utf-8").splitlines() if (root / name).is_file()]
    return names


@pytest.fixture(scope="session")
def wheel(source_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel."""
    return build_wheel(source_folder, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def source_archive(source_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's source archive, made by the build backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("archive")
    project = tomllib.loads((source_folder / "pyproject.toml").read_text("utf-8"))
    python = make_environment(folder / "backend")
    install_or_skip(python, *project["build-system"]["requires"])
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    made = subprocess.run(
        [str(python), "-c", code, str(folder)], cwd=source_folder, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (archive,) = folder.glob("*.tar.gz")
    return archive


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel of the project in `source`, which pip puts into `folder`."""
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "setuptools" in built.stderr:
        pytest.skip(f"pip cannot fetch the build backend here: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def wheel_environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; its dependencies are seen in the environment that runs the tests."""
    return environment_of(wheel, tmp_path_factory.mktemp("wheel-environment"))


def environment_of(wheel: Path, folder: Path) -> Path:
    """The interpreter of a new environment that holds `wheel` and sees its dependencies in the one that runs this."""
    python = make_environment(folder)
    pip(python, "--no-deps", str(wheel))
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return python


@pytest.fixture(scope="session")
def old_environment(wheel: Path) -> Path:
    """An environment of the oldest onnxruntime, without torch. Kept in `.cache`, for it takes a download to make."""
    tag = "-".join(["py{}{}".format(*sys.version_info), *OLD]).replace("==", "").replace("<", "")
    folder = ROOT / ".cache" / tag
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_environment(folder)
        install_or_skip(python, *OLD)
        (folder / "complete").touch()
    pip(python, "--no-deps", "--force-reinstall", str(wheel))
    return python


@pytest.fixture
def run_in() -> Callable[..., str]:
    """Runs Python in an environment, away from the source folder; gives what it printed."""

    def run(python: Path, *args: str, cwd: Path) -> str:
        done = started_in(python, *args, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def started_in(python: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What Python in an environment left, with nothing of this process on its path."""
    return subprocess.run([str(python), *args], cwd=cwd, env=own_path(), capture_output=True, text=True, check=False)


def own_path() -> dict[str, str]:
    """This process's variables without those that would put other packages on a path, or before pip's eyes."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}


def make_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=False, symlinks=True)  # the pip of the tests serves all; a copy takes seconds
    return folder / "bin" / "python"


def pip(python: Path, *args: str) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *args,
        ],
        env=own_path(),
        capture_output=True,
        text=True,
        check=True,
    )


def install_or_skip(python: Path, *packages: str) -> None:
    """Installs packages; where pip reaches no index, the test is skipped and says which."""
    try:
        pip(python, *packages)
    except (subprocess.CalledProcessError, OSError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"pip cannot install {' '.join(packages)} here: {reason.strip().splitlines()[-1]}")
