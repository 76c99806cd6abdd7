"""The environments of the peers' libraries, made once in `benches/.cache`, and llama.cpp's source archive.

An environment that is there already, or a link to one, is used as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

from benches.peers import CACHE, peers_python

HERE = Path(__file__).parent
NATIVE = {"CMAKE_ARGS": "-DGGML_NATIVE=ON"}
BUILD_TOOLS = ("cmake", "ninja", "scikit-build-core")


def optimum_python(cache: Path = CACHE) -> Path:
    """The interpreter with Optimum, transformers and torch."""
    return peers_python(cache)


def openvino_python(cache: Path = CACHE) -> Path:
    """The interpreter with OpenVINO GenAI, optimum-intel and CTranslate2."""
    python = cache / "openvino" / "bin" / "python"
    if not python.exists():
        _make(python, ["--requirement", str(HERE / "openvino-requirements.txt")])
        # torchvision, where something brings it, is built for another torch and stops the import of transformers.
        _pip(python, "uninstall", "--yes", "torchvision")
    return python


def genai_python(cache: Path = CACHE) -> Path:
    """The interpreter with onnxruntime-genai and what its model builder needs."""
    python = cache / "genai" / "bin" / "python"
    if not python.exists():
        _make(python, ["--requirement", str(HERE / "genai-requirements.txt")])
    return python


def llama_python(cache: Path = CACHE) -> Path:
    """The interpreter with llama.cpp, built from its source for this processor; that takes ten minutes."""
    python = cache / "llama" / "bin" / "python"
    if not python.exists():
        binary = ["--no-binary", "llama-cpp-python", "--requirement", str(HERE / "llama-requirements.txt")]
        _make(python, binary, NATIVE)
    return python


def llama_source(cache: Path = CACHE) -> Path:
    """The folder of llama.cpp's sources, which hold its converter, from the archive of llama-cpp-python."""
    folder = cache / "llama-source"
    if not any(folder.glob("*/vendor/llama.cpp/convert_hf_to_gguf.py")):
        folder.mkdir(parents=True, exist_ok=True)
        python = folder / "env" / "bin" / "python"
        _make(python, list(BUILD_TOOLS))  # pip wants to build before it believes an archive's name
        wanted = (HERE / "llama-requirements.txt").read_text(encoding="utf-8").splitlines()
        (package,) = (line for line in wanted if line.startswith("llama-cpp-python"))
        _pip(python, "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", folder, package)
        (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    (found,) = folder.glob("*/vendor/llama.cpp")
    return found


def versions(python: Path, *packages: str) -> dict[str, str]:
    """The installed versions of packages in an environment."""
    code = "import sys\nfrom importlib.metadata import version\nprint(*map(version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True)
    return dict(zip(packages, done.stdout.split(), strict=True))


def _make(python: Path, packages: list[str], environment: dict[str, str] | None = None) -> None:
    folder = python.parent.parent
    print(f"making the environment {folder.name}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    try:
        _pip(python, "install", *packages, environment=environment)
    except BaseException:
        python.unlink()  # half an environment must not be taken for a whole one
        raise


def _pip(python: Path, *arguments: str | Path, environment: dict[str, str] | None = None) -> None:
    command = [python, "-m", "pip", arguments[0], "--quiet", *arguments[1:]]
    subprocess.run(command, check=True, env=os.environ | (environment or {}))
