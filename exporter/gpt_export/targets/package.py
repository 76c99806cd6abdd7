"""An artifact repackaged for a consumer that wants another layout, published in one step and verified on the way."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gpt_export_models.regular_files import open_file

from gpt_export.artifact.reading import Artifact
from gpt_export.artifact.staging import stage
from gpt_export.errors import ArtifactError, ConfigError, OutputError
from gpt_export.progress import OnStage, ignore
from gpt_export.targets import archive, genai, triton
from gpt_export.targets.facts import Facts
from gpt_export.targets.plan import FromArtifact, Plan

ARCHIVE = "archive"
FOLDERS: Mapping[str, Callable[[Facts, str], Plan]] = {"triton": triton.package, "genai": genai.package}
PACKAGES = (*FOLDERS, ARCHIVE)


@dataclass(frozen=True, slots=True)
class Package:
    """What was published: `path` is the folder of the model, or the tar."""

    path: Path
    files: tuple[str, ...]
    sha256: str | None
    """Of the tar; None for folders."""


def package(
    folder: Path, target: str, output: Path, *, variant: str | None = None, on_stage: OnStage = ignore
) -> Package:
    """Packages the artifact in `folder`; at the output appears all of it or nothing.

    Args:
        target: `triton` (`output` is the model repository, which may hold other models), `genai` or `archive`.
        variant: the one to take, the artifact's first if left out; an archive holds them all.

    Raises:
        ConfigError: the target is unknown, or an archive of one variant was asked for.
        ArtifactError: the artifact is damaged, lacks the variant, or is nothing for that target.
        OutputError: the output exists or cannot be written.
    """
    if target not in PACKAGES:
        raise ConfigError(f"target {target!r} is not known; choose one of {', '.join(PACKAGES)}")
    artifact = Artifact.open(folder)
    facts = Facts.of(artifact.folder, artifact.manifest)
    on_stage(f"package for {target}")
    if target == ARCHIVE:
        if variant is not None:
            raise ConfigError("an archive holds every variant; leave --variant out, or choose another target")
        return _publish_tar(artifact, archive.package(facts), facts.folder_name, output)
    chosen = variant or next(iter(facts.variants), "fp32")
    artifact.variant_path(chosen)  # refuses what is not there
    place = output / facts.folder_name if target == "triton" else output
    return _publish_folder(artifact, FOLDERS[target](facts, chosen), place)


def _publish_folder(artifact: Artifact, plan: Plan, output: Path) -> Package:
    if not (output.is_dir() and not any(output.iterdir())):
        _refuse_existing(output)
    with stage(output, replace=False, needed_bytes=_size_bytes(artifact, plan)) as staged:
        for name, content in plan.items():
            path = staged.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    with _verified(artifact, content) as source:
                        while chunk := source.read(archive.CHUNK_BYTES):
                            file.write(chunk)
        return Package(staged.publish(), tuple(sorted(plan)), None)


def _publish_tar(artifact: Artifact, plan: Plan, root: str, output: Path) -> Package:
    _refuse_existing(output)
    with stage(output, replace=False, needed_bytes=_size_bytes(artifact, plan)) as staged:
        draft = staged.folder / "archive.tar"
        digest = archive.write_tar(
            draft,
            root,
            plan,
            lambda content: _verified(artifact, content),
            lambda content: int(artifact.manifest.files[content.path]["size_bytes"]),
        )
        try:
            os.link(draft, staged.output)  # unlike a rename, this never replaces what has appeared there meanwhile
        except FileExistsError:
            _refuse_existing(output)
            raise
        except OSError:  # a file system without links
            _refuse_existing(output)
            draft.rename(staged.output)
        return Package(staged.output, tuple(sorted(plan)), digest)


def _refuse_existing(output: Path) -> None:
    if os.path.lexists(output):
        raise OutputError(f"{output} exists; choose another --output, or remove it yourself")


class _Hashed(io.RawIOBase):
    """A file that is read once, and the hash of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


@contextlib.contextmanager
def _verified(artifact: Artifact, content: FromArtifact) -> Iterator[BinaryIO]:
    """The artifact's file to read to its end; afterwards its SHA-256 is compared with the manifest's.

    Raises:
        ArtifactError: it is missing or altered. Nothing has been published by then.
    """
    entry = artifact.manifest.files[content.path]
    try:
        file = open_file(artifact.folder / content.path)
    except OSError as error:
        raise _damaged(artifact, f"{content.path} cannot be read ({error.strerror})") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != entry["size_bytes"]:
            raise _damaged(artifact, f"{content.path} has {size} bytes, not {entry['size_bytes']}")
        hashed = _Hashed(file)
        yield hashed  # type: ignore[misc]
        if hashed.digest.hexdigest() != entry["sha256"]:
            raise _damaged(artifact, f"{content.path} was altered (its SHA-256 differs)")


def _damaged(artifact: Artifact, fault: str) -> ArtifactError:
    return ArtifactError(f"{artifact.folder} is damaged: {fault}; export it again or fetch a fresh copy")


def _size_bytes(artifact: Artifact, plan: Plan) -> int:
    return sum(
        len(content) if isinstance(content, bytes) else int(artifact.manifest.files[content.path]["size_bytes"])
        for content in plan.values()
    )
