"""The wheel, and environments that hold it: no source folder, and no more packages than are meant to be there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLD = ("onnxruntime==1.17.3", "numpy<2")
"""The oldest onnxruntime that artifacts promise to load in, and what it was compiled for."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy of the files that git knows."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", "exporter", "models", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    if not names:  # a source archive instead of a clone
        found = [*ROOT.glob("exporter/**/*"), *ROOT.glob("models/**/*"), *ROOT.glob("*.*"), ROOT / "LICENSE"]
        names = [str(p.relative_to(ROOT)) for p in found if p.is_file() and "__pycache__" not in p.parts]
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
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
    folder = tmp_path_factory.mktemp("wheel-environment")
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
        try:
            make_environment(folder)
            pip(python, *OLD)
        except (subprocess.CalledProcessError, OSError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"pip cannot install {' '.join(OLD)} here: {reason.strip().splitlines()[-1]}")
        (folder / "complete").touch()
    pip(python, "--no-deps", "--force-reinstall", str(wheel))
    return python


@pytest.fixture
def run_in() -> Callable[..., str]:
    """Runs Python in an environment, away from the source folder; gives what it printed."""

    def run(python: Path, *args: str, cwd: Path) -> str:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(
            [str(python), *args], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def make_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True, symlinks=True)
    return folder / "bin" / "python"


def pip(python: Path, *args: str) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *args],
        capture_output=True,
        text=True,
        check=True,
    )
