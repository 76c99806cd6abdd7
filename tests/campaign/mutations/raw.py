"""Bytes, whatever they mean: cut, flipped, put in, doubled, emptied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.campaign.case import pick
from tests.campaign.mutations import Op

PIECES = (
    b"\x00",
    b"\xff" * 8,
    b"\xed\xa0\x80",
    b"{" * 5000,
    b"[" * 100_000,
    b'"',
    b"\\u0000",
    b"\xef\xbb\xbf",
    b"9" * 5000,
)


def _cut(data: bytes, at: float, what: float) -> bytes:
    del what
    return data[: int(at * len(data))]


def _flip(data: bytes, at: float, what: float) -> bytes:
    place = int(at * len(data))
    return data[:place] + bytes([data[place] ^ (1 + int(what * 255))]) + data[place + 1 :]


def _put_in(data: bytes, at: float, what: float) -> bytes:
    place = int(at * len(data))
    return data[:place] + pick(PIECES, what) + data[place:]


def _take_out(data: bytes, at: float, what: float) -> bytes:
    place = int(at * len(data))
    return data[:place] + data[place + 1 + int(what * 64) :]


def _double(data: bytes, at: float, what: float) -> bytes:
    place = int(at * len(data))
    return data[:place] + data[place : place + int(what * 4096)] * 2 + data[place:]


EDITS: dict[str, Callable[[bytes, float, float], bytes]] = {
    "cut": _cut,
    "flip": _flip,
    "put in": _put_in,
    "take out": _take_out,
    "double": _double,
}


def raw_ops(names: Sequence[str]) -> dict[str, Op]:
    """The edits of a byte string, each of one of these files."""

    def op(edit: Callable[[bytes, float, float], bytes]) -> Op:
        def change(folder: Path, at: float, what: float) -> None:
            # The file is chosen by digits of `at` that do not choose the place.
            path = folder / names[int(at * 1e6) % len(names)]
            path.write_bytes(edit(path.read_bytes(), at, what))

        return change

    return {f"bytes: {name}": op(edit) for name, edit in EDITS.items()}
