"""What makes a cache the same model, found by trying attention on random scores.

What a row attends to must not change when later tokens come. Where it depends on how far tokens are apart alone, rows
that are padded on the left may count slots for positions; where not, its tables are read by position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.attentions import Attention
from gpt_export.passes.cache.axes import BATCH, ROWS, Axis, Columns, Sizes, columns_of
from gpt_export.passes.cache.bands import Band, band_of, hides_alike
from gpt_export.passes.cache.evaluate import kind_of
from gpt_export.passes.cache.interpreter import Meaning
from gpt_export.passes.cache.lengths import candidate_lengths, combined, multiplies
from gpt_export.passes.cache.padding import HIDDEN
from gpt_export.passes.cache.refusal import CacheRefusedError, refuse
from gpt_export.passes.cache.tables import MOST_NUMBERS, Use

Array = np.ndarray[Any, Any]
_SHORT, _LONG = 7, 13
_SPREAD = 2.0
_BEYOND = 11
"""How far beyond the context it is tried, so that what changes at its end shows."""
_MOST_GUESSED = 1 << 16
"""Of scores at lengths that are sums and products of what stands in the graph."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How an attention is written over a past."""

    hide: Literal["softmax", "scores"]
    """Where padding is hidden: in front of each Softmax, or behind each product of queries and keys."""
    by_position: bool
    """Whether its tables are read by the positions of rows and keys, not by their slots."""
    band: Band | None = None
    """What its masks are, where one bias that hides padding too takes their place."""
    masks: tuple[ir.Node, ...] = ()
    """The nodes that apply those masks, in order; each is left out."""


def plan_attentions(meaning: Meaning, attentions: Sequence[Attention], uses: Sequence[Use]) -> dict[Attention, Plan]:
    """How each attention can be written; those that are spelled alike and read the same tables are tried once.

    Raises:
        CacheRefusedError: later tokens change what a row attends to, or padding cannot be hidden.
    """
    plans: dict[Attention, Plan] = {}
    tried: dict[object, tuple[Attention, Plan]] = {}
    for attention in attentions:
        key = spelling(meaning, attention)
        if key in tried:
            like, plan = tried[key]
            nodes = dict(zip(_in_order(meaning, like), _in_order(meaning, attention), strict=True))
            plans[attention] = dataclasses.replace(plan, masks=tuple(nodes[node] for node in plan.masks))
        else:
            plans[attention] = plan_attention(meaning, attention, uses)
            tried[key] = attention, plans[attention]
    return plans


def _in_order(meaning: Meaning, attention: Attention) -> list[ir.Node]:
    return [node for node in meaning.steps if node in attention.between]


def spelling(meaning: Meaning, attention: Attention) -> object:
    """Equal for attentions whose nodes between scores and weights are alike and read the same values."""
    places: dict[ir.Value, object] = {leaf: ("leaf", i) for i, leaf in enumerate(attention.leaves)}
    axes = tuple(_without_numbers(meaning.facts[leaf].axes) for leaf in attention.leaves)
    spelled: list[object] = [axes]
    for i, node in enumerate(_in_order(meaning, attention)):
        read = tuple(_read(meaning, value, places) for value in node.inputs)
        spelled.append((kind_of(node), read))
        places.update({value: (i, k) for k, value in enumerate(node.outputs)})
    return tuple(spelled)


def _read(meaning: Meaning, value: ir.Value | None, places: dict[ir.Value, object]) -> object:
    if value is None or meaning.depends[value] == "data":
        return None if value is None else places.get(value)
    tensor = ir.convenience.get_const_tensor(value)
    return value if tensor is None or tensor.size > 1 else (str(tensor.dtype), tensor.numpy().tobytes())


def _without_numbers(axes: tuple[Axis, ...]) -> object:
    """Axes whose columns are those of any product."""
    return tuple(tuple("columns" if isinstance(atom, Columns) else atom for atom in of) for of in axes)


def plan_attention(meaning: Meaning, attention: Attention, uses: Sequence[Use]) -> Plan:
    """How `attention` can be written so that it is the plain one, tried at several lengths.

    Raises:
        CacheRefusedError: later tokens change what a row attends to, or padding cannot be hidden.
    """
    trial = Trial(meaning, attention, uses)
    pairs = trial.pairs()
    for short, long in pairs:
        _check_causal(trial, short, long)
    bands = {use: band_of(meaning, use.value) for use in uses if use.node in attention.between and use.is_matrix}
    if not all(band is not None or hides_alike(meaning, use.value) for use, band in bands.items()):
        raise trial.refuse("is not causal: its mask lets some tokens look at later ones")
    for plan in _plans(meaning, attention, bands):
        if all(_hides_padding(trial, plan, short, long) for short, long in pairs):
            return plan
    raise refuse(attention.mix, "weighs tokens so that those in front of a padded row cannot be hidden from it")


