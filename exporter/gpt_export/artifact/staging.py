"""Publishing a folder in one step: written beside its place, then put there by one rename.

A reader sees the old folder or the new one. The first publication is a rename that fails if something is there; a
replacement exchanges the two folders (`renameat2`, Linux) and then deletes the old one. Where the system cannot
exchange, the old folder is first renamed aside; a run that dies between the two renames leaves it there, and the next
run puts it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gpt_export.artifact.manifest import has_manifest
from gpt_export.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: a staging folder there has no lock, and abandoned ones stay
    fcntl = None  # type: ignore[assignment]

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


class Staging:
    """A folder that is being written, and the place where it will be published."""

    def __init__(self, folder: Path, output: Path, replace: bool) -> None:
        self.folder = folder
        self.output = output
        self._replace = replace

    def publish(self) -> Path:
        """Puts the folder in its place and returns that place.

        Raises:
            OutputError: something appeared at the output meanwhile, or the system refuses the rename.
        """
        check_output(self.output, replace=self._replace)  # much may have happened since the export began
        try:
            if self.output.is_dir() and not any(self.output.iterdir()):
                self.folder.rename(self.output)  # rename(2) replaces an empty folder
            elif self._replace and self.output.exists():
                _exchange(self.folder, self.output)
            else:
                _rename_new(self.folder, self.output)
        except FileExistsError as error:
            raise _exists(self.output) from error
        except OSError as error:
            raise OutputError(
                f"{self.output} cannot be published: {error.strerror}; choose another --output"
            ) from error
        return self.output


@contextlib.contextmanager
def stage(output: Path, *, replace: bool, needed_bytes: int = 0) -> Iterator[Staging]:
    """A locked staging folder beside `output`; whatever is left of it at the end is removed.

    Folders that dead runs left behind are removed first; those of live runs are locked and stay.

    Args:
        replace: whether an artifact at `output` may be replaced.
        needed_bytes: refuse early when the disk has less free space than this.

    Raises:
        OutputError: `output` exists and may not be replaced, cannot be written, or the disk is too full.
    """
    output = Path(os.path.realpath(output))
    check_output(output, replace=replace)
    made = _make_parents(output.parent)
    folder = None
    try:
        try:
            _recover(output)
            _check_space(output, needed_bytes)
            folder, lock = _locked_folder(output)
        except OSError as error:
            raise OutputError(
                f"{output.parent} cannot be written: {error.strerror}; choose another --output"
            ) from error
        try:
            yield Staging(folder, output, replace)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OutputError(
                f"{output} was not written: {error.strerror}; free space or choose another --output"
            ) from error
        finally:
            os.close(lock)
    finally:
        _remove(output, folder)
        for parent in reversed(made):
            with contextlib.suppress(OSError):  # not empty: it has been used
                parent.rmdir()


def _remove(output: Path, folder: Path | None) -> None:
    """Removes `folder`, or where it has no name yet whatever no live run has locked; interruptions wait for that."""
    interruption: BaseException | None = None
    while True:
        try:
            if folder is None:
                _remove_abandoned(output)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            break
        except (KeyboardInterrupt, SystemExit) as again:  # Ctrl-C, pressed once more
            interruption = again
    if interruption is not None:
        raise interruption


def write_whole(path: Path, text: str) -> None:
    """Puts a file of this text at `path`, in UTF-8 and in place of one that is there: the whole of it, or nothing.

    What is no regular file, such as a pipe or /dev/stdout, is written to as it is, and so is a file in a folder that
    takes no new ones.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    folder = None
    try:
        _remove_abandoned(path)
        try:
            folder, lock = _locked_folder(path)
        except PermissionError:
            path.write_text(text, encoding="utf-8")
            return
        try:
            draft = folder / "draft"
            draft.write_text(text, encoding="utf-8")
            if path.exists():
                shutil.copymode(path, draft)
            draft.replace(path)
        finally:
            os.close(lock)
    finally:
        _remove(path, folder)


def check_output(output: Path, *, replace: bool) -> None:
    """Refuses an output that may not be written, before any work is done.

    Raises:
        OutputError: it exists and `replace` is false, or it is not an artifact (or empty folder) of ours.
    """
    try:
        str(output).encode("utf-8")
        there = output.exists()
    except (ValueError, OSError) as error:  # no UTF-8, a NUL, too long
        raise OutputError(
            f"{str(output)!a} is no path that can be written: {error}; choose another --output"
        ) from error
    if not there or (output.is_dir() and not any(output.iterdir())):
        return
    if not output.is_dir():
        raise OutputError(f"{output} is a file, an artifact is a folder; choose another --output")
    if not replace:
        raise _exists(output)
    if not has_manifest(output):
        raise OutputError(
            f"{output} is not an artifact of gpt-export, so --force will not replace it; "
            "choose another --output, or remove it yourself"
        )


def _exists(output: Path) -> OutputError:
    return OutputError(f"{output} exists; replace it with --force, or choose another --output")


def _make_parents(parent: Path) -> list[Path]:
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()][::-1]
    for folder in missing:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be created: {error.strerror}; choose another --output") from error
    return missing


def _check_space(output: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(output.parent).free
    if free < needed_bytes:
        raise OutputError(
            f"{output.parent} has {free / 1e6:.0f} MB free, the export needs {needed_bytes / 1e6:.0f} MB; "
            "free space or choose another --output"
        )


def _staging_prefix(output: Path) -> str:
    return f".{output.name}.staging-"


def _aside(output: Path) -> Path:
    return output.with_name(f".{output.name}.replaced")


def _locked_folder(output: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_staging_prefix(output), dir=output.parent))
        lock = os.open(folder, os.O_RDONLY)
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Another run may have taken the new folder for an abandoned one before it was locked.
            if folder.exists() and os.path.samestat(os.fstat(lock), folder.stat()):
                folder.chmod(0o777 & ~_umask())
                return folder, lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _recover(output: Path) -> None:
    """Puts back what a dead replacement renamed aside, and removes staging folders that no live run has locked."""
    aside = _aside(output)
    if aside.exists():
        if output.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(output)
    _remove_abandoned(output)


def _remove_abandoned(output: Path) -> None:
    """Removes staging folders that no live run has locked."""
    if not fcntl:
        return
    for folder in output.parent.glob(f"{_glob_escape(_staging_prefix(output))}*"):
        with contextlib.suppress(OSError):  # locked, or gone already
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _glob_escape(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _rename_new(source: Path, target: Path) -> None:
    if not _renameat2(source, target, _RENAME_NOREPLACE):
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.rename(target)


def _exchange(source: Path, target: Path) -> None:
    if not _renameat2(source, target, _RENAME_EXCHANGE):
        aside = _aside(target)
        target.rename(aside)
        try:
            source.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _renameat2(source: Path, target: Path, flags: int) -> bool:
    """Whether the system has renameat2 and its file system the flag; raises OSError when the rename itself fails."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(target))
