"""safetensors: its header by structure, its length, and its bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.campaign.case import pick
from tests.campaign.mutations import Op, json_values

TYPES = ("F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "C64", "", "f32")
LENGTHS = (0, 1, 7, 2**16, 2**31, 2**60, 2**63, 2**64 - 1)


def safetensors_ops(names: Sequence[str]) -> dict[str, Op]:
    """Edits of one of these files."""

    def op(
        edit: Callable[[dict[str, Any], float, float], Any], length: Callable[[int, float], int] | None = None
    ) -> Op:
        def change(folder: Path, at: float, what: float) -> None:
            path = folder / names[int(at * 1e6) % len(names)]
            data = path.read_bytes()
            end = 8 + struct.unpack("<Q", data[:8])[0]
            header = edit(json.loads(data[8:end]), at, what)
            text = json.dumps(header).encode()
            size = length(len(text), what) if length else len(text)
            path.write_bytes(struct.pack("<Q", size) + text + data[end:])

        return change

    def entry(change: Callable[[dict[str, Any], float], None]) -> Op:
        def edit(header: dict[str, Any], at: float, what: float) -> dict[str, Any]:
            change(header[pick(sorted(header.keys() - {"__metadata__"}), at)], what)
            return header

        return op(edit)

    ops = {f"header: {name}": op(_named(name)) for name in json_values.EDITS}
    return ops | {
        "dtype": entry(lambda one, what: one.update(dtype=pick(TYPES, what))),
        "shape": entry(lambda one, what: one.update(shape=[*one["shape"][1:], pick((0, 1, 2**31, 2**62, -1), what)])),
        "offsets": entry(
            lambda one, what: one.update(data_offsets=[int(end * 2 * what) for end in one["data_offsets"]])
        ),
        "length": op(lambda header, *_: header, lambda _, what: pick(LENGTHS, what)),
        "many": op(lambda header, *_: header | {f"x{i}": dict(next(iter(header.values()))) for i in range(3000)}),
    }


def _named(name: str) -> Callable[[dict[str, Any], float, float], Any]:
    return lambda header, at, what: json_values.edit(header, name, at, what)
