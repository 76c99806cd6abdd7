"""What an axis of a value means: which symbols its size is a product of, in row-major order.

Legend: `BATCH` rows of a batch; `ROWS` positions, one a token; `Columns` positions that a row looks at, born where
queries meet keys; `Chosen` entries that the data chose, as an expert's tokens are. An axis is a tuple of those and of
whole numbers: () is an axis of size 1, (BATCH, 12) twelve heads folded into the batch, (BATCH, ROWS) all tokens of a
batch in a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

BATCH = "batch"
ROWS = "rows"


@dataclass(frozen=True, slots=True)
class Columns:
    """The positions that a row looks at, `front` and `back` constant entries around them (attention sinks)."""

    product: int
    """Which product of queries and keys they come from."""
    front: int = 0
    back: int = 0


ANY = -1
"""The product of columns in a value of positions alone, which may meet any."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Entries that the data chose, in the order of their places: however many, and none of them twice."""

    choice: int
    """By which NonZero."""


Atom = int | str | Columns | Chosen
Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Concrete sizes to try a graph at."""

    batch: int
    length: int

    def of(self, axis: Axis) -> int:
        """How long `axis` is."""
        return prod(self._atom(atom) for atom in axis)

    def shape(self, axes: Axes) -> tuple[int, ...]:
        """The shape of a value of `axes`."""
        return tuple(self.of(axis) for axis in axes)

    def _atom(self, atom: Atom) -> int:
        if isinstance(atom, int):
            return atom
        if isinstance(atom, Columns):
            return atom.front + self.length + atom.back
        if isinstance(atom, Chosen):
            return _CHOSEN[self.length != TRIED[0].length] + 2 * atom.choice
        return self.batch if atom == BATCH else self.length


TRIED = (Sizes(5, 7), Sizes(11, 13))
"""The sizes that tell axes apart: what went from 5 to 11 is the batch, from 7 to 13 the sequence."""


_CHOSEN = (1009, 2003)
"""Stand for how many entries were chosen, at the first of `TRIED` and elsewhere: like no product of other symbols."""


def axis(*atoms: Atom) -> Axis:
    """The axis of `atoms` in its one form: no ones, and neighbouring numbers multiplied."""
    kept: list[Atom] = []
    for atom in atoms:
        if isinstance(atom, int) and kept and isinstance(kept[-1], int):
            kept[-1] *= atom
        elif atom != 1:
            kept.append(atom)
    return tuple(kept)


def constant_axes(shape: Iterable[int]) -> Axes:
    """The axes of a value of a known shape."""
    return tuple(axis(int(size)) for size in shape)


def is_constant(of: Axis) -> bool:
    """Whether the axis has one size, whatever the batch and the sequence."""
    return all(isinstance(atom, int) for atom in of)


def constant_size(of: Axis) -> int:
    """The size of an axis that `is_constant`."""
    return prod(atom for atom in of if isinstance(atom, int))


def holds_rows(of: Axis) -> bool:
    """Whether positions run along the axis, alone or with others."""
    return ROWS in of


def columns_of(of: Axis) -> Columns | None:
    """The columns that the axis is or holds, None if it holds none."""
    return next((atom for atom in of if isinstance(atom, Columns)), None)


def chosen_of(of: Axis) -> Chosen | None:
    """The choice that the axis is or holds, None if it holds none."""
    return next((atom for atom in of if isinstance(atom, Chosen)), None)


def is_plain(of: Axis) -> bool:
    """Whether the axis holds no positions: it is constant, the batch, or both folded."""
    return all(isinstance(atom, int) or atom == BATCH for atom in of)


def axes_of_shapes(shapes: Sequence[Sequence[int]]) -> Axes | None:
    """The axes of a value that has `shapes` at the sizes of `TRIED`; None if one is no product of symbols."""
    if len({len(shape) for shape in shapes}) != 1:
        return None
    found = [_symbols(first, second) for first, second in zip(*shapes, strict=True)]
    return None if None in found else tuple(of for of in found if of is not None)


def _symbols(first: int, second: int) -> Axis | None:
    candidates: tuple[Axis, ...] = ((), (ROWS,), (BATCH,), (BATCH, ROWS), (ROWS, ROWS), (BATCH, ROWS, ROWS))
    if second - first == TRIED[1].length - TRIED[0].length and first > TRIED[0].length:
        return (Columns(ANY, 0, first - TRIED[0].length),)
    if second - first == _CHOSEN[1] - _CHOSEN[0] and first >= _CHOSEN[0]:
        return (Chosen((first - _CHOSEN[0]) // 2),)
    for symbols in candidates:
        unit = [sizes.of(symbols) for sizes in TRIED]
        if first % unit[0] == 0 and second % unit[1] == 0 and first // unit[0] == second // unit[1]:
            number = first // unit[0]
            return axis(*symbols, number) if not symbols or symbols[0] != BATCH else axis(BATCH, *symbols[1:], number)
    return None


def regroup(axes: Axes, targets: Sequence[tuple[int, ...]]) -> Axes | None:
    """`axes` read in order and cut into axes of the sizes `targets`, each at the sizes of `TRIED`; or None."""
    atoms: list[Atom] = [atom for of in axes for atom in of]
    found: list[Axis] = []
    for target in targets:
        taken = _take(atoms, target)
        if taken is None:
            return None
        found.append(taken)
    return tuple(found) if not axis(*atoms) else None


def _take(atoms: list[Atom], target: tuple[int, ...]) -> Axis | None:
    """Atoms from the front that make up `target`, a number split where it must be."""
    taken: list[Atom] = []
    left = list(target)
    while any(size != 1 for size in left):
        if not atoms:
            return None
        atom = atoms.pop(0)
        if isinstance(atom, int) and (split := _common(atom, left)) is not None:
            if atom // split > 1:
                atoms.insert(0, atom // split)
            atom = split
        sizes = [tried.of((atom,)) for tried in TRIED]
        if any(size % of for size, of in zip(left, sizes, strict=True)):
            return None
        left = [size // of for size, of in zip(left, sizes, strict=True)]
        taken.append(atom)
    return axis(*taken)


def _common(number: int, left: Sequence[int]) -> int | None:
    """The part of `number` that is still wanted, where what is wanted is one number that divides it."""
    wanted = left[0]
    return wanted if len(set(left)) == 1 and wanted < number and number % wanted == 0 else None