def _plans(meaning: Meaning, attention: Attention, bands: Mapping[Use, Band | None]) -> list[Plan]:
    """The ways to write it, the lightest first; `bands` are what its matrices of positions are."""
    places: list[Literal["softmax", "scores"]] = ["softmax", "scores"] if attention.softmaxes else ["scores"]
    plain = [Plan(hide, by_position) for by_position in (False, True) for hide in places]
    masks = {use.node: band for use, band in bands.items() if band is not None and masked_input(meaning, use.node)}
    if len(attention.softmaxes) != 1 or len(set(masks.values())) != 1:
        return plain
    axes = meaning.facts[attention.softmaxes[0].outputs[0]].axes
    if len(axes) not in (3, 4) or axes[0] != (BATCH,) or axes[-2] != (ROWS,):
        return plain
    order = {node: i for i, node in enumerate(meaning.steps)}
    nodes = tuple(sorted(masks, key=order.__getitem__))
    return [Plan("softmax", False, masks[nodes[0]], nodes), *plain]


def masked_input(meaning: Meaning, node: ir.Node) -> ir.Value | None:
    """The scores that `node` applies a mask to, None if it does anything else to them."""
    data = [value for value in node.inputs if value is not None and meaning.depends[value] == "data"]
    return data[0] if node.op_type in ("Add", "Where") and len(data) == 1 else None


def _check_causal(trial: Trial, short: int, long: int) -> None:
    inputs = trial.random(long)
    whole = trial.weights(inputs, long)
    if whole is None:
        return
    if np.any(trial.later(whole, long) != 0):
        raise trial.refuse("is not causal: it lets tokens look at later ones, so that what is cached would change")
    first = trial.weights(trial.part(inputs, slice(0, short)), short)
    if first is not None and not _close(first, trial.block(whole, slice(0, short))):
        raise trial.refuse("weighs tokens differently when later ones come")


def _hides_padding(trial: Trial, plan: Plan, short: int, long: int) -> bool:
    """Whether a row behind padding attends as it does alone, and one without padding as in the plain graph."""
    inputs = trial.random(long)
    if plan.band is not None:
        plain, written = trial.weights(inputs, long), trial.weights(inputs, long, plan, 0)
        if plain is not None and written is not None and not _close(plain, written):
            return False
    padding = long - short
    padded = trial.weights(inputs, long, plan, padding)
    alone = trial.weights(trial.part(inputs, slice(padding, long)), short)
    if padded is None or alone is None:
        return True
    behind = slice(padding, long)
    return _close(alone, trial.block(padded, behind)) and not np.any(trial.block(padded, behind, slice(0, padding)))


def _close(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=1e-6))


