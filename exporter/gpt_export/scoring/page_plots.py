"""Figures of a score to SVG: no script, readable at any width. Places are percentages of the plotted area."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from gpt_export.report.visible import printable

TICKS = 6
_SVG = Markup(
    '<svg class="plot" role="img" aria-labelledby="{id}-title {id}-desc" width="100%" height="{height}">'
    '<title id="{id}-title">{title}</title><desc id="{id}-desc">{desc}</desc>{body}</svg>'
)
_LINE = Markup('<line class="{}" x1="{}%" y1="{}%" x2="{}%" y2="{}%"/>')
_TEXT = Markup('<text class="{}" x="{}%" y="{}%" dx="{}" dy="{}">{}</text>')
_CIRCLE = Markup('<circle class="point{}" cx="{}%" cy="{}%" r="{}"><title>{}</title></circle>')
_BAR = Markup('<rect class="bar-of" x="{}%" y="{}%" width="{}%" height="{}%"><title>{}</title></rect>')


class _Scale:
    """Values to percent of the plotted area, with round numbers to mark."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high if high > low else low + 1

    def __call__(self, value: float) -> float:
        return 100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        raw = (self.high - self.low) / TICKS
        unit = 10 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def histogram(bins: Sequence[Sequence[float]], width: float, ident: str) -> Markup:
    """How many documents have a mean loss in each bin `[from, count]` of `width` nats."""
    low, high = (bins[0][0], bins[-1][0] + width) if bins else (0.0, 1.0)
    most = max((count for _, count in bins), default=1)
    x, y = _Scale(low, high), _Scale(0, most)
    bars = [
        _BAR.format(
            _percent(x(at)), _percent(100 - y(n)), _percent(x(at + width) - x(at)), _percent(y(n)),
            f"{at:g} to {at + width:.3g} nats: {n:,.0f} documents",
        )
        for at, n in bins
    ]  # fmt: skip
    desc = f"{sum(n for _, n in bins):,.0f} documents, {low:g} to {high:.3g} nats a token."
    body = _axes(x, y, "nats a token, mean of a document") + Markup("").join(bars)
    return _SVG.format(id=ident, height=260, title="Loss by document", desc=desc, body=body)


def positions(means: Sequence[Sequence[float]], ident: str, most: int = 400) -> Markup:
    """The mean loss at each position of the window, from `[position, count, loss]`; neighbours share a dot."""
    step = -(-len(means) // most) or 1
    shared = [_shared(means[at : at + step]) for at in range(0, len(means), step)]
    losses = [loss for _, _, loss, _ in shared]
    x = _Scale(0, max((last for _, last, _, _ in shared), default=1))
    y = _Scale(*_padded(losses))
    dots = [
        _CIRCLE.format(
            "", _percent(x((first + last) / 2)), _percent(100 - y(loss)), 2.5,
            f"position {first}{f' to {last}' if last > first else ''}: {loss:.4g} nats over {n:,.0f} tokens",
        )
        for first, last, loss, n in shared
    ]  # fmt: skip
    desc = f"Positions {means[0][0]:.0f} to {means[-1][0]:.0f} of the window." if means else "Nothing was scored."
    body = _axes(x, y, "position in the window") + Markup("").join(dots)
    return _SVG.format(id=ident, height=260, title="Mean loss by position in the window", desc=desc, body=body)


def calibration(bins: Sequence[Sequence[float]], ident: str) -> Markup:
    """How often the likeliest token came, against the probability that it was given."""
    scale = _Scale(0, 1)
    largest = max((n for _, n, _, _ in bins), default=1)
    dots = [
        _CIRCLE.format(
            "", _percent(scale(predicted)), _percent(100 - scale(observed)), f"{2 + 5 * math.sqrt(n / largest):.1f}",
            f"predicted {predicted:.1%}, observed {observed:.1%}, {n:,.0f} tokens",
        )
        for _, n, predicted, observed in bins
    ]  # fmt: skip
    total = sum(n for _, n, _, _ in bins) or 1
    gap = sum(n * abs(predicted - observed) for _, n, predicted, observed in bins) / total
    desc = f"Expected calibration error {gap:.4f} over {total:,.0f} tokens."
    body = _axes(scale, scale, "predicted probability") + _LINE.format("path", 0, 100, 100, 0) + Markup("").join(dots)
    title = "Observed share of hits against predicted probability"
    return _SVG.format(id=ident, height=320, title=title, desc=desc, body=body)


def scatter(points: Sequence[Sequence[float | str]], ident: str, names: tuple[str, str]) -> Markup:
    """Losses of windows: those of the reference across, those of the model up."""
    pairs = [(float(a), float(b), str(what)) for a, b, what in points]
    scale = _Scale(*_padded([value for a, b, _ in pairs for value in (a, b)]))
    dots = [
        _CIRCLE.format(
            "",
            _percent(scale(a)),
            _percent(100 - scale(b)),
            2.5,
            printable(f"{what}: {a:.4g} and {b:.4g} nats a token"),
        )
        for a, b, what in pairs
    ]
    above = sum(b > a for a, b, _ in pairs)
    desc = f"{len(pairs)} windows; in {above} the loss of {names[1]} is above that of {names[0]}."
    body = _axes(scale, scale, f"{names[0]}, nats a token") + _LINE.format("path", 0, 100, 100, 0)
    title = f"Loss of {names[1]} against {names[0]}"
    return _SVG.format(id=ident, height=360, title=title, desc=desc, body=body + Markup("").join(dots))


def _shared(means: Sequence[Sequence[float]]) -> tuple[int, int, float, float]:
    count = sum(n for _, n, _ in means)
    return int(means[0][0]), int(means[-1][0]), sum(n * loss for _, n, loss in means) / count, count


def _padded(values: Iterable[float]) -> tuple[float, float]:
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    room = 0.05 * (high - low) or 0.5
    return max(0.0, low - room), high + room


def _axes(x: _Scale, y: _Scale, name: str) -> Markup:
    up = [
        _LINE.format("grid", 0, _percent(100 - y(at)), 100, _percent(100 - y(at)))
        + _TEXT.format("tick y", 0, _percent(100 - y(at)), -8, 4, f"{at:.4g}")
        for at in y.ticks()
    ]
    across = [_TEXT.format("tick x", _percent(x(at)), 100, 0, 22, f"{at:.4g}") for at in x.ticks()]
    return Markup("").join([*up, *across, _TEXT.format("tick x name", 50, 100, 0, 40, name)])


def _percent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
