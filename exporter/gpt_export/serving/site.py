"""Which URL path is which file. What is not on the list does not exist, so no request can name a file of its own."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

from gpt_export.artifact.manifest import MANIFEST_NAME
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError

ARTIFACT_PREFIX = "/artifact/"
PACKAGES_PREFIX = "/node_modules/"

PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
}
ARTIFACT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
"""No script among them: an artifact may come from anywhere."""
OTHER_TYPE = "application/octet-stream"

PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page may load and fetch from this server alone, and compile WebAssembly."""
ARTIFACT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""A report.html has its style and icon inside and no script; nothing that calls itself one gets to run."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A file that may be read, and how the browser is to take it."""

    root: Path
    """The real folder that the file must not lead out of."""
    relative: str
    content_type: str
    policy: str

    def open(self) -> BinaryIO:
        """The file, opened for reading.

        Raises:
            OSError: it is missing, is not a regular file, or is a link that leads out of its folder.
        """
        path = self.root / self.relative
        # Opened first and looked at after, so that nothing can be exchanged in between. A pipe must not block.
        handle = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        try:
            status, real = os.fstat(handle.fileno()), path.resolve(strict=True)
            inside = real.is_relative_to(self.root) and os.path.samestat(status, real.stat())
            if not inside or not stat.S_ISREG(status.st_mode):
                raise PermissionError(f"{path} is not a file inside {self.root}")
        except BaseException:
            handle.close()
            raise
        return handle


Site = Mapping[str, Resource]


def make_site(artifact: Artifact, packages: Mapping[str, Path]) -> Site:
    """Everything that is served, by URL path: the page at `/`, the artifact's own files, the packages' files.

    Args:
        packages: URL path below `/node_modules/` to file, as `packages.find_packages` gives them.

    Raises:
        ArtifactError: a file of the manifest is missing, or leads out of the artifact.
    """
    page = _page_folder()
    site = {
        f"/{path.name}": Resource(page, path.name, PAGE_TYPES[path.suffix], PAGE_POLICY)
        for path in sorted(page.iterdir())
        if path.suffix in PAGE_TYPES
    }
    site["/"] = site["/index.html"]
    site |= {f"{ARTIFACT_PREFIX}{name}": resource for name, resource in _artifact_files(artifact).items()}
    for name, path in packages.items():
        real = path.resolve()
        site[PACKAGES_PREFIX + name] = Resource(real.parent, real.name, PAGE_TYPES[path.suffix], PAGE_POLICY)
    return site


def _artifact_files(artifact: Artifact) -> dict[str, Resource]:
    root = artifact.folder.resolve()
    found = {}
    for name in (MANIFEST_NAME, *artifact.manifest.files):
        kind = ARTIFACT_TYPES.get(Path(name).suffix, OTHER_TYPE)
        found[name] = resource = Resource(root, name, kind, ARTIFACT_POLICY)
        try:
            resource.open().close()
        except OSError as error:
            what = error.strerror or "it leads out of the folder, or is no regular file"
            raise ArtifactError(
                f"{artifact.folder / name} cannot be served: {what}; copy the artifact's files themselves into one "
                "folder, or export it again"
            ) from error
    return found


def _page_folder() -> Path:
    return Path(str(files("gpt_export").joinpath("serving/web"))).resolve()