class Trial:
    """The way from the scores of an attention to its weights, to be run on numbers."""

    def __init__(self, meaning: Meaning, attention: Attention, uses: Sequence[Use]) -> None:
        self._meaning = meaning
        self._attention = attention
        self._tables = [use for use in uses if use.node in attention.between]
        axes = meaning.facts[attention.weights].axes
        self._row = next((i for i, of in enumerate(axes) if of == (ROWS,)), None)
        self._column = next(i for i, of in enumerate(axes) if columns_of(of))
        self._heads = max(1, int(np.prod(Sizes(1, 1).shape(axes))))
        if self._row is None:
            raise refuse(attention.mix, "weighs positions for rows that are folded into another axis")

    def refuse(self, what: str) -> CacheRefusedError:
        """The refusal of the attention, at its Softmax where it has one."""
        return refuse((*self._attention.softmaxes, self._attention.mix)[0], what)

    def pairs(self) -> list[tuple[int, int]]:
        """Lengths to try, a short and a long one: around each at which it may do something new, and beyond it."""
        found = {(_SHORT, _LONG)}
        certain = self.candidates()
        matrices = [use.value for use in self._tables if use.rows and use.columns]
        guessed = combined(self._meaning, matrices) if multiplies(self._meaning, matrices) else set()
        for candidate in certain | guessed:
            for short, long in ((max(2, candidate - 3), candidate + 4), (candidate + 4, candidate + 11)):
                most = MOST_NUMBERS if candidate in certain else _MOST_GUESSED
                if long * long * self._heads <= most and long <= self._meaning.longest + _BEYOND:
                    found.add((short, long))
        return sorted(found)

    def candidates(self) -> set[int]:
        """Lengths at which it may do something new."""
        return candidate_lengths(self._meaning, [use.value for use in self._tables])

    def fits(self, length: int) -> bool:
        """Whether scores of that length are few enough to try, and the context holds them."""
        return length * length * self._heads <= MOST_NUMBERS and length <= self._meaning.longest + _BEYOND

    def random(self, length: int) -> dict[ir.Value, Array]:
        """Seeded numbers for the data that it starts from, at one row of a batch."""
        made = np.random.default_rng(length)
        shapes = {leaf: Sizes(1, length).shape(self._meaning.facts[leaf].axes) for leaf in self._attention.leaves}
        return {leaf: (made.standard_normal(shape) * _SPREAD).astype(np.float32) for leaf, shape in shapes.items()}

    def weights(
        self, inputs: dict[ir.Value, Array], length: int, plan: Plan | None = None, padding: int = 0
    ) -> Array | None:
        """What the values are multiplied by, written as `plan` says behind `padding` tokens that are none.

        None where a table ends before `length`.
        """
        meaning, sizes = self._meaning, Sizes(1, length)
        given = dict(inputs)
        try:
            if plan is not None:
                self._shift_tables(given, sizes, plan, padding)
                self._leave_out_masks(given, sizes, plan)
                if plan.hide == "scores":
                    for product in self._attention.products:
                        scores = product.node.outputs[0]
                        given[scores] = given[scores] + self._hidden(scores, length, padding)
                else:
                    self._hide_before_softmax(given, sizes, plan, padding)
            return meaning.evaluator.array(self._attention.weights, sizes, given)
        except CacheRefusedError:
            if length <= _LONG:
                raise
            return None
        finally:
            meaning.evaluator.forget_large(sizes)

    def _leave_out_masks(self, given: dict[ir.Value, Array], sizes: Sizes, plan: Plan) -> None:
        for node in plan.masks:
            scores = masked_input(self._meaning, node)
            assert scores is not None
            given[node.outputs[0]] = self._meaning.evaluator.array(scores, sizes, given)

    def _hide_before_softmax(self, given: dict[ir.Value, Array], sizes: Sizes, plan: Plan, padding: int) -> None:
        for node in reversed(self._attention.softmaxes):
            source = node.inputs[0]
            assert source is not None
            scores = self._meaning.evaluator.array(source, sizes, given)
            hidden = scores + self._hidden(source, sizes.length, padding, plan.band)
            given[node.outputs[0]] = self._meaning.evaluator.run(node, [hidden])[0]

    def _shift_tables(self, given: dict[ir.Value, Array], sizes: Sizes, plan: Plan, padding: int) -> None:
        """Rows, and columns where the plan says so, by position: that of the first token is 0."""
        places = np.maximum(np.arange(sizes.length) - padding, 0)
        for use in self._tables:
            along = (*use.rows, *use.columns) if plan.by_position else use.rows if not use.columns else ()
            if along:
                table = self._meaning.evaluator.array(use.value, sizes)
                for axis in along:
                    table = np.take(table, places, axis=axis)
                given[use.value] = table

    def _hidden(self, scores: ir.Value, length: int, padding: int, band: Band | None = None) -> Array:
        """What is added to scores (..., rows, ..., columns) to hide padding, and all that is outside of `band`."""
        axes = self._meaning.facts[scores].axes
        place = next(i for i, of in enumerate(axes) if columns_of(of))
        columns = columns_of(axes[place])
        assert columns is not None
        shown = np.ones((length, length), bool) if band is None else band.matrix(length)
        shown = shown & (np.arange(length) >= padding)
        hidden: Array = np.pad(np.where(shown, 0, HIDDEN), ((0, 0), (columns.front, columns.back))).astype(np.float32)
        if (ROWS,) not in axes:
            last: Array = hidden[-1].reshape([len(hidden[-1]) if i == place else 1 for i in range(len(axes))])
            return last
        row = axes.index((ROWS,))
        shape = [1] * len(axes)
        shape[row], shape[place] = hidden.shape
        return (hidden if row < place else hidden.T).reshape(shape)

    def later(self, weights: Array, length: int) -> Array:
        """`weights` with those of a row's own and earlier tokens at 0."""
        assert self._row is not None
        later = np.triu(np.ones((length, length), bool), 1)
        shape = [1] * weights.ndim
        shape[self._row] = shape[self._column] = length
        return np.where((later if self._row < self._column else later.T).reshape(shape), weights, 0)

    def by_row(self, weights: Array) -> Array:
        """`weights` as (heads, rows, columns), whatever its heads are made of."""
        assert self._row is not None
        ordered = np.moveaxis(weights, (self._row, self._column), (-2, -1))
        return ordered.reshape(-1, *ordered.shape[-2:])

    def part(self, inputs: dict[ir.Value, Array], of: slice) -> dict[ir.Value, Array]:
        """The inputs of some of the tokens."""
        return {value: array[self._index(self._meaning.facts[value].axes, of)] for value, array in inputs.items()}

    def _index(self, axes: tuple[Axis, ...], of: slice) -> tuple[slice, ...]:
        return tuple(of if each == (ROWS,) or _is_columns(each) else slice(None) for each in axes)

    def block(self, weights: Array, rows: slice, columns: slice | None = None) -> Array:
        """Rows and columns of some of the tokens."""
        assert self._row is not None
        index = [slice(None)] * weights.ndim
        index[self._row], index[self._column] = rows, rows if columns is None else columns
        return weights[tuple(index)]


def _is_columns(of: Axis) -> bool:
    return len(of) == 1 and isinstance(of[0], Columns)
