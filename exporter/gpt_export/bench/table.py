"""The values of `benchmark` for a person at a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 120
"""Columns where there is no terminal to ask."""


def print_benchmark(found: dict[str, Any]) -> None:
    """A table with a column for each variant, the bandwidth, and the notes, on stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    variants = found["variants"]
    table = Table(title=found["artifact"], title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for variant, values in variants.items():
        table.add_column(f"{variant} ({values['profile']})", justify="right", no_wrap=True)
    for row in rows(found):
        table.add_row(*row)
    console.print(table)
    bandwidth, machine = found["bandwidth"], found["machine"]
    console.print(
        f"{bandwidth['gb_s']:g} GB/s read with {bandwidth['threads']} threads ({bandwidth['method']}, the best of "
        f"several); {machine['cpu']}, {machine['cores']} cores; onnxruntime {machine['onnxruntime']}",
        soft_wrap=True,
    )
    console.print(f"median of {found['plan']['repeats']}, least and greatest in brackets", soft_wrap=True)
    for note in found["notes"]:
        console.print(Text(f"note: {note}", "dim"), soft_wrap=True)


def rows(found: dict[str, Any]) -> list[list[str]]:
    """What was measured and its unit, then the figure of each variant."""
    plan, variants = found["plan"], list(found["variants"].values())
    table = [[f"prefill {n}, ms", *(spread(one["prefill_ms"][str(n)]) for one in variants)] for n in plan["prefill"]]
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


def _memory(memory: dict[str, Any] | None, key: str) -> str:
    return figure(memory["one_row"][key]) if memory else "not known"


def _share(share: float | None) -> str:
    return "batch 1 not measured" if share is None else f"{share:.0%}"
