"""Files of `torch.save`: the stream of the pickle by its opcodes, the archive by its records."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.campaign.case import pick
from tests.campaign.mutations import Op

CANARY = "canary"
"""A file of this name appears if code of the file ran."""
GLOBALS = (
    b"cos\nsystem\n", b"cposix\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nexec\n", b"cbuiltins\ngetattr\n",
    b"cbuiltins\nopen\n",
    b"csubprocess\nPopen\n", b"ctorch.hub\nload\n", b"ctorch\nload\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n", b"ccollections\nOrderedDict\n", b"cshutil\nrmtree\n",
    b"cpathlib\nPosixPath\n",
    b"cmodel\nGPTConfig\n", b"c__main__\nX\n", b"cargparse\nNamespace\n", b"ctorch\nFloatStorage\n",
    b"ctorch\nnosuch\n",
    b"ctorch.serialization\nload\n", b"ctorch._dynamo.guards\nGuardBuilder\n", b"cos.path\njoin\n",
)  # fmt: skip
CALLS = (
    b"(Vtouch canary\ntR",
    b"(Vopen('canary', 'w')\ntR",
    b"(Vcanary\nVw\ntR",
    b"(tR",
    b"(]tR}b",
    b"(Vx\nK\x01tR(Vx\nK\x02db",
    b"\x81",
    b"(I99999999999999\ntR",
)
LITERALS = (
    b"(lp0\n", b"]" * 5000, b"\x80\x63", b"I" + b"9" * 4000 + b"\n", b"\x8a\xff", b"2" * 100, b"e", b"u", b"h\xff",
    b"j\xff\xff\xff\xff",
    b"X\xff\xff\xff\x7f", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"Q", b"P0\n", b"N.",
    b"K\x00", b"0", b"}", b"(",
    b"V\\ud800\n", b"\x96\xff\xff\xff\xff\xff\x00\x00\x00",
)  # fmt: skip


def _stream(edit: Callable[[bytes, list[int], float, float], bytes]) -> Op:
    def change(records: dict[str, bytes], at: float, what: float) -> dict[str, bytes]:
        name = next(name for name in records if name.endswith("data.pkl"))
        data = records[name]
        try:
            starts = [place for _, _, place in pickletools.genops(data) if place is not None]
        except Exception:  # a stream that is broken already
            starts = [len(data) - 1]
        return records | {name: edit(data, starts, at, what)}

    return _archive(change)


def _archive(change: Callable[[dict[str, bytes], float, float], dict[str, bytes]]) -> Op:
    def changed(folder: Path, at: float, what: float) -> None:
        path = folder / "model.pth"
        with zipfile.ZipFile(path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        records = change(records, at, what)
        method = zipfile.ZIP_DEFLATED if "deflate" in records else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in records.items():
                archive.writestr(name, data)

    return changed


def _insert(pieces: tuple[bytes, ...]) -> Op:
    def edit(data: bytes, starts: list[int], at: float, what: float) -> bytes:
        place = pick(starts, at)
        return data[:place] + pick(pieces, what) + data[place:]

    return _stream(edit)


def _call(data: bytes, starts: list[int], at: float, what: float) -> bytes:
    place = pick(starts, at)
    return data[:place] + pick(GLOBALS, what) + pick(CALLS, what * 97 % 1) + data[place:]


def _global(data: bytes, starts: list[int], at: float, what: float) -> bytes:
    places = [place for place in starts if data[place : place + 1] == b"c"]
    place = pick(places, at)
    end = data.index(b"\n", data.index(b"\n", place) + 1) + 1
    return data[:place] + pick(GLOBALS, what) + data[end:]


def _number(data: bytes, starts: list[int], at: float, what: float) -> bytes:
    place = pick([place for place in starts if data[place : place + 1] in (b"K", b"M", b"J")], at)
    width = {b"K": 2, b"M": 3, b"J": 5}[data[place : place + 1]]
    numbers = (
        b"J\xff\xff\xff\x7f",
        b"J\xff\xff\xff\xff",
        b"K\x00",
        b"K\x01",
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"N",
        b"]",
        b"G" + b"\x7f\xf8" + bytes(6),
    )
    return data[:place] + pick(numbers, what) + data[place + width :]


def _drop(data: bytes, starts: list[int], at: float, what: float) -> bytes:
    first = int(at * len(starts))
    last = min(len(starts) - 1, first + 1 + int(what * 3))
    return data[: starts[first]] + data[starts[last] :]


def _record(edit: Callable[[dict[str, bytes], str, float], dict[str, bytes]]) -> Op:
    return _archive(lambda records, at, what: edit(records, pick(sorted(records), at), what))


def pickle_ops() -> dict[str, Op]:
    """Edits of `model.pth`."""
    return {
        "pickle: call": _stream(_call),
        "pickle: call again": _stream(_call),
        "pickle: global": _stream(_global),
        "pickle: number": _stream(_number),
        "pickle: literal": _insert(LITERALS),
        "pickle: drop": _stream(_drop),
        "record: cut": _record(
            lambda records, name, what: records | {name: records[name][: int(what * len(records[name]))]}
        ),
        "record: gone": _record(lambda records, name, _: {key: data for key, data in records.items() if key != name}),
        "record: out": _record(lambda records, name, _: records | {f"../../{name}": records[name]}),
        "record: packed": _record(lambda records, *_: records | {"deflate": b""}),
        "record: swapped": _record(lambda records, name, _: records | {sorted(records)[0]: records[name]}),
    }
