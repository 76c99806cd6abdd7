"""A parity report for a person at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt_export.artifact.machine import in_words
from gpt_export.gate.report import CaseResult, ParityReport

WIDTH = 120
"""Columns of the report where there is no terminal to ask."""


MANY = 10
"""From this many times the limit on, the figure is a factor instead of a percentage."""


def print_report(report: ParityReport, what: str) -> None:
    """The verdict, a table of cases, the weights, the first fault and the notes, on stdout."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    verdict = Text("PASSED", "bold green") if report.passed else Text("FAILED", "bold red")
    console.print(verdict, what, sep="  ")
    for target, results in report.targets.items():
        console.print(_table(target, results))
    for name, note in sorted({(result.name, result.note) for found in report.targets.values() for result in found}):
        if note:
            console.print(Text(f"{name} {note}", "dim"))
    if weights := report.weights:
        equal = weights.checked - len(weights.mismatches)
        console.print(f"weights: {equal} of {weights.checked} equal bit for bit")
    if report.judged_against:
        console.print(Text(f"judged against {report.judged_against}"))
    if report.measured_on:
        console.print(Text(f"measured on {in_words(report.measured_on)}", "dim"))
    if fault := report.first_fault:
        console.print(Text(fault.explain(), "red"))
    for line in (*[f"FAILED {failure}" for failure in report.failures], *[f"note: {note}" for note in report.notes]):
        console.print(Text(line))


def _table(target: str, results: tuple[CaseResult, ...]) -> Table:
    table = Table(title=target, title_justify="left", box=None, pad_edge=False)
    table.add_column("case", no_wrap=True)
    for column in ("positions", "largest diff", "of limit", "SQNR dB", "mean KL", "top-1", "top-5", "perplexity"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for result in results:
        table.add_row(result.name, *_figures(result), style="" if result.passed else "red")
    return table


def _figures(result: CaseResult) -> list[str]:
    if result.fault:
        return ["", "", "", "", "", "", "", "", f"FAILED: {result.fault}"]
    perplexity = ""
    if result.reference_perplexity is not None and result.candidate_perplexity is not None:
        perplexity = f"{result.reference_perplexity:.6g} / {result.candidate_perplexity:.6g}"
    return [
        str(result.positions),
        f"{result.max_abs:.2e}",
        f"{result.strain:.1%}" if result.strain < MANY else f"{result.strain:.3g} x",
        "exact" if result.sqnr_db is None else f"{result.sqnr_db:.0f}",
        f"{result.kl_mean:.1e}",
        f"{result.top1_agreement:.1%}",
        f"{result.top5_agreement:.1%}",
        perplexity,
        "ok" if result.passed else "FAILED",
    ]
