"""Arguments that are None if they are left out, as TorchScript would have them if their authors had written it.

`forward(self, ids, targets=None)` is how most people write it. TorchScript takes an argument without annotation for a
tensor, never asks whether it is None, and cannot save its default.
"""

from __future__ import annotations

import ast
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

_patching = threading.RLock()


@contextlib.contextmanager
def none_is_no_tensor() -> Iterator[None]:
    """Inside, what is scripted has `Optional[Tensor]` where an argument has no annotation and the default None.

    The source that TorchScript parses is read anew for every function, and is changed only there.
    """
    frontend: Any = torch.jit.frontend
    with _patching:
        own = getattr(frontend, "parse_def", None)
        if own is None:  # another release of torch: what it made of such arguments is found out by the gate
            yield
            return

        def parse(function: Any) -> Any:
            parsed = own(function)
            _annotate(parsed.ast.body[0].args)
            return parsed

        frontend.parse_def = parse
        try:
            yield
        finally:
            frontend.parse_def = own


def _annotate(arguments: ast.arguments) -> None:
    positional = [*arguments.posonlyargs, *arguments.args]
    for argument, default in zip(reversed(positional), reversed(arguments.defaults), strict=False):
        if argument.annotation is None and isinstance(default, ast.Constant) and default.value is None:
            annotation = ast.parse("Optional[Tensor]", mode="eval").body
            for node in ast.walk(annotation):
                ast.copy_location(node, argument)
            argument.annotation = annotation
