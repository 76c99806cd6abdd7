"""What a rule reads of the node that it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_export.passes.cache.axes import TRIED, Axes
from gpt_export.passes.cache.evaluate import Evaluator
from gpt_export.passes.cache.facts import Fact, Step
from gpt_export.passes.cache.refusal import CacheRefusedError, refuse

Array = np.ndarray[Any, Any]
Rule = Callable[["Reading"], Step]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A product of queries and keys: which input is which, and what the columns that it gives are called."""

    node: ir.Node
    query: int
    key: int
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The true entries of `mask`, of `axes`, as NonZero finds them."""

    mask: ir.Value
    axes: Axes
    told: dict[ir.Value, Axes] = field(default_factory=dict)
    """What each NonZero gives that reads the mask, and the axes along which the mask was repeated first."""


@dataclass(slots=True)
class Found:
    """What the rules have found so far, beyond the axes."""

    products: list[Product] = field(default_factory=list)
    softmaxes: set[ir.Node] = field(default_factory=set)
    """Each Softmax over columns."""
    mixes: dict[ir.Node, int] = field(default_factory=dict)
    """Products with the values, and which input holds these."""
    choices: list[Choice] = field(default_factory=list)
    """By number, what the data chose."""
    places: dict[ir.Value, ir.Value] = field(default_factory=dict)
    """Values made of the places of chosen entries, and what NonZero gave: to take and put back entries, no more."""
    flipped: frozenset[ir.Node] = frozenset()
    """Products whose first input holds the keys, as a Softmax over their first positions shows."""


class OverRowsError(CacheRefusedError):
    """A Softmax over positions that a product called queries: they are the keys."""

    def __init__(self, node: ir.Node, product: Product) -> None:
        super().__init__(str(refuse(node, "normalises over the positions of queries")))
        self.product = product


@dataclass(slots=True)
class Reading:
    """A node, the facts about its inputs, and their values where those do not depend on data."""

    node: ir.Node
    facts: dict[ir.Value, Fact]
    evaluator: Evaluator
    found: Found

    def fact(self, i: int) -> Fact | None:
        """What is known of input `i`, None where it is left out."""
        value = self.node.inputs[i] if i < len(self.node.inputs) else None
        return None if value is None else self.facts[value]

    def axes(self, i: int = 0) -> Axes:
        """The axes of input `i`, which is there."""
        fact = self.fact(i)
        assert fact is not None
        return fact.axes

    def is_data(self, i: int) -> bool:
        """Whether input `i` is there and depends on the ids."""
        fact = self.fact(i)
        return fact is not None and fact.depends == "data"

    def arrays(self, i: int) -> tuple[Array, ...] | None:
        """The values of input `i` at the sizes of `TRIED`, None where it is left out.

        Raises:
            CacheRefusedError: it depends on the ids.
        """
        value = self.node.inputs[i] if i < len(self.node.inputs) else None
        if value is None:
            return None
        if self.is_data(i):
            raise self.refuse("takes a shape or an index that depends on the ids")
        return tuple(self.evaluator.array(value, sizes) for sizes in TRIED)

    def numbers(self, i: int) -> tuple[tuple[int, ...], ...] | None:
        """Whole numbers of input `i`, one tuple of them for each of the sizes of `TRIED`."""
        arrays = self.arrays(i)
        return None if arrays is None else tuple(tuple(int(each) for each in array.reshape(-1)) for array in arrays)

    def fixed(self, i: int) -> tuple[int, ...] | None:
        """Whole numbers of input `i`, which must not depend on the sizes."""
        numbers = self.numbers(i)
        if numbers is None:
            return None
        if len(set(numbers)) > 1:
            raise self.refuse("takes a number that depends on the length")
        return numbers[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, `default` where it is left out."""
        attr = self.node.attributes.get(name)
        return default if attr is None else attr.value

    def axis_number(self, number: int, rank: int) -> int:
        """`number` counted from the front."""
        return number % rank

    def refuse(self, what: str) -> CacheRefusedError:
        """The refusal of this node."""
        return refuse(self.node, what)
