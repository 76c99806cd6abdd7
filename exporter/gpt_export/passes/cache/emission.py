"""The cached graph, written from what the plain one means.

Each value of data is written at one or two levels: "new", where its positions are those of the new tokens, and
"whole", where they are past and new ones. Only what lies between a cut and its product is written whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import BATCH, Axes, Columns, columns_of, constant_size, is_constant
from gpt_export.passes.cache.cuts import Attention, Pair
from gpt_export.passes.cache.dims import Writing
from gpt_export.passes.cache.facts import Step
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.pasts import form_of, from_cached, heads_of, joined_heads, to_cached
from gpt_export.passes.cache.positions import PositionWriter
from gpt_export.passes.cache.refusal import refuse
from gpt_export.runtime.signature import (
    ATTENTION_MASK,
    INPUT_IDS,
    LOGITS,
    PAST,
    POSITION_IDS,
    SEQUENCE,
    TOTAL,
)
from gpt_export.runtime.signature import (
    BATCH as BATCH_DIM,
)

Level = Literal["new", "whole"]
Task = tuple[ir.Value, Level]
HIDDEN = -3e4
"""Added to the scores of keys that are padding: exp of it is 0 beside any real score, and it is finite, so that a row
that may look nowhere gives finite numbers."""


class Emitter:
    """Writes the cached graph of one plain graph."""

    def __init__(
        self, graph: ir.Graph, meaning: Meaning, attentions: Sequence[Attention], pairs: Sequence[Pair]
    ) -> None:
        self._graph = graph
        self._meaning = meaning
        self._attentions = {each.softmax: each for each in attentions}
        self._products = {each.scores: each for each in attentions}
        self._skipped = {node for each in attentions for node in each.key.skipped}
        self._pairs = pairs
        self._cuts = {cut.value: cut for pair in pairs for part in pair.parts for cut in part}
        self._made: dict[Task, ir.Value] = {}
        self._ids = _input(INPUT_IDS, ir.DataType.INT64, [BATCH_DIM, SEQUENCE])
        self._mask = _input(ATTENTION_MASK, ir.DataType.INT64, [BATCH_DIM, TOTAL])
        self._position_ids = _input(POSITION_IDS, ir.DataType.INT64, [BATCH_DIM, SEQUENCE])
        self._writing = Writing(self._ids, self._mask)
        self._positions = PositionWriter(meaning, self._writing, self._position_ids)
        self._past: list[ir.Value] = []
        self._present: list[ir.Value] = [_input("", ir.DataType.FLOAT, [])] * (2 * len(pairs))

    def run(self) -> tuple[list[ir.Value], list[ir.Value], list[ir.Node]]:
        """Inputs, outputs and nodes of the cached graph; weights keep their values' metadata."""
        weights = self._enter()
        logits = self._emit((self._graph.outputs[0], "new"))
        for pair in self._pairs:  # also those whose attention reaches no output
            self._emit((pair.parts[0][0].value, "whole"))
            self._emit((pair.parts[0][1].value, "whole"))
        if logits.name != LOGITS:
            logits = self._writing.node("Identity", [logits], LOGITS)
        source = self._graph.outputs[0]
        logits.type, logits.shape = source.type, source.shape
        inputs = [self._ids, self._mask, self._position_ids, *self._past, *weights]
        return inputs, [logits, *self._present], self._writing.nodes

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
            for kind, width in (("key", pair.key_width), ("value", pair.value_width)):
                shape = [BATCH_DIM, pair.n_heads, PAST, width]
                self._past.append(_input(f"past_key_values.{i}.{kind}", ir.DataType.FLOAT, shape))
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
        if level == "whole" and value in self._cuts:
            pair, _ = self._pair_of(value)
            return [(cut.value, "new") for part in pair.parts for cut in part]
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

    def _pair_of(self, value: ir.Value) -> tuple[Pair, int]:
        return next(
            (pair, i) for i, pair in enumerate(self._pairs) for part in pair.parts for cut in part if cut.value is value
        )

    def _write(self, task: Task) -> None:
        value, level = task
        if level == "whole" and value in self._cuts:
            self._join(*self._pair_of(value))
            return
        node = value.producer()
        assert node is not None
        step = self._meaning.steps[node]
        if level == "whole" and node in self._skipped:
            step = Step(step.outputs, alias=next(i for i, each in enumerate(node.inputs) if self._is_data(each)))
        if step.alias is not None:
            source = node.inputs[step.alias]
            assert source is not None
            self._made[task] = self._made[source, level]
            return
        inputs = [self._input(node, step, i, level) for i in range(len(node.inputs))]
        inputs = self._adapted(node, inputs)
        self._clone(node, step, inputs, level)

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
        if step.aligned and level == "new":
            output = step.outputs[0]
            return self._positions.aligned(node, value, output, len(output), full=node.op_type == "Concat")
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
        """The query takes over the factor of the keys; a Softmax over positions hides those that are padding."""
        if node in self._products and (factor := self._products[node].key.factor) != 1.0:
            place = self._meaning.found.products[self._meaning.found.softmaxes[self._products[node].softmax]].query
            scale = self._writing.constant(factor, np.float32)
            inputs[place] = self._writing.node("Mul", [inputs[place], scale], f"{node.name}/scaled_query")
        if node in self._meaning.found.softmaxes:
            axes = self._meaning.facts[node.outputs[0]].axes
            scores = inputs[0]
            assert scores is not None
            inputs[0] = self._writing.node("Add", [scores, self._padding_bias(node, axes)], f"{node.name}/padding")
        return inputs

    def _padding_bias(self, node: ir.Node, axes: Axes) -> ir.Value:
        """float32, 0 where a key is a token and `HIDDEN` where it is padding, shaped to be added to scores of `axes`."""
        writing = self._writing
        place = next(i for i, of in enumerate(axes) if columns_of(of))
        columns = columns_of(axes[place])
        assert columns is not None
        batch = next((i for i, of in enumerate(axes) if of and of[0] == BATCH), None)
        if batch is None or batch > place:
            raise refuse(node, "normalises scores whose rows are not those of a batch")
        made = self._hidden(columns.front, columns.back)
        folded = constant_size(axes[batch][1:])
        if folded > 1:
            made = writing.node("Unsqueeze", [made, writing.constant([1])], "cache/hidden/heads")
            lengths = [1, folded, 1]
            made = writing.node("Expand", [made, writing.constant(lengths)], "cache/hidden/by_head")
            length = writing.length((Columns(columns.product, columns.front, columns.back),), "total")
            made = writing.node("Reshape", [made, writing.shape([-1, length])], "cache/hidden/folded")
        units = [i for i in range(len(axes)) if i not in (batch, place)]
        return writing.node("Unsqueeze", [made, writing.constant(units)], "cache/hidden/by_key") if units else made

    def _hidden(self, front: int, back: int) -> ir.Value:
        """(batch, front + total + back)."""
        writing = self._writing
        shown = writing.node("Cast", [self._mask], "cache/shown", {"to": ir.DataType.FLOAT})
        hidden = writing.node("Sub", [writing.constant(1, np.float32), shown], "cache/padding")
        made = writing.node("Mul", [hidden, writing.constant(HIDDEN, np.float32)], "cache/hidden")
        if front or back:
            ends = [writing.constant([0, front, 0, back]), writing.constant(0, np.float32)]
            made = writing.node("Pad", [made, *ends], "cache/hidden/padded")
        return made

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

    def _join(self, pair: Pair, index: int) -> None:
        """Writes past and new keys and values of a layer behind one another, and each cut's own at the whole length."""
        writing = self._writing
        for offset, kind in enumerate(("key", "value")):
            cuts = [part[offset] for part in pair.parts]
            name = f"cache/{index}/{kind}"
            forms = {cut.value: form_of(self._meaning.facts[cut.value].axes, cut) for cut in cuts}
            new = [to_cached(writing, self._made[cut.value, "new"], forms[cut.value], name) for cut in cuts]
            past = self._past[2 * index + offset]
            present = writing.node(
                "Concat", [past, joined_heads(writing, new, name)], f"present.{index}.{kind}", {"axis": 2}
            )
            width = pair.key_width if kind == "key" else pair.value_width
            dims: list[int | str] = [BATCH_DIM, pair.n_heads, TOTAL, width]
            present.type, present.shape = past.type, ir.Shape(dims)
            self._present[2 * index + offset] = present
            start = 0
            for cut in cuts:
                each = present if len(cuts) == 1 else heads_of(writing, present, start, cut, name)
                start += cut.heads
                self._made[cut.value, "whole"] = from_cached(writing, each, forms[cut.value], name)


def _input(name: str, kind: ir.DataType, dims: Sequence[int | str]) -> ir.Value:
    shape = ir.Shape([ir.SymbolicDim(dim) if isinstance(dim, str) else dim for dim in dims])
    return ir.Value(name=name, type=ir.TensorType(kind), shape=shape)
