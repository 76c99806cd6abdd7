"""What applications import to run an artifact. Needs numpy and onnxruntime; works where torch is not installed."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from gpt_export_models.regular_files import check_file
from numpy.typing import ArrayLike, NDArray

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, ContextError, InputError, RuntimeVersionError
from gpt_export.runtime.decoding import Decoding, RecomputedDecoding
from gpt_export.runtime.grown_cache import GrownDecoding
from gpt_export.runtime.inputs import check_ids, check_mask, check_providers, check_stop_ids, check_threads
from gpt_export.runtime.options import CPU, session_options, start_session
from gpt_export.runtime.sampling import Sampling, generators
from gpt_export.runtime.seats import Seats
from gpt_export.runtime.shared_cache import SharedDecoding
from gpt_export.runtime.signature import CLASSES, LOGITS, CacheShape, Head
from gpt_export.runtime.texts import Texts

_OPEN_ATTEMPTS = 5


class Session(Texts):
    """An exported GPT in onnxruntime, with the limits enforced that the graph itself cannot state."""

    def __init__(
        self, manifest: Manifest, session: ort.InferenceSession, variant: str = "fp32", folder: Path | None = None
    ) -> None:
        self.manifest = manifest
        self.folder = folder
        """Where the artifact is; its tokenizer is read from there."""
        self.variant = variant
        self.vocab_size = int(manifest.model["vocab_size"])
        self.context_length = int(manifest.model["context_length"])
        self.head = head_of(manifest)
        """What the graph says of its ids: scores of tokens or classes, and for which positions."""
        self._variant = manifest.variants[variant]
        cache = self._variant["cache"]
        self.cache = CacheShape.from_dict(cache) if cache else None
        """The shape of the key-value cache, None for a graph without one."""
        self._session = session

    def __repr__(self) -> str:
        """What it is and where, in one line."""
        layers = self.cache.n_layers if self.cache else 0
        cache = f"a cache of {layers} layer{'' if layers == 1 else 's'}" if layers else "no cache"
        where = "" if self.folder is None else f", {self.folder}"
        return (
            f"<Session {self.manifest.name} in {self.variant}: vocabulary {self.vocab_size}, context "
            f"{self.context_length}, {cache}{where}>"
        )

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        variant: str | None = None,
        verify: bool = True,
        providers: Sequence[str] | None = None,
        threads: int | None = None,
        prepack: bool = True,
    ) -> Session:
        """The session on one variant of an artifact.

        If the artifact is replaced while it is being opened, it is opened anew, so that a session never mixes two.

        Args:
            variant: which one; the first there is of fp32, fp16, int8 and int4 if left out.
            verify: compare every file with its SHA-256 first (0.8 GB/s or so).
            providers: onnxruntime execution providers in order of preference; the CPU's if left out.
            threads: threads within an operator; onnxruntime's choice if left out.
            prepack: let onnxruntime rearrange weights for speed, at the price of a second copy of them in memory.

        Raises:
            ArtifactError: no such artifact or variant, a damaged file, or one that onnxruntime refuses.
            InputError: the threads are none, or this onnxruntime has none of the providers.
            RuntimeVersionError: the installed onnxruntime is older than the artifact's minimum.
        """
        check_threads(threads)
        check_providers(providers)
        for _ in range(_OPEN_ATTEMPTS):
            before = _identity(folder)
            try:
                artifact = Artifact.open(folder)
                if verify:
                    artifact.verify()
                chosen = artifact.variant_name(variant)
                opened = _start(artifact, chosen, providers, threads, prepack)
            except ArtifactError:
                if _identity(folder) == before:
                    raise
            else:
                if _identity(folder) == before:
                    return cls(artifact.manifest, opened, chosen, artifact.folder)
        raise ArtifactError(f"{folder} was replaced {_OPEN_ATTEMPTS} times while it was opened; open it again")

    @classmethod
    def of(cls, artifact: Artifact, variant: str | None = None, *, prepack: bool = True) -> Session:
        """The session on one variant of an artifact whose manifest is at hand; nothing of it is read again.

        Raises:
            ArtifactError, RuntimeVersionError: as in `open`.
        """
        chosen = artifact.variant_name(variant)
        return cls(artifact.manifest, _start(artifact, chosen, None, None, prepack), chosen, artifact.folder)

    def logits(self, ids: ArrayLike, attention_mask: ArrayLike | None = None) -> NDArray[np.float32]:
        """Logits, float32 (batch, sequence, vocabulary), of token ids, whole numbers (batch, sequence).

        Of a graph that scores the last position alone they are (batch, 1, vocabulary), and of one that scores classes
        they are the classes' scores, (batch, sequence, classes) or (batch, classes): `head` says which.

        Args:
            attention_mask: 1 on tokens and 0 on padding, of the shape of the ids; no padding if left out. Only graphs
                with a cache take one. Logits at padding mean nothing.

        Raises:
            InputError: wrong rank, dtype or shape, an empty batch or sequence, more ids than the context holds, an id
                outside the vocabulary, or padding for a graph without a mask.
        """
        checked = check_ids(ids, self.vocab_size, self.context_length)
        return self.decoding(len(checked)).feed(
            checked, check_mask(attention_mask, checked, takes_padding=self.cache is not None)
        )

    def decoding(self, batch: int) -> Decoding:
        """A new batch of `batch` rows, to be fed a few tokens at a time. What is fed is not checked."""
        output = LOGITS if self.head.of == "tokens" else CLASSES
        return open_decoding(self._session, self._variant, batch, self.context_length, output)

    def generate(
        self,
        ids: ArrayLike,
        *,
        max_new_tokens: int,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop_ids: Collection[int] = (),
        attention_mask: ArrayLike | None = None,
        has_ended: Callable[[int], bool] = lambda _row: False,
    ) -> Iterator[NDArray[np.int64]]:
        """Continues each row of `ids`, whole numbers (batch, sequence); yields the new ids of a step, int64 (batch,).

        There are exactly `max_new_tokens` steps, unless every row has ended before; the stop id is yielded, and again
        for a row that waits for others. Rows that have ended leave the batch when half of it has. See `Sampling` for
        how a token is chosen.

        Args:
            temperature: 0 for the likeliest token. Left out, it is 1 where anything else is said about draws (`top_k`,
                `top_p`, `min_p` or `seed`), and otherwise 0.
            seed: of the draws; the system's entropy if left out. A row's draws do not depend on how many rows are
                beside it.
            attention_mask: as in `logits`; pad on the left, so that every row ends in a token.
            has_ended: asked behind each step, by number, whether a row needs no more ids, whatever its last one was.

        Raises:
            InputError: as in `logits`, or a sampling value out of range; before the first step.
            ContextError: the context is full; after the last token that fits.
        """
        if self.head.of == "classes":
            raise InputError(
                f"{self.manifest.name} scores {self.head.width} classes and no next token, so it cannot continue a "
                "text; Session.logits gives the scores"
            )
        if temperature is None and seed is not None:
            temperature = 1.0
        sampling = Sampling(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
        )
        checked = check_ids(ids, self.vocab_size, self.context_length)
        mask = check_mask(attention_mask, checked, takes_padding=self.cache is not None)
        if not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 0:
            raise InputError(f"max_new_tokens {max_new_tokens} is out of range; pass a whole number of at least 0")
        if seed is not None and seed < 0:
            raise InputError(f"seed {seed} is out of range; pass 0 or more, or leave it out")
        if not mask[:, -1].all():
            raise InputError("a row ends in padding, so there is no token to continue; pad on the left")
        stops = check_stop_ids(stop_ids)
        return self._steps(checked, mask, max_new_tokens, sampling, generators(seed, len(checked)), stops, has_ended)

    def _steps(
        self,
        ids: NDArray[np.int64],
        mask: NDArray[np.int64],
        max_new_tokens: int,
        sampling: Sampling,
        rngs: Sequence[np.random.Generator],
        stop_ids: frozenset[int],
        has_ended: Callable[[int], bool],
    ) -> Iterator[NDArray[np.int64]]:
        seats, seen = Seats(self.decoding, len(ids)), sampling.seen(ids, mask, self.vocab_size)
        going, chosen = list(range(len(ids))), ids[:, -1].copy()
        used = int(mask.any(axis=0).argmax())
        ids, mask, lengths = ids[:, used:], mask[:, used:], mask.sum(axis=1)
        logits: NDArray[np.float32] | None = None
        for step in range(max_new_tokens):
            if int(lengths[going].max()) + step > self.context_length:
                raise ContextError(
                    f"the context of {self.context_length} tokens is full after {step} new ones; "
                    f"ask for {step} instead of {max_new_tokens}, or start from a shorter prompt"
                )
            logits = seats.read(ids, mask) if logits is None else seats.step(chosen, going, self.context_length)
            drawn = sampling.choose(logits, [rngs[i] for i in going], None if seen is None else seen[going])
            chosen = chosen.copy()
            chosen[going] = drawn
            yield chosen
            if seen is not None:
                seen[going, drawn] = True
            going = [row for row in going if int(chosen[row]) not in stop_ids and not has_ended(row)]
            if not going:
                return


def open_decoding(
    session: ort.InferenceSession, variant: Mapping[str, Any], batch: int, context_length: int, output: str = LOGITS
) -> Decoding:
    """The decoding of a new batch that fits the graph of `variant`, an entry of a manifest's variants."""
    if not variant["cache"]:
        return RecomputedDecoding(session, batch, output)
    cache = CacheShape.from_dict(variant["cache"])
    dtype = np.dtype(str(variant.get("cache_dtype", "float32")))
    if variant.get("shared_cache") and session.get_providers()[0] == "CPUExecutionProvider":
        return SharedDecoding(session, cache, batch, context_length, dtype)
    return GrownDecoding(session, cache, batch, dtype)


