"""The cached graph, written from what the plain one means.

Each value of data is written at one or two levels: "new", where its positions are those of the new tokens, and
"whole", where they are past and new ones. Only what lies between a cut and its product is written whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.attentions import Attention
from gpt_export.passes.cache.axes import Axes, is_constant
from gpt_export.passes.cache.checks import Plan
from gpt_export.passes.cache.cuts import Cut
from gpt_export.passes.cache.dims import Writing
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.padding import Padding
from gpt_export.passes.cache.pairs import Pair
from gpt_export.passes.cache.pasts import form_of, from_cached, put_together, taken_apart, to_cached
from gpt_export.passes.cache.positions import PositionWriter
from gpt_export.passes.cache.refusal import refuse
from gpt_export.runtime.signature import ATTENTION_MASK, INPUT_IDS, LOGITS, PAST, POSITION_IDS, SEQUENCE, TOTAL
from gpt_export.runtime.signature import BATCH as BATCH_DIM

KINDS = ("key", "value")
Level = Literal["new", "whole"]
Task = tuple[ir.Value, Level]


class Emitter:
    """Writes the cached graph of one plain graph."""

    def __init__(
        self, graph: ir.Graph, meaning: Meaning, plans: Mapping[Attention, Plan], pairs: Sequence[Pair]
    ) -> None:
        self._graph = graph
        self._meaning = meaning
        self._pairs = pairs
        self._pair_of = {cut.value: i for i, pair in reversed(list(enumerate(pairs))) for cut in _cuts(pair)}
        self._skipped = {node for each in plans for key in each.keys for node in key.skipped}
        self._factors = {
            product.node: (product.query, key.factor)
            for each in plans
            for product, key in zip(each.products, each.keys, strict=True)
            if key.factor != 1.0
        }
        self._hides_before = {
            node: plan.band for each, plan in plans.items() if plan.hide == "softmax" for node in each.softmaxes
        }
        self._masks = {node for plan in plans.values() for node in plan.masks}
        self._hides_behind = {
            product.node for each, plan in plans.items() if plan.hide == "scores" for product in each.products
        }
        self._ids = _input(INPUT_IDS, ir.DataType.INT64, [BATCH_DIM, SEQUENCE])
        self._mask = _input(ATTENTION_MASK, ir.DataType.INT64, [BATCH_DIM, TOTAL])
        position_ids = _input(POSITION_IDS, ir.DataType.INT64, [BATCH_DIM, SEQUENCE])
        self._writing = Writing(self._ids, self._mask)
        self._padding = Padding(self._writing, self._mask)
        by_position = {node for each, plan in plans.items() if plan.by_position for node in each.between}
        self._positions = PositionWriter(meaning, self._writing, position_ids, self._mask, by_position)
        self._made: dict[Task, ir.Value] = {}
        self._past: list[ir.Value] = []
        self._present: dict[str, ir.Value] = {}
        self._inputs = [self._ids, self._mask, position_ids]

    def run(self) -> tuple[list[ir.Value], list[ir.Value], list[ir.Node]]:
        """Inputs, outputs and nodes of the cached graph; weights keep their values' metadata."""
        weights = self._enter()
        logits = self._emit((self._graph.outputs[0], "new"))
        for i, pair in enumerate(self._pairs):  # those whose keys are another pair's too
            if f"present.{i}.key" not in self._present:
                for cut in _cuts(pair):
                    self._emit((cut.value, "new"))
                self._join(i)
        if logits.name != LOGITS:
            logits = self._writing.node("Identity", [logits], LOGITS)
        source = self._graph.outputs[0]
        logits.type, logits.shape = source.type, source.shape
        present = [self._present[f"present.{i}.{kind}"] for i in range(len(self._pairs)) for kind in KINDS]
        return [*self._inputs, *self._past, *weights], [logits, *present], self._writing.nodes

    def _enter(self) -> list[ir.Value]:
        weights = []
        for value in (*self._graph.inputs, *self._graph.initializers.values()):
            if value.name == INPUT_IDS:
                self._made[value, "new"] = self._ids
                continue
            copy = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
            copy.meta.update(value.meta)
            copy.metadata_props.update(value.metadata_props)
            self._positions.leaf(value, copy)
            weights.append(copy)
        names = {str(value.name) for value in weights} | {INPUT_IDS, ATTENTION_MASK, POSITION_IDS}
        self._writing.reserve(sorted(names))
        for i, pair in enumerate(self._pairs):
            cache = pair.shape()
            for kind, width in zip(KINDS, (cache.key_dim, cache.value_dim), strict=True):
                dims: list[int | str] = [BATCH_DIM, cache.n_heads, PAST, width]
                self._past.append(_input(f"past_key_values.{i}.{kind}", ir.DataType.FLOAT, dims))
        return weights

    def _emit(self, task: Task) -> ir.Value:
        stack = [task]
        while stack:
            top = stack[-1]
            if top in self._made:
                stack.pop()
                continue
            missing = [each for each in self._needs(top) if each not in self._made]
            if missing:
                stack.extend(reversed(missing))
                continue
            self._write(top)
            stack.pop()
        return self._made[task]

    def _needs(self, task: Task) -> list[Task]:
        value, level = task
        if level == "whole" and value in self._pair_of:
            return [(cut.value, "new") for cut in _cuts(self._pairs[self._pair_of[value]])]
        node = value.producer()
        assert node is not None
        step = self._meaning.steps[node]
        indices = [step.alias] if step.alias is not None else range(len(node.inputs))
        tasks: list[Task] = []
        for i in indices:
            each = node.inputs[i]
            if each is not None and self._meaning.depends[each] == "data" and i not in step.written:
                tasks.append((each, "whole" if i in step.whole else level))
        return tasks

    def _write(self, task: Task) -> None:
        value, level = task
        if level == "whole" and value in self._pair_of:
            self._join(self._pair_of[value])
            return
        node = value.producer()
        assert node is not None
        step = self._meaning.steps[node]
        if (level == "whole" and node in self._skipped) or node in self._masks:
            step = Step(step.outputs, alias=next(i for i, each in enumerate(node.inputs) if self._is_data(each)))
        if step.alias is not None:
            source = node.inputs[step.alias]
            assert source is not None
            self._made[task] = self._made[source, level]
            return
        inputs = [self._input(node, step, i, level) for i in range(len(node.inputs))]
        self._clone(node, step, self._adapted(node, inputs), level)
        if node in self._hides_behind:
            bias = self._padding.bias(node, step.outputs[0])
            self._made[task] = self._writing.node("Add", [self._made[task], bias], f"{node.name}/padding")

    def _is_data(self, value: ir.Value | None) -> bool:
        return value is not None and self._meaning.depends[value] == "data"

    def _input(self, node: ir.Node, step: Step, i: int, level: Level) -> ir.Value | None:
        value = node.inputs[i]
        if value is None:
            return None
        rows = "new" if level == "new" else "total"
        if i in step.written:
            written = step.written[i]
            if written.numbers is not None:
                return self._writing.constant(written.numbers)
            first = node.inputs[0]
            assert first is not None
            return self._sizes(node, self._meaning.facts[first].axes, written.axes, rows)
        if self._is_data(value):
            return self._made[value, "whole" if i in step.whole else level]
        if self._meaning.depends[value] == "nothing":
            return self._positions.total(value, "one")
        axes = self._meaning.facts[value].axes
        if i == step.taken_from and level == "new":
            return self._positions.aligned(node, value, axes, len(axes), full=True)
        if step.aligned and level == "new":
            output = step.outputs[0]
            return self._positions.aligned(node, value, output, len(output), full=step.full)
        if all(is_constant(of) for of in axes):
            return self._positions.total(value, "one")
        raise refuse(node, "combines data with a table of positions in a way that the pass does not know")

    def _sizes(self, node: ir.Node, source: Axes, target: Axes, rows: str) -> ir.Value:
        writing = self._writing
        if node.op_type != "Expand":
            return writing.target(source, target, rows)
        padded = ((),) * (len(target) - len(source)) + source
        pairs = zip(padded, target, strict=True)
        return writing.shape([1 if old == new else writing.length(new, rows) for old, new in pairs])

    def _adapted(self, node: ir.Node, inputs: list[ir.Value | None]) -> list[ir.Value | None]:
        """The query takes over the factor of the keys; padding is hidden in front of a Softmax over positions."""
        if node in self._factors:
            place, factor = self._factors[node]
            scale = self._writing.constant(factor, np.float32)
            inputs[place] = self._writing.node("Mul", [inputs[place], scale], f"{node.name}/scaled_query")
        if node in self._hides_before:
            axes = self._meaning.facts[node.outputs[0]].axes
            bias = self._padding.bias(node, axes, self._hides_before[node])
            inputs[0] = self._writing.node("Add", [inputs[0], bias], f"{node.name}/padding")
        return inputs

    def _clone(self, node: ir.Node, step: Step, inputs: list[ir.Value | None], level: Level) -> None:
        writing = self._writing
        suffix = "" if level == "new" else "/whole"
        while inputs and inputs[-1] is None:
            inputs.pop()
        outputs = [ir.Value(name=writing.fresh(f"{each.name}{suffix}"), type=each.type) for each in node.outputs]
        copy = ir.Node(
            node.domain, node.op_type, inputs, list({**node.attributes, **step.attributes}.values()),
            outputs=outputs, name=writing.fresh(f"{node.name}{suffix}"), overload=node.overload,
        )  # fmt: skip
        copy.metadata_props.update(node.metadata_props)
        writing.nodes.append(copy)
        for old, new in zip(node.outputs, outputs, strict=True):
            self._made[old, level] = new

    def _join(self, i: int) -> None:
        """Writes past and new keys and values of a pair behind one another, and each cut's own at the whole length."""
        for place, kind in enumerate(KINDS):
            self._join_kind(i, kind, self._past[2 * i + place])

    def _join_kind(self, i: int, kind: str, past: ir.Value) -> None:
        writing, pair, name = self._writing, self._pairs[i], f"cache/{i}/{kind}"
        cuts = pair.cuts(kind)
        forms = [form_of(self._meaning.facts[cut.value].axes, cut, pair.folded) for cut in cuts]
        new = [
            to_cached(writing, self._made[cut.value, "new"], form, name)
            for cut, form in zip(cuts, forms, strict=True)
        ]  # fmt: skip
        along = 1 if pair.side_by_side else 3
        joined = put_together(writing, new, along, name)
        present = writing.node("Concat", [past, joined], f"present.{i}.{kind}", {"axis": 2})
        dims = [ir.SymbolicDim(TOTAL) if axis == 2 else dim for axis, dim in enumerate(past.shape or ())]
        present.type, present.shape = past.type, ir.Shape(dims)
        self._present[f"present.{i}.{kind}"] = present
        sizes = [cut.heads if along == 1 else pair.width(cut) for cut in cuts]
        apart = taken_apart(writing, present, sizes, along, name)
        for cut, form, each in zip(cuts, forms, apart, strict=True):
            self._made[cut.value, "whole"] = from_cached(writing, each, form, name)


def _cuts(pair: Pair) -> tuple[Cut, ...]:
    return tuple(cut for kind in KINDS for cut in pair.cuts(kind))


def _input(name: str, kind: ir.DataType, dims: Sequence[int | str]) -> ir.Value:
    shape = ir.Shape([ir.SymbolicDim(dim) if isinstance(dim, str) else dim for dim in dims])
    return ir.Value(name=name, type=ir.TensorType(kind), shape=shape)
