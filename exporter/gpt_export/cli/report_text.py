"""A parity report for a person at a terminal. It fits 80 columns, and the verdict leads every line that has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt_export.artifact.machine import in_words
from gpt_export.cli.publish_text import codes_words
from gpt_export.cli.width import columns
from gpt_export.gate.report import CaseResult, ParityReport, target_words

WIDTH = 100
"""Columns of the tables in a pipe."""
WIDE = 110
"""From so many columns on, there is room for every measure."""
MANY = 10
"""From this many times the limit on, the figure is a factor instead of a percentage."""
CORE = ("positions", "of limit", "largest diff", "mean KL", "top-1")
MORE = ("SQNR dB", "top-5", "perplexity")


def print_report(report: ParityReport, what: str, *, verbose: bool = False) -> None:
    """The verdict, what failed first, the worst case of each file, what else was found, on stdout.

    Args:
        what: what was compared.
        verbose: show every case and every failure.
    """
    known = columns()
    width = known or WIDTH
    console = Console(highlight=False, width=width)
    console.print(_verdict(report.passed, "PASSED", "FAILED"), Text(what), sep="  ", soft_wrap=known is None)
    for line in _failures(report, verbose=verbose):
        console.print(line, soft_wrap=known is None)
    for target, results in report.targets.items():
        console.print(_heading(target, results))
        console.print(_table(results if verbose else shown(results), wide=width >= WIDE))
    for line in _findings(report, verbose=verbose):
        console.print(line, soft_wrap=known is None)


def shown(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The worst case: of those that failed, or of all, the one that used most of what it is allowed."""
    worst = max(results, key=lambda result: (not result.passed, result.strain), default=None)
    return [] if worst is None else [worst]


def _failures(report: ParityReport, *, verbose: bool) -> Iterator[Text]:
    """Where the graph leaves the model, and the first failure or all of them."""
    if fault := report.first_fault:
        yield Text(fault.explain(), "red")
    told = report.failures if verbose else report.failures[:1]
    yield from (Text(f"FAILED {failure}") for failure in told)
    if more := len(report.failures) - len(told):
        yield Text(f"and {more} more; --verbose shows every case")


def _findings(report: ParityReport, *, verbose: bool) -> Iterator[Text]:
    if weights := report.weights:
        equal = weights.checked - len(weights.mismatches)
        stored = " that are not quantised" if report.quantized else ""
        mark = _verdict(weights.passed, "passed", "FAILED")
        yield Text.assemble(mark, f"  weights: {equal} of {weights.checked}{stored} equal bit for bit")
    for variant, found in report.quantized.items():
        passed = not any(fault.startswith(f"{variant}, ") for fault in report.faults)
        mark = _verdict(passed, "passed", "FAILED")
        yield Text.assemble(mark, f"  {variant} codes: {codes_words(found)}")
    if report.judged_against:
        yield Text(f"judged against {report.judged_against}")
    if report.measured_on:
        yield Text(f"measured on {in_words(report.measured_on)}", "dim")
    yield from (Text(f"note: {note}") for note in report.notes)
    named = {(result.name, result.note) for found in report.targets.values() for result in found if result.note}
    yield from (Text(f"note: {name} {note}", "dim") for name, note in sorted(named) if verbose)
    if not verbose and len(report.failures) < 2:
        yield Text("--verbose shows every case", "dim")


def _heading(target: str, results: Sequence[CaseResult]) -> Text:
    positions = sum(result.positions for result in results)
    failed = sum(not result.passed for result in results)
    count = f"{len(results)} cases" if not failed else f"{failed} of {len(results)} cases failed"
    mark = _verdict(not failed, "passed", "FAILED")
    return Text.assemble("\n", mark, f"  {target_words(target)}: {count}, {positions} positions")


def _table(results: Sequence[CaseResult], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True, min_width=6)
    table.add_column("case", no_wrap=True)
    for column in (*CORE, *(MORE if wide else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        mark = Text("ok") if result.passed else Text("FAILED", "bold red")
        table.add_row(mark, result.name, *_figures(result, wide=wide), style="" if result.passed else "red")
    return table


def _figures(result: CaseResult, *, wide: bool) -> list[str]:
    if result.fault:
        return ["not run"]
    figures = [
        str(result.positions),
        f"{result.strain:.1%}" if result.strain < MANY else f"{result.strain:.3g} x",
        f"{result.max_abs:.1e}" if result.max_abs else "0",
        f"{result.kl_mean:.1e}" if result.kl_mean else "0",
        f"{result.top1_agreement:.1%}",
    ]
    if wide:
        figures += ["exact" if result.sqnr_db is None else f"{result.sqnr_db:.0f}", f"{result.top5_agreement:.1%}"]
        figures.append(_perplexity(result))
    return figures


def _perplexity(result: CaseResult) -> str:
    if result.reference_perplexity is None or result.candidate_perplexity is None:
        return ""
    return f"{result.reference_perplexity:.5g} / {result.candidate_perplexity:.5g}"


def _verdict(passed: bool, good: str, bad: str) -> Text:
    return Text(good, "bold green") if passed else Text(bad, "bold red")
