"""The root of the project's errors; `gpt_export.errors` grows the rest of the tree from it."""

from __future__ import annotations

from typing import ClassVar


class GptExportError(Exception):
    """A failure that has a name. `str(error)` is one sentence; `exit_code` is what the command line exits with."""

    exit_code: ClassVar[int] = 1


class ConfigError(GptExportError, ValueError):
    """A setting that cannot be: of the wrong type, out of range, or at odds with another one."""

    exit_code = 2


class TextError(GptExportError, ValueError):
    """A text that does not become a usable sequence of token ids."""

    exit_code = 2


class CheckpointError(GptExportError):
    """A checkpoint that cannot be read, is not of a known family, or does not fit its configuration."""


class ScratchError(GptExportError):
    """A folder for temporary files that cannot be made, or is full."""


class UnimplementedError(CheckpointError):
    """A checkpoint of a known family whose configuration asks for what our decoder does not compute."""


class UnstatedError(CheckpointError):
    """A checkpoint that leaves open what makes it one model or another, and that only its user can say."""

    exit_code = 2
