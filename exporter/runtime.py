"""What applications import to run an artifact. Needs numpy and onnxruntime; works where torch is not installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from exporter.artifact import Artifact
from exporter.errors import ArtifactError, InputError, RuntimeVersionError
from exporter.manifest import Manifest
from exporter.signature import INPUT_IDS, LOGITS

_OPEN_ATTEMPTS = 5


class Session:
    """An exported GPT in onnxruntime, with the limits enforced that the graph itself cannot state."""

    def __init__(self, manifest: Manifest, session: ort.InferenceSession) -> None:
        self.manifest = manifest
        self._session = session
        self.vocab_size = int(manifest.model["vocab_size"])
        self.context_length = int(manifest.model["context_length"])

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        variant: str = "fp32",
        verify: bool = True,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        prepack: bool = True,
    ) -> Session:
        """The session on one variant of an artifact.

        If the artifact is replaced while it is being opened, it is opened anew, so that a session never mixes two.

        Args:
            verify: compare every file with its SHA-256 first (0.8 GB/s or so).
            providers: onnxruntime execution providers in order of preference; the CPU's if left out.
            threads: threads within an operator; onnxruntime's choice if left out.
            prepack: let onnxruntime rearrange weights for speed, at the price of a second copy of them in memory.

        Raises:
            ArtifactError: no such artifact or variant, a damaged file, or one that onnxruntime refuses.
            RuntimeVersionError: the installed onnxruntime is older than the artifact's minimum.
        """
        for attempt in range(_OPEN_ATTEMPTS):
            before = _identity(folder)
            try:
                artifact = Artifact.open(folder)
                if verify:
                    artifact.verify()
                session = cls(artifact.manifest, _start(artifact, variant, providers, threads, prepack))
            except ArtifactError:
                if _identity(folder) == before or attempt == _OPEN_ATTEMPTS - 1:
                    raise
            else:
                if _identity(folder) == before:
                    return session
        raise ArtifactError(f"{folder} was replaced {_OPEN_ATTEMPTS} times while it was opened; open it again")

    def logits(self, ids: ArrayLike) -> NDArray[np.float32]:
        """Logits, float32 (batch, sequence, vocabulary), of token ids, int64 (batch, sequence).

        Raises:
            InputError: wrong rank or dtype, an empty batch or sequence, more ids than the context holds, or an id
                outside the vocabulary.
        """
        feed = {INPUT_IDS: check_ids(ids, self.vocab_size, self.context_length)}
        return cast("NDArray[np.float32]", self._session.run([LOGITS], feed)[0])


def check_ids(ids: ArrayLike, vocab_size: int, context_length: int) -> NDArray[np.int64]:
    """`ids` as an int64 (batch, sequence) array.

    Raises:
        InputError: they are not such an array, or outside the model's limits.
    """
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise InputError(
            f"ids must be an int64 array (batch, sequence): {error}; pad the rows to one length"
        ) from error
    if array.ndim != 2:
        raise InputError(f"ids must have 2 axes (batch, sequence), not {array.ndim}; a single row is ids[None, :]")
    if 0 in array.shape:
        raise InputError(f"ids have shape {list(array.shape)}; pass at least one row and one token")
    if array.dtype != np.int64:
        raise InputError(f"ids must be int64, not {array.dtype}; convert them with .astype('int64')")
    if array.shape[1] > context_length:
        raise InputError(f"ids hold {array.shape[1]} tokens a row, the context is {context_length}; shorten the rows")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise InputError(f"id {wrong} is outside the vocabulary; ids run from 0 to {vocab_size - 1}")
    return np.ascontiguousarray(array)


def check_version(minimum: str, installed: str = ort.__version__) -> None:
    """Refuses an onnxruntime that is older than the artifact needs.

    Raises:
        RuntimeVersionError: it is.
    """
    if _version(installed) < _version(minimum):
        raise RuntimeVersionError(
            f"onnxruntime {installed} is installed, this artifact needs {minimum} or newer; upgrade onnxruntime"
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def _identity(folder: str | Path) -> tuple[int, int] | None:
    try:
        found = Path(folder).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _start(
    artifact: Artifact, variant: str, providers: Sequence[str] | None, threads: int | None, prepack: bool
) -> ort.InferenceSession:
    path = artifact.variant_path(variant)
    check_version(str(artifact.manifest.variants[variant]["minimum_onnxruntime"]))
    options: Any = ort.SessionOptions()
    options.log_severity_level = 3  # errors; a warning of onnxruntime's is no news to the application
    if threads is not None:
        options.intra_op_num_threads = threads
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=list(providers or ["CPUExecutionProvider"]))
    except Exception as error:  # onnxruntime's errors share no base class of their own
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"onnxruntime cannot load {path}: {reason}; verify the artifact or export it again"
        ) from error
