"""The values of `benchmark` as a drawing: a panel a measurement, a bar a variant, a line from least to greatest.

One SVG without script that stands alone, light or dark as the reader's screen is; as `.html` with its table below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gpt_export.artifact.staging import write_whole
from gpt_export.bench.table import figure, rows
from gpt_export.errors import OutputError

SUFFIXES = (".svg", ".html")
WIDTH, LABEL, ROOM = 860, 130, 90
"""Pixels of the drawing, and of it left of the bars and right of the longest."""
BAR, GAP, HEAD = 16, 12, 44
COLOURS = 4
STYLE = Markup("""
svg { color-scheme: light dark; font: 13px system-ui, sans-serif; fill: #1b1d22; background: #fbfaf7; }
.name { font-weight: 600; font-size: 15px; } .soft { fill: #5b616c; } .end { text-anchor: end; }
.axis { stroke: #e2dfd8; } .range { stroke: #1b1d22; stroke-width: 1.5; }
.v0 { fill: #1f6fb4; } .v1 { fill: #c2570c; } .v2 { fill: #15806a; } .v3 { fill: #9b4f96; }
@media (prefers-color-scheme: dark) {
  svg { fill: #e7e8ea; background: #14161a; } .soft { fill: #a3a9b4; } .axis { stroke: #33373f; }
  .range { stroke: #e7e8ea; }
  .v0 { fill: #6db3f2; } .v1 { fill: #ff9d57; } .v2 { fill: #4fd0b0; } .v3 { fill: #d59ad0; }
}
""")
PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; }}
body {{ margin: 2rem auto; max-width: 56rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif;
  background: light-dark(#fbfaf7, #14161a); color: light-dark(#1b1d22, #e7e8ea); }}
svg {{ max-width: 100%; height: auto; }} div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th, td {{ padding: .25rem .75rem; text-align: right; border-bottom: 1px solid light-dark(#e2dfd8, #33373f); }}
th:first-child {{ text-align: left; font-weight: 400; }}
</style></head><body>
{svg}
<div><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>
{notes}</body></html>
""")
_TEXT = Markup('<text class="{}" x="{}" y="{}">{}</text>')


@dataclass(frozen=True, slots=True)
class Panel:
    """One measurement: by what it was measured at, the spread of each variant."""

    title: str
    """What it is, its unit, and which way is better."""
    groups: Mapping[str, Mapping[str, Mapping[str, float]]]


def check_plot(path: Path) -> None:
    """Refuses a file that cannot be drawn to, before anything is measured.

    Raises:
        OutputError: its name ends in neither .svg nor .html, or its folder does not exist.
    """
    if path.suffix not in SUFFIXES:
        raise OutputError(f"{path} ends in {path.suffix or 'nothing'}; name a file that ends in .svg or .html")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"the folder of {path} does not exist; make it first")


def write_plot(found: Mapping[str, Any], path: Path) -> None:
    """Draws what `benchmark` found to a file, an SVG or a page by its name.

    Raises:
        OutputError: see `check_plot`.
        OSError: it cannot be written.
    """
    check_plot(path)
    write_whole(path, svg(found) + "\n" if path.suffix == ".svg" else page(found))


def page(found: Mapping[str, Any]) -> str:
    """The drawing and the table as one HTML page."""
    cells = Markup("").join(Markup("<th>{}</th>").format(name) for name in found["variants"])
    lines = [
        Markup("<tr><th>{}</th>{}</tr>").format(row[0], _join(Markup("<td>{}</td>").format(cell) for cell in row[1:]))
        for row in rows(dict(found))
    ]
    notes = _join(Markup("<p>{}.</p>").format(note) for note in found["notes"])
    return PAGE.format(title=_title(found), svg=Markup(svg(found)), head=cells, body=_join(lines), notes=notes)


def svg(found: Mapping[str, Any]) -> str:
    """The drawing as an SVG document."""
    names = list(found["variants"])
    parts, top = [_legend(names)], 80.0
    for panel in panels(found):
        drawn, height = _panel(panel, names, top)
        parts.append(drawn)
        top += height
    machine, bandwidth = found["machine"], found["bandwidth"]
    foot = (
        f"{machine['cpu']}, {machine['cores']} cores; {bandwidth['gb_s']:g} GB/s; onnxruntime {machine['onnxruntime']}"
    )
    parts.append(_TEXT.format("soft", 20, top + 4, foot))
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{}" height="{}" viewBox="0 0 {} {}">'
            "<title>{}</title><style>{}</style>{}{}</svg>"
        ).format(
            WIDTH,
            top + 24,
            WIDTH,
            top + 24,
            _title(found),
            STYLE,
            _TEXT.format("name", 20, 32, _title(found)),
            _join(parts),
        )
    )


def panels(found: Mapping[str, Any]) -> list[Panel]:
    """What is drawn, in order."""
    variants = found["variants"]

    def by(keys: Iterable[Any], unit: str, *path: str) -> dict[str, dict[str, dict[str, float]]]:
        return {
            f"{unit} {key}": {name: _inner(values, *path)[str(key)] for name, values in variants.items()}
            for key in keys
        }

    plan = found["plan"]
    growth = by(plan["growth"], "context", "growth", "step_ms")
    return [
        Panel(
            "Decoding, tokens a second, all rows together: more is better", by(plan["batches"], "batch", "decode_tok_s")
        ),
        Panel("Prefill of one row, ms: less is better", by(plan["prefill"], "tokens", "prefill_ms")),
        Panel("A step of one row by its context, ms: less is better", growth),
        Panel("Loading, s: less is better", {"": {name: values["load_s"] for name, values in variants.items()}}),
    ]


def _panel(panel: Panel, names: list[str], top: float) -> tuple[Markup, float]:
    """The drawing of a panel at `top`, and its height."""
    most = max(spread["max"] for group in panel.groups.values() for spread in group.values())
    scale = (WIDTH - LABEL - ROOM - 20) / most
    parts = [_TEXT.format("name", 20, top + 20, panel.title)]
    y: float = top + HEAD - 8
    for label, group in panel.groups.items():
        parts.append(_TEXT.format("soft end", LABEL - 10, y + BAR * len(names) / 2 + 4, label))
        for i, name in enumerate(names):
            parts.append(_bar(group[name], f"{name}, {label}".rstrip(", "), y + i * BAR, scale, i % COLOURS))
        y += BAR * len(names) + GAP
    axis = Markup('<line class="axis" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        LABEL, top + HEAD - 12, LABEL, y - GAP + 4
    )
    return axis + _join(parts), y - top + 8


def _bar(spread: Mapping[str, float], label: str, y: float, scale: float, colour: int) -> Markup:
    width, low, high = (round(spread[key] * scale, 1) for key in ("median", "min", "max"))
    middle, low_edge = y + BAR / 2 - 1, y + BAR - 4
    title = f"{label}: {figure(spread['median'])} ({figure(spread['min'])} to {figure(spread['max'])})"
    return (
        Markup('<rect class="v{}" x="{}" y="{}" width="{}" height="{}" rx="2"><title>{}</title></rect>').format(
            colour, LABEL, y, width, BAR - 3, title
        )
        + Markup('<line class="range" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            round(LABEL + low, 1), low_edge, round(LABEL + high, 1), low_edge
        )
        + _TEXT.format("", round(LABEL + width + 6, 1), middle + 4, figure(spread["median"]))
    )


def _legend(names: list[str]) -> Markup:
    parts, x = [], 20
    for i, name in enumerate(names):
        parts.append(Markup('<rect class="v{}" x="{}" y="50" width="12" height="12" rx="2"/>').format(i % COLOURS, x))
        parts.append(_TEXT.format("", x + 18, 61, name))
        x += 40 + 8 * len(name)
    return _join(parts)


def _title(found: Mapping[str, Any]) -> str:
    threads = found["bandwidth"]["threads"]
    return f"{found['artifact']} with {threads} thread{'' if threads == 1 else 's'}"


def _inner(values: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for key in path:
        values = values[key]
    return values


def _join(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
