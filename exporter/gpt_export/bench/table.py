"""The values of `benchmark` for a person at a terminal."""

from __future__ import annotations

import re
import shutil
import sys
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDTH = 100
"""Columns where there is no terminal to ask."""
BEST = "*"


def print_benchmark(found: dict[str, Any]) -> None:
    """A table with a column for each variant, the bandwidth, and the notes, on stdout.

    The range of a figure is left out where the terminal has no room for it.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, width=width)
    table = _table(found, short=False)
    if Measurement.get(console, console.options.update(max_width=10 * WIDTH), table).maximum > width:
        table = _table(found, short=True)
    console.print(table)
    bandwidth, machine = found["bandwidth"], found["machine"]
    console.print(f"{BEST} the best; the median of {found['plan']['repeats']}, with its range where there is room")
    console.print(
        f"{bandwidth['gb_s']:g} GB/s read with {bandwidth['threads']} threads ({bandwidth['method']}, the best of "
        f"several); {machine['cpu']}, {machine['cores']} cores; onnxruntime {machine['onnxruntime']}"
    )
    for note in found["notes"]:
        console.print(Text(f"note: {note}", "bold" if "busy" in note else "dim"))


def _table(found: dict[str, Any], *, short: bool) -> Table:
    table = Table(title=found["artifact"], title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for variant, values in found["variants"].items():
        head = variant if short else f"{variant} ({values['profile']})"
        table.add_column(head, justify="right", no_wrap=True)
    for row, best in zip(rows(found), best_columns(found), strict=True):
        cells = [cell.partition(" (")[0] if short else cell for cell in row[1:]]
        table.add_row(row[0], *(f"{cell} {BEST if i == best else ' '}" for i, cell in enumerate(cells)))
    return table


def best_columns(found: dict[str, Any]) -> list[int | None]:
    """For each of `rows`, which variant is the best: the one with most tokens a second, else with least.

    None where it is no matter of better, all are alike, or there is one variant alone.
    """
    return [_best(row) for row in rows(found)]


def _best(row: list[str]) -> int | None:
    name, cells = row[0], row[1:]
    leading = [re.match(r"[\d.,]+(?:e-?\d+)?", cell) for cell in cells]
    numbers = [float(each[0].replace(",", "")) for each in leading if each]
    no_matter = any(word in name for word in ("roofline", "of it", "growth"))
    if no_matter or len(numbers) < max(2, len(cells)) or len(set(numbers)) == 1:
        return None
    return numbers.index(max(numbers) if name.startswith("decode") else min(numbers))


def rows(found: dict[str, Any]) -> list[list[str]]:
    """What was measured and its unit, then the figure of each variant."""
    plan, variants = found["plan"], list(found["variants"].values())
    table = [["file, MB", *(_size(one) for one in variants)]]
    table += [[f"prefill {n}, ms", *(spread(one["prefill_ms"][str(n)]) for one in variants)] for n in plan["prefill"]]
    for batch in plan["batches"]:
        name = f"decode, batch {batch}, tok/s" + (" in all" if batch > 1 else "")
        table.append([name, *(spread(one["decode_tok_s"][str(batch)]) for one in variants)])
    for length in plan["growth"]:
        name = f"a step at {length} tokens, ms"
        table.append([name, *(spread(one["growth"]["step_ms"][str(length)]) for one in variants)])
    table.append(["growth of a step", *(f"{one['growth']['ratio']:.2f} x" for one in variants)])
    table.append(["load, s", *(spread(one["load_s"]) for one in variants)])
    for key, name in (("peak_rss_mb", "peak RSS, one row, MB"), ("peak_anon_mb", "peak anonymous, one row, MB")):
        table.append([name, *(_memory(one["memory"], key) for one in variants)])
    table.append(["weights read a token, MB", *(figure(one["roofline"]["weights_mb"]) for one in variants)])
    table.append(["roofline, tok/s", *(figure(one["roofline"]["tok_s"]) for one in variants)])
    table.append(["of the roofline", *(_share(one["roofline"]["share"]) for one in variants)])
    table.append(["of it, cache counted", *(_share(one["roofline"]["share_with_cache"]) for one in variants)])
    return table


def spread(values: dict[str, float]) -> str:
    """The median, and the range where it is seen at this precision."""
    median, low, high = (figure(values[key]) for key in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"


def figure(value: float) -> str:
    """A number to three digits, whole from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _size(values: dict[str, Any]) -> str:
    size = values.get("size_bytes")
    return "not known" if size is None else figure(size / 1e6)


def _memory(memory: dict[str, Any] | None, key: str) -> str:
    return figure(memory["one_row"][key]) if memory else "not known"


def _share(share: float | None) -> str:
    return "batch 1 not measured" if share is None else f"{share:.0%}"
