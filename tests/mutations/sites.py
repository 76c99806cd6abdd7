"""Places in a graph whose cache was found, to plant faults at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from tests.mutations.edits import constant, producer


def behind(model: onnx.ModelProto, tensor: str, ending: str) -> Iterator[str]:
    """The tensors in front of `tensor`, nearest first, whose names end so."""
    made = {name for node in model.graph.node for name in node.output}
    stack, seen = [tensor], {tensor}
    while stack:
        name = stack.pop(0)
        if name.endswith(ending):
            yield name
        new = [each for each in producer(model, name).input if each in made and each not in seen]
        seen.update(new)
        stack.extend(new)


def number_read_by(model: onnx.ModelProto, node: onnx.NodeProto, place: int, number: int) -> str:
    """A constant of the type and shape of what `node` reads there, holding `number`."""
    old = next(each for each in model.graph.node if node.input[place] in each.output)
    like = onnx.numpy_helper.to_array(next(a.t for a in old.attribute if a.name == "value"))
    return constant(model, f"planted_{number}", np.full_like(like, number))
