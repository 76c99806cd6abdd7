"""JSON by its structure: a value of any depth replaced, removed, renamed, nested or repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.campaign.case import pick
from tests.campaign.mutations import Op

WEIRD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 1.5, -0.0, 2**31, 2**63, -(2**63), 10**30, 10**400, float("nan"), float("inf"),
    1e308, 1e-320,
    "", "x", "\x00", "\ud800", "a\ud800b", "é" * 2000, "../../../secret", "/etc/passwd", "/dev/zero", "..\\..",
    "CON", ".", "a/b",
    "http://127.0.0.1:9/", "{{ 7 * 7 }}", "{% for i in range(10**9) %}x{% endfor %}", "<script>", "\u202e", "\x1b[31m",
    "float16", "gpt2", "llama", "Q8_0", "(a+)+$", "null", "NaN",
    [], {}, [[]], [None], [1, 2, 3], ["x"] * 3000, {"": ""}, {"x": {"y": {}}}, {"__class__": "x"}, list(range(5000)),
)  # fmt: skip

Edit = Callable[[Any, list[Any], float], Any]


DEEPEST = 8
"""Values below are not looked for: what was nested before would be all there is."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value, the whole one first."""
    yield path
    if len(path) == DEEPEST:
        return
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def edit(value: Any, name: str, at: float, what: float) -> Any:
    """`value` with the edit of this name at one of its places; shallow places are taken as often as deep ones."""
    found = list(places(value))
    depth = pick(sorted({len(path) for path in found}), what)
    path = pick([path for path in found if len(path) == depth], at)
    if not path:
        return pick(WEIRD, at) if name == "replace" else value
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    EDITS[name](parent, path[-1], at * 7919 % 1)
    return value


def _replace(parent: Any, key: Any, share: float) -> None:
    parent[key] = pick(WEIRD, share)


def _remove(parent: Any, key: Any, share: float) -> None:
    del share, parent[key]


def _rename(parent: Any, key: Any, share: float) -> None:
    if isinstance(parent, dict):
        parent[str(pick(WEIRD, share))] = parent.pop(key)
    else:
        parent.append(parent.pop(key))


def _nest(parent: Any, key: Any, share: float) -> None:
    for _ in range(1 + int(share * 400)):
        parent[key] = [parent[key]]


def _repeat(parent: Any, key: Any, share: float) -> None:
    if isinstance(parent, list):
        parent.extend([parent[key]] * (1 + int(share * 300)))
    else:
        parent |= {f"{key}{i}": parent[key] for i in range(1 + int(share * 300))}


EDITS: dict[str, Callable[[Any, Any, float], None]] = {
    "replace": _replace,
    "replace again": _replace,
    "remove": _remove,
    "rename": _rename,
    "nest": _nest,
    "repeat": _repeat,
}


def json_ops(names: Sequence[str]) -> dict[str, Op]:
    """The edits, each of one of these JSON files."""

    def op(name: str) -> Op:
        def change(folder: Path, at: float, what: float) -> None:
            path = folder / names[int(at * 1e6) % len(names)]
            value = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(edit(value, name, at, what)), encoding="utf-8")

        return change

    return {f"json: {name}": op(name) for name in EDITS}
