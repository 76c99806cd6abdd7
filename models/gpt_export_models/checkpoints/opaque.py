"""Stand-ins for the classes that a pickle names, so that a training loop's settings do not lock up its weights.

Nothing of the file's code is imported or run: `torch.load(weights_only=True)` is told that each name is a class of
ours, which keeps what it is given and does nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_DATA = ("argparse.Namespace", "types.SimpleNamespace", "pathlib.", "collections.")
"""What of Python itself only holds values. Any other name of it is no setting, and a reason to refuse the file."""


class Opaque:
    """An object of a class that was not looked at; its attributes and items are what the pickle gave it."""

    def __init__(self, *_args: Any, **_named: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None:
        vars(self)[str(key)] = value

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # with __slots__: a pair
            if isinstance(part, Mapping):
                vars(self).update({str(key): value for key, value in part.items()})


def may_stand_in(name: str) -> bool:
    """Whether a stand-in may take the place of the class `name`: it is somebody's own, or only holds values."""
    if name.startswith(_DATA):
        return True
    root = name.partition(".")[0]
    return root not in sys.stdlib_module_names and root not in ("torch", "numpy", "nt", "posix")


def stand_in(name: str) -> tuple[type[Opaque], str]:
    """A class for `name`, as `torch.serialization.safe_globals` takes it."""
    module, _, last = name.rpartition(".")
    return type(last, (Opaque,), {"__module__": module, "__qualname__": last}), name


def attributes(value: object) -> Mapping[str, Any] | None:
    """What a mapping or a stand-in says by name; None of anything else."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return vars(value) if isinstance(value, Opaque) else None
