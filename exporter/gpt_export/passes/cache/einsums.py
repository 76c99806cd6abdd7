"""Einsum as a MatMul between transpositions, or as a transposition alone where it has one operand.

Letters in both operands and the output are a batch; those in both but not in the output are summed over; of those in
one operand alone the last is its side of the product, and others broadcast against the other operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters

import onnx_ir as ir

from gpt_export.passes.building import constant


@dataclass(frozen=True, slots=True)
class Letters:
    """The parts of an equation."""

    left: str
    right: str
    output: str
    batch: str
    summed: str
    rows: str
    columns: str


def rewrite_einsum(graph: ir.Graph, node: ir.Node) -> None:
    """Replaces `node` in `graph`, where its equation has no letter twice in an operand and none summed alone."""
    ranks = [None if value is None or value.shape is None else len(value.shape) for value in node.inputs]
    equation = spelled_out(node.attributes["equation"].as_string(), ranks)
    if len(node.inputs) == 1:
        _transpose(graph, node, equation)
        return
    letters = parse(equation)
    left, right = (*node.inputs, None, None)[:2]
    if letters is None or left is None or right is None or len(node.inputs) != 2:
        return
    writer = _Writer(graph, node)
    row, column = letters.rows[-1:], letters.columns[-1:]
    outer = letters.batch + letters.rows[:-1] + letters.columns[:-1]
    first = writer.operand(left, letters.left, outer, row, letters.summed)
    second = writer.operand(right, letters.right, outer, column, letters.summed)
    second = writer.add("Transpose", [second], "keys_last", perm=[*range(len(outer)), len(outer) + 1, len(outer)])
    made = writer.add("MatMul", [first, second], "product")
    present = outer + (row or "_") + (column or "-")
    gone = [i for i, letter in enumerate(present) if letter in "_-"]
    if gone:
        made = writer.add("Squeeze", [made, writer.numbers("gone", gone)], "squeezed")
    kept = [letter for letter in present if letter not in "_-"]
    perm = [kept.index(letter) for letter in letters.output]
    if perm != sorted(perm):
        made = writer.add("Transpose", [made], "in_order", perm=perm)
    _take_over(graph, node, made)


def _transpose(graph: ir.Graph, node: ir.Node, equation: str) -> None:
    given, _, wanted = equation.partition("->")
    value = node.inputs[0]
    if value is None or "." in equation or len(set(given)) != len(given) or sorted(given) != sorted(wanted):
        return
    perm = [given.index(letter) for letter in wanted]
    _take_over(graph, node, _Writer(graph, node).add("Transpose", [value], "in_order", perm=perm))


def _take_over(graph: ir.Graph, node: ir.Node, made: ir.Value) -> None:
    output = node.outputs[0]
    made.name, made.type, made.shape = output.name, output.type, output.shape
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def spelled_out(equation: str, ranks: Sequence[int | None]) -> str:
    """`equation` without spaces, and with letters in place of `...` where the operands have the same axes there."""
    equation = equation.replace(" ", "")
    operands = equation.split("->")[0].split(",")
    lengths = {
        None if rank is None else rank - len(each) + 3
        for each, rank in zip(operands, ranks, strict=True)
        if "." in each
    }
    if len(lengths) != 1 or None in lengths:
        return equation
    unused = [letter for letter in ascii_letters if letter not in equation]
    return equation.replace("...", "".join(unused[: lengths.pop()]))


def parse(equation: str) -> Letters | None:
    """The letters of an equation that is one product, None for any other."""
    sides = equation.split("->")
    operands = sides[0].split(",")
    if len(sides) != 2 or len(operands) != 2 or "." in equation:
        return None
    left, right = operands
    output = sides[1]
    if any(len(set(each)) != len(each) for each in (left, right, output)):
        return None
    shared = [letter for letter in left if letter in right]
    rows = "".join(letter for letter in left if letter not in right)
    columns = "".join(letter for letter in right if letter not in left)
    if any(letter not in output for letter in rows + columns):
        return None
    return Letters(
        left, right, output,
        batch="".join(letter for letter in output if letter in shared),
        summed="".join(letter for letter in shared if letter not in output),
        rows="".join(letter for letter in output if letter in rows),
        columns="".join(letter for letter in output if letter in columns),
    )  # fmt: skip


class _Writer:
    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self._graph = graph
        self._before = before
        self._count = 0

    def add(self, op_type: str, inputs: list[ir.Value], what: str, **attributes: object) -> ir.Value:
        """The output of a new node in front of the Einsum."""
        self._count += 1
        name = f"{self._before.name}/{what}_{self._count}"
        made = ir.node(op_type, inputs, attributes=attributes, name=name)  # type: ignore[arg-type]
        made.outputs[0].name = f"{name}_output_0"
        made.metadata_props.update(self._before.metadata_props)
        self._graph.insert_before(self._before, made)
        return made.outputs[0]

    def numbers(self, what: str, values: list[int]) -> ir.Value:
        """An int64 constant."""
        self._count += 1
        made = constant(f"{self._before.name}/{what}_{self._count}", values)
        self._graph.insert_before(self._before, made)
        return made.outputs[0]

    def operand(self, value: ir.Value, letters: str, outer: str, side: str, summed: str) -> ir.Value:
        """`value` with its axes in the order outer, side, summed: units for those that it has not, one axis summed."""
        present = [letter for letter in outer + side + summed if letter in letters]
        perm = [letters.index(letter) for letter in present]
        if perm != sorted(perm):
            value = self.add("Transpose", [value], "ordered", perm=perm)
        if len(summed) > 1:
            shape = [0] * (len(present) - len(summed)) + [-1]
            value = self.add("Reshape", [value, self.numbers("summed", shape)], "joined")
        missing = [i for i, letter in enumerate(outer) if letter not in letters]
        missing += [len(outer)] if not side else []
        missing += [len(outer) + 1] if not summed else []
        return self.add("Unsqueeze", [value, self.numbers("units", missing)], "units") if missing else value
