"""An artifact on a machine that may not have it: looked for, fetched by hash, verified once whoever asks.

A machine keeps what it fetched in a folder of its cache, named by the manifest's digest, and a note on every folder
that was verified, with the size and the times of its files: as long as they are the same, nobody verifies it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_export_models.regular_files import OBJECT_BYTES, open_file, read_text

from gpt_export.artifact.manifest import MANIFEST_NAME, Manifest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError

try:
    import fcntl
except ImportError:  # Windows: two workers may verify the same folder at once there
    fcntl = None  # type: ignore[assignment]

CHUNK_BYTES = 32 << 20
CACHE = "GPT_EXPORT_CACHE"
"""Environment variable: where this machine keeps fetched artifacts."""

Fetch = Callable[[str, int], bytes]
"""The bytes of a file of the artifact, by its path and from an offset on, at most `CHUNK_BYTES`."""


def cache_folder() -> Path:
    """Where this machine keeps what it fetched."""
    given = os.environ.get(CACHE)
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else (Path(base) if base else Path.home() / ".cache") / "gpt-export"


def settle(folder: Path, manifest: Manifest, fetch: Fetch | None, *, cache: Path, ship: bool = False) -> Path:
    """A verified folder with the artifact on this machine.

    Args:
        folder: where it is on the machine that asks for the work.
        fetch: hands out its files; None on that machine.
        ship: do not look at `folder`.

    Raises:
        ArtifactError: it is damaged, or cannot be had.
    """
    digest = str(manifest.to_dict()["digest"])
    with _locked(cache, digest):
        for place in (*(() if ship else (folder,)), cache / digest):
            if _is(place, digest):
                return _verified(Artifact(place, manifest), digest, cache)
        if fetch is None:
            raise ArtifactError(f"{folder} is not the artifact any more that this run began with; start it anew")
        return _fetched(cache / digest, manifest, fetch)


def _is(place: Path, digest: str) -> bool:
    try:
        return bool(Artifact.open(place).manifest.to_dict()["digest"] == digest)
    except ArtifactError:
        return False


def _verified(artifact: Artifact, digest: str, cache: Path) -> Path:
    """The folder, verified unless a note says that these very files were."""
    note = cache / "verified" / f"{digest}-{hashlib.sha256(os.fsencode(artifact.folder.resolve())).hexdigest()[:16]}"
    seen = _seen(artifact)
    with contextlib.suppress(OSError, ValueError):
        if json.loads(read_text(note, largest=OBJECT_BYTES)) == seen:
            return artifact.folder
    artifact.verify()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and no more
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(seen), encoding="utf-8")
    return artifact.folder


def _seen(artifact: Artifact) -> list[list[object]]:
    found = []
    for path in sorted(artifact.manifest.files):
        with contextlib.suppress(OSError):
            stat = (artifact.folder / path).stat()
            found.append([path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    return found


def _fetched(target: Path, manifest: Manifest, fetch: Fetch) -> Path:
    """Every file at its place in `target`, which is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".fetch-", dir=target.parent))
    try:
        for path, entry in sorted(manifest.files.items()):
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            with (draft / path).open("wb") as file:
                while file.tell() < int(entry["size_bytes"]):
                    if not (chunk := fetch(path, file.tell())):
                        break
                    file.write(chunk)
        (draft / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        Artifact(draft, manifest).verify()
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return _verified(Artifact(target, manifest), str(manifest.to_dict()["digest"]), target.parent)


def read_chunk(folder: Path, path: str, offset: int) -> bytes:
    """What `Fetch` hands out, from the artifact in `folder`."""
    with open_file(folder / path) as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


@contextlib.contextmanager
def _locked(cache: Path, digest: str) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = os.open(cache / f".{digest}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ArtifactError(
            f"{cache} cannot be written: {error.strerror}; set {CACHE} to a folder for fetched artifacts"
        ) from error
    try:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
