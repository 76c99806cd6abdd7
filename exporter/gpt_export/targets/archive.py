"""The artifact as one tar: the same bytes for the same artifact, with checksums that `sha256sum -c` reads."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from gpt_export.artifact.hashing import HashingWriter
from gpt_export.artifact.manifest import MANIFEST_NAME
from gpt_export.targets.facts import Facts
from gpt_export.targets.plan import FromArtifact, Plan

SUMS_NAME = "SHA256SUMS"
MTIME = 315_532_800
"""1980-01-01: tools that unpack complain of 1970."""
CHUNK_BYTES = 1 << 20

Opener = Callable[[FromArtifact], AbstractContextManager[BinaryIO]]


def package(facts: Facts) -> Plan:
    """Every file of the manifest, the manifest, and `SHA256SUMS` over them all."""
    manifest = facts.manifest.to_json().encode("utf-8")
    sums = {path: str(entry["sha256"]) for path, entry in facts.manifest.files.items()}
    sums[MANIFEST_NAME] = hashlib.sha256(manifest).hexdigest()
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items()))
    return {
        **{path: FromArtifact(path) for path in facts.manifest.files},
        MANIFEST_NAME: manifest,
        SUMS_NAME: lines.encode("utf-8"),
    }


def write_tar(path: Path, root: str, plan: Plan, opened: Opener, sizes: Callable[[FromArtifact], int]) -> str:
    """Writes the files of `plan` under `root` to a new tar at `path`, in order of their names; gives its SHA-256.

    Owners, times and modes are fixed, and only regular files are entered. One chunk is in memory at a time.
    """
    with HashingWriter(path) as writer:
        for name, content in sorted(plan.items()):
            info = tarfile.TarInfo(f"{root}/{name}")
            info.mtime, info.mode = MTIME, 0o644
            info.size = len(content) if isinstance(content, bytes) else sizes(content)
            writer.write(info.tobuf(tarfile.PAX_FORMAT))
            with io.BytesIO(content) if isinstance(content, bytes) else opened(content) as file:
                while chunk := file.read(CHUNK_BYTES):
                    writer.write(chunk)
            writer.pad_to(_whole(writer.size_bytes, tarfile.BLOCKSIZE))
        end = writer.size_bytes + 2 * tarfile.BLOCKSIZE  # two blocks of zeros end a tar
        writer.pad_to(_whole(end, tarfile.RECORDSIZE))
        return writer.sha256


def _whole(size_bytes: int, unit: int) -> int:
    return -(-size_bytes // unit) * unit
