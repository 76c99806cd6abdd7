"""Folders for what is needed for a while, wherever the system keeps such; a full one is named, and the way out."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gpt_export_models.errors import ScratchError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def scratch_folder(prefix: str = "gpt-export-") -> Iterator[Path]:
    """A new folder among the system's temporary files, which is gone afterwards.

    Raises:
        ScratchError: it cannot be made, or what is written there does not fit.
    """
    try:
        held = tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise ScratchError(
            f"no folder for temporary files can be made ({error.strerror or error}); free space, or name another by "
            "the environment variable TMPDIR"
        ) from error
    with held as name:
        try:
            yield Path(name)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise ScratchError(
                f"the folder for temporary files, {tempfile.gettempdir()}, is full ({error.strerror}); free space "
                "there, or name another by the environment variable TMPDIR"
            ) from error
