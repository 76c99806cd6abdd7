"""What the generated pages' tables are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def machine_line(values: Mapping[str, Any]) -> str:
    """The machine and the versions that the figures come from, in one line."""
    machine = values["machine"]
    versions = machine["libraries"] | {f"{name} (peer)": version for name, version in values.get("peers", {}).items()}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured on {machine['cores']} cores of {machine['cpu']}, {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}; {listed}."
    )


def range_of(figures: Mapping[str, float], digits: int) -> str:
    """The median, and the range where it is seen at this precision."""
    median, low, high = (f"{figures[key]:.{digits}f}" for key in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"


def met(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; all columns but the first are of figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