def head_of(manifest: Manifest) -> Head:
    """What the graphs of an artifact say of their ids; manifests from before there was a choice say logits."""
    head = manifest.model.get("head")
    return Head(**head) if head else Head(width=int(manifest.model["vocab_size"]))


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


def may_saturate() -> bool:
    """Whether products of 8-bit integers may overflow 16 bits on this CPU: x86 without the VNNI instructions.

    onnxruntime then computes them exactly, and slower, where `session.x64quantprecision` is set. Where the CPU cannot
    be asked, the answer is yes.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return True
    return "vnni" not in flags


def _identity(folder: str | Path) -> tuple[int, int, int] | None:
    try:
        found = Path(folder).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns  # the number of a removed folder is soon used again


def _check_folder(folder: Path) -> None:
    """Refuses a folder with a pipe, a device or a hollow file in it, which older onnxruntimes would open as weights.

    Raises:
        ArtifactError: there is one.
    """
    try:
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                with contextlib.suppress(FileNotFoundError):  # a link to nothing, of which onnxruntime tells
                    check_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ArtifactError(
            f"{error.filename} cannot be read: {error.strerror or error}; verify the artifact or export it again"
        ) from error


def _start(
    artifact: Artifact, variant: str, providers: Sequence[str] | None, threads: int | None, prepack: bool
) -> ort.InferenceSession:
    path = artifact.variant_path(variant)
    _check_folder(path.parent)
    check_version(str(artifact.manifest.variants[variant]["minimum_onnxruntime"]))
    operators = artifact.manifest.variants[variant].get("operators", {})
    options = session_options(
        threads=threads, prepack=prepack, saturating="MatMulIntegerToFloat" in operators and may_saturate()
    )
    return start_session(path, options, providers or CPU, remedy="verify the artifact or export it again")
