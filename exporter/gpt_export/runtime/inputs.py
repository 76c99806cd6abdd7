"""What callers hand to a session, checked: ids, masks, stops, threads, providers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray

from gpt_export.errors import InputError


def check_ids(ids: ArrayLike, vocab_size: int, context_length: int) -> NDArray[np.int64]:
    """`ids`, of any type of whole numbers, as an int64 (batch, sequence) array.

    Raises:
        InputError: they are not such an array, or outside the model's limits.
    """
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise InputError(
            f"ids must be an int64 array (batch, sequence): {error}; pad the rows to one length"
        ) from error
    if array.dtype.kind in "US":
        raise InputError(
            "ids are text where int64 numbers are needed; session.encode(text) gives the ids of a text by the "
            "artifact's tokenizer, and session.text(text) continues it"
        )
    if array.ndim != 2:
        raise InputError(f"ids must have 2 axes (batch, sequence), not {array.ndim}; a single row is ids[None, :]")
    if 0 in array.shape:
        raise InputError(f"ids have shape {list(array.shape)}; pass at least one row and one token")
    if array.dtype.kind not in "iu":
        raise InputError(f"ids must be int64, not {array.dtype}; convert them with .astype('int64')")
    if array.shape[1] > context_length:
        raise InputError(f"ids hold {array.shape[1]} tokens a row, the context is {context_length}; shorten the rows")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise InputError(f"id {wrong} is outside the vocabulary; ids run from 0 to {vocab_size - 1}")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_mask(attention_mask: ArrayLike | None, ids: NDArray[np.int64], *, takes_padding: bool) -> NDArray[np.int64]:
    """The mask as int64 in the shape of the ids, all ones if left out.

    Args:
        takes_padding: whether the graph has a mask at all.

    Raises:
        InputError: it has another shape, other numbers than 0 and 1, or padding that the graph does not take.
    """
    if attention_mask is None:
        return np.ones_like(ids)
    try:
        mask = np.asarray(attention_mask)
    except ValueError:  # rows of several lengths
        mask = np.zeros(0)
    if mask.shape != ids.shape or not np.isin(mask, (0, 1)).all():
        raise InputError(f"attention_mask must hold 0 and 1 in the shape {list(ids.shape)} of the ids")
    if not takes_padding and not mask.all():
        raise InputError("this graph takes no attention mask; pass rows of one length, or export with a cache")
    return mask.astype(np.int64)


def check_stop_ids(stop_ids: Collection[int]) -> frozenset[int]:
    """The ids that end a row.

    Raises:
        InputError: they are no collection of whole numbers.
    """
    try:
        if isinstance(stop_ids, str | bytes):
            raise TypeError
        ids = list(stop_ids)
        if not all(isinstance(token, int | np.integer) for token in ids):
            raise TypeError
    except TypeError:
        raise InputError(
            f"stop_ids {stop_ids!r} are no collection of ids; pass whole numbers, such as [50256]"
        ) from None
    return frozenset(map(int, ids))


def check_threads(threads: int | None) -> None:
    """Refuses a number of threads that is none.

    Raises:
        InputError: it is below 1 or no whole number.
    """
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise InputError(
            f"threads {threads!r} is out of range; pass 1 or more, or leave it out for onnxruntime's choice"
        )


def check_providers(providers: Sequence[str] | None) -> None:
    """Refuses execution providers of which this onnxruntime has none: it would silently take the CPU.

    Raises:
        InputError: one is no provider of onnxruntime's, or none of them is in this build.
    """
    if providers is None:
        return
    names = [one if isinstance(one, str) else one[0] for one in providers] if not isinstance(providers, str) else []
    there = ort.get_available_providers()
    unknown = [name for name in names if name not in ort.get_all_providers() and name not in there]
    if unknown or not set(names) & set(there):
        wrong = ", ".join(unknown or names) or repr(providers)
        raise InputError(f"providers {wrong}: not in this onnxruntime; pass a list with one of {', '.join(there)}")
