"""Figures of a parity report to SVG: one dot a value, no script, readable at any width.

Places are percentages of the plotted area, so that one drawing fits a phone and a desk; ticks and their labels stand
outside of it (`overflow: visible`, see `html/report.css`). The vertical axis is logarithmic, in units of the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from markupsafe import Markup

from gpt_export.gate.report import CaseResult, Deviation
from gpt_export.report.figures import TIMES, limit_ratio, number, of_limit, share
from gpt_export.report.visible import printable

LARGEST, SMALLEST = 12, -9
"""Decades around the limit that are drawn; what lies beyond stands at the edge."""
ZERO_LANE = 8.0
"""Percent of the height kept for values that are exactly zero, which a logarithm has no place for."""

FAMILIES = (
    ("text", "text"),
    ("cache", "cache and padding"),
    ("ids", "repeated and extreme ids"),
    ("grid", "grid of shapes"),
)
"""Kinds of cases, each with a colour."""
PARTS = tuple((part, part) for part in ("embedding", "norm", "attention", "mlp", "head"))
"""Parts of a model, each with a colour; any other is drawn as `other`."""

_CIRCLE = Markup('<circle class="point{}" cx="{}%" cy="{}%" r="{}"><title>{}</title></circle>')
_LINE = Markup('<line class="{}" x1="{}%" y1="{}%" x2="{}%" y2="{}%"/>')
_TEXT = Markup('<text class="{}" x="{}%" y="{}%" dx="{}" dy="{}">{}</text>')
_SVG = Markup(
    '<svg class="plot" role="img" aria-labelledby="{id}-title {id}-desc" width="100%" height="{height}">'
    '<title id="{id}-title">{title}</title><desc id="{id}-desc">{desc}</desc>{body}</svg>'
)


@dataclass(frozen=True, slots=True)
class _Axis:
    """The vertical axis: decades from `low` to `high`, zero below them if `has_zero`."""

    low: int
    high: float
    has_zero: bool

    @classmethod
    def of(cls, values: Iterable[float]) -> _Axis:
        known = [value for value in values if not math.isnan(value)]
        decades = [math.log10(value) for value in known if 0 < value < 1e300]
        low = math.floor(min([*decades, -1.0]))
        high = max([*decades, 0.0]) + 0.3  # room above the limit line
        return cls(max(low, SMALLEST), min(high, LARGEST), any(value == 0 for value in known))

    def place(self, value: float) -> float:
        """Percent from the top."""
        floor = 100 - ZERO_LANE if self.has_zero else 100.0
        if value <= 0:
            return 100.0
        decade = min(max(math.log10(value), self.low), self.high) if math.isfinite(value) else self.high
        return floor * (self.high - decade) / (self.high - self.low)

    def drawn(self) -> Markup:
        step = max(1, math.ceil((self.high - self.low) / 6))
        lines = []
        for decade in range(self.low, math.floor(self.high) + 1):
            if decade % step == 0 and decade != 0:
                lines.append(self._rule("grid", self.place(10.0**decade), _decade(decade)))
        if self.has_zero:
            lines.append(self._rule("grid", 100.0, "0"))
        return _join([*lines, self._rule("limit", self.place(1.0), "limit")])

    @staticmethod
    def _rule(name: str, y: float, label: str) -> Markup:
        return _LINE.format(name, 0, _percent(y), 100, _percent(y)) + _TEXT.format(
            f"tick y {name}-label", 0, _percent(y), -8, 4, label
        )


def position_plot(results: Sequence[CaseResult], ident: str, *, step: int = 1) -> str:
    """The largest difference at each position of each case, in units of the case's limit, as an SVG element.

    Args:
        ident: what ids in the SVG begin with; unique in its page.
        step: how many neighbouring positions share one dot, which shows the worst of them.
    """
    axis = _Axis.of(limit_ratio(error, result.limit or 0.0) for result in results for error in result.error_by_position)
    longest = max((len(result.error_by_position) for result in results), default=1)
    worst = max(results, key=lambda result: result.worst_ratio, default=None)
    groups, ring = [], Markup("")
    for result in results:
        dots = []
        for start in range(0, len(result.error_by_position), step):
            errors = result.error_by_position[start : start + step]
            error = max(errors)
            end = start + len(errors) - 1
            where = f"position {start}" if end == start else f"positions {start} to {end}, the worst"
            x, y = _root(start + errors.index(error), longest), axis.place(limit_ratio(error, result.limit or 0.0))
            title = f"{result.name}, {where}: {number(error)}, {of_limit(limit_ratio(error, result.limit or 0.0))}"
            dots.append(_dot(x, y, title))
            if result is worst and start <= result.worst_index[1] <= end:
                ring = _ring(x, y, f"{result.name}, position {result.worst_index[1]}")
        name, family = printable(result.name), family_of(result.name)
        groups.append(Markup('<g class="f-{}" data-case="{}">{}</g>').format(family, name, _join(dots)))
    ticks = [_tick_x(_root(at, longest), str(at)) for at in _position_ticks(longest)]
    title = "Largest difference at each position, in units of the limit"
    if worst is None:
        desc = "Nothing was compared."
    else:
        desc = (
            f"{len(results)} cases over positions 0 to {longest - 1}. The largest difference is "
            f"{of_limit(worst.worst_ratio)}, in case {worst.name} at position {worst.worst_index[1]}."
        )
    body = axis.drawn() + _join(ticks) + _axis_name("position in the sequence") + _join(groups) + ring
    return _svg(ident, title, desc, 300, body)


def layer_plot(deviations: Sequence[Deviation], ident: str, *, fault: Deviation | None = None) -> str:
    """The largest difference of each activation, in the graph's order, in units of its limit, as an SVG element.

    Args:
        ident: what ids in the SVG begin with; unique in its page.
        fault: the deviation to point at.
    """
    axis = _Axis.of(deviation.ratio for deviation in deviations)
    n = max(len(deviations), 1)
    spots = [(100 * (i + 0.5) / n, axis.place(deviation.ratio)) for i, deviation in enumerate(deviations)]
    path = [_LINE.format("path", *map(_percent, (*left, *right))) for left, right in pairwise(spots)]
    dots, ring = [], Markup("")
    for deviation, (x, y) in zip(deviations, spots, strict=True):
        part = deviation.part if (deviation.part, deviation.part) in PARTS else "other"
        title = f"{place_of(deviation)}, {deviation.module}: {of_limit(deviation.ratio)} ({deviation.operator})"
        dots.append(_dot(x, y, title, f" p-{part}", radius="3.5"))
        if deviation is fault:
            ring = _ring(x, y, place_of(deviation))
    worst = max(deviations, key=lambda deviation: deviation.ratio, default=None)
    desc = f"{len(deviations)} activations in the order in which the graph computes them. "
    if fault is not None:
        desc += f"The first beyond its limit is in {place_of(fault)}: {fault.module}."
    elif worst is not None:
        desc += f"None is beyond its limit; the nearest has {share(worst.ratio)} of it, in {place_of(worst)}."
    body = _join([*_bands(deviations, n), axis.drawn(), _axis_name("layer"), *path, *dots, ring])
    return _svg(ident, "Largest difference of each activation, in units of its limit", desc, 260, body)


def family_of(case: str) -> str:
    """Which of `FAMILIES` a case belongs to, by its name."""
    first = case.partition("-")[0]
    return {"grid": "grid", "ids": "ids", "cache": "cache", "pad": "cache"}.get(first, "text")


def place_of(deviation: Deviation) -> str:
    """Where an activation is, in words."""
    return deviation.part if deviation.layer is None else f"layer {deviation.layer}, {deviation.part}"


def step_for(results: Iterable[CaseResult], points: int) -> int:
    """The `step` of `position_plot` with which all `results` together have about so many dots at most."""
    lengths = [len(result.error_by_position) for result in results]
    step = 1
    while sum(-(-length // step) for length in lengths) > max(points, len(lengths)):
        step += 1
    return step


def _bands(deviations: Sequence[Deviation], n: int) -> Iterator[Markup]:
    """A background for every second layer, and the numbers of as many as have room."""
    groups = [(layer, len(list(members))) for layer, members in groupby(deviations, key=lambda item: item.layer)]
    every = math.ceil(len(groups) / 13)
    start = 0
    for i, (layer, length) in enumerate(groups):
        x, width = 100 * start / n, 100 * length / n
        if i % 2:
            yield Markup('<rect class="band" x="{}%" y="0" width="{}%" height="100%"/>').format(
                _percent(x), _percent(width)
            )
        if layer is not None and layer % every == 0:
            yield _tick_x(x + width / 2, str(layer))
        start += length
    if groups and groups[0][0] is None:
        yield _TEXT.format("tick edge", 0, 100, 0, 40, "embedding")
    if len(groups) > 1 and groups[-1][0] is None:
        yield _TEXT.format("tick edge end", 100, 100, 0, 40, "norm, head")


def _root(position: int, longest: int) -> float:
    """Percent from the left: square roots, so that short cases have room beside the context."""
    return 100 * math.sqrt(position / max(longest - 1, 1))


def _position_ticks(longest: int) -> list[int]:
    """Powers of two that keep a distance, and both ends."""
    ticks = [0]
    for at in (2**power for power in range(24)):
        if _root(at, longest) - _root(ticks[-1], longest) >= 9 and _root(at, longest) <= 90:
            ticks.append(at)
    return [*ticks, longest - 1] if longest > 1 else ticks


def _decade(decade: int) -> str:
    if decade > 0:
        return f"{10**decade}{TIMES}" if decade <= 3 else f"1e{decade}{TIMES}"
    return f"{100 * 10.0**decade:g}%" if decade >= -4 else f"1e{decade}"


def _dot(x: float, y: float, title: str, extra: str = "", radius: str = "2.5") -> Markup:
    return _CIRCLE.format(extra, _percent(x), _percent(y), radius, printable(title))


def _ring(x: float, y: float, label: str) -> Markup:
    left = x > 55
    above = y > 14
    text = _TEXT.format(
        f"callout{' end' if left else ''}",
        _percent(x),
        _percent(y),
        -10 if left else 10,
        -8 if above else 18,
        printable(label),
    )
    return Markup('<circle class="ring" cx="{}%" cy="{}%" r="7"/>').format(_percent(x), _percent(y)) + text


def _tick_x(x: float, label: str) -> Markup:
    return _TEXT.format("tick x", _percent(x), 100, 0, 22, label)


def _axis_name(name: str) -> Markup:
    return _TEXT.format("tick x name", 50, 100, 0, 40, name)


def _svg(ident: str, title: str, desc: str, height: int, body: Markup) -> str:
    return _SVG.format(id=ident, title=title, desc=printable(desc), height=height, body=body)


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)


def _percent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
