"""The npm packages of the page: which files of them it needs, and where they may be."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from gpt_export.errors import ServeError

NEEDED = (
    "onnxruntime-web/dist/ort.wasm.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs",
)
"""All that the page loads of them, below a `node_modules` folder."""
VARIABLE = "GPT_EXPORT_NODE_MODULES"


def find_packages(folder: Path | None = None) -> dict[str, Path]:
    """Each of `NEEDED` with its file, from `folder` or else the first place that has them all.

    The places: what `GPT_EXPORT_NODE_MODULES` names, `node_modules` of the current folder and of those above it,
    of the page's own folder, and of the user's cache.

    Raises:
        ServeError: they are not there; the message has the command that installs them.
    """
    named = folder or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    places = list(_places(named)) if named else [*_above(), _page_modules(), _cache() / "node_modules"]
    for place in places:
        found = {name: place / name for name in NEEDED}
        if all(path.is_file() for path in found.values()):
            return found
    where = f"in {named}" if named else f"in node_modules here or above, nor in {_cache()}"
    wanted = " ".join(f"{name}@{version}" for name, version in page_versions().items())
    raise ServeError(
        f"the page needs {' and '.join(page_versions())}, which are not {where}; "
        f"run: npm install --ignore-scripts --prefix {_cache()} {wanted}"
    )


def page_versions() -> dict[str, str]:
    """The packages of the page with the versions that it is tested with."""
    package = json.loads(files("gpt_export").joinpath("serving/web/package.json").read_text(encoding="utf-8"))
    return dict(package["dependencies"])


def _places(named: Path) -> Iterator[Path]:
    """A `node_modules` folder, the folder that holds one, or a package inside one."""
    yield named
    yield named / "node_modules"
    yield named.resolve().parent


def _above() -> list[Path]:
    here = Path.cwd()
    return [folder / "node_modules" for folder in (here, *here.parents)]


def _page_modules() -> Path:
    return Path(str(files("gpt_export").joinpath("serving/web"))) / "node_modules"


def _cache() -> Path:
    """Where the message installs them: the XDG base directory for caches."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpt-export"
