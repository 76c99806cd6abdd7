"""A lint report for people: a table for each file, the worst first."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gpt_export.linting.finding import Finding, Severity
from gpt_export.linting.report import FileReport, LintReport

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def print_report(report: LintReport, console: Console) -> None:
    """Prints each file with its findings, and the sum of them."""
    for file in report.files:
        console.print(_file(file), soft_wrap=False)
    if len(report.files) > 1 or report.findings:
        console.print(Text(_sum(report)))


def _file(file: FileReport) -> RenderableType:
    minimum = file.minimum_onnxruntime
    needs = f"needs onnxruntime {minimum} or newer" if minimum else "needs an onnxruntime newer than is known"
    head = Text.assemble((str(file.path), "bold"), (f"  {needs}", "dim"))
    if not file.findings:
        return Group(head, Text("  no findings"))
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False, expand=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for (severity, code, remedy), findings in groupby(
        file.findings, lambda each: (each.severity, each.code, each.remedy)
    ):
        style = _STYLES[severity]
        for finding in findings:
            table.add_row(Text(f"  {severity}", style), Text(code, style), _words(finding))
        table.add_row("", "", Text(f"→ {remedy}", "dim"))
    return Group(head, table)


def _words(finding: Finding) -> Text:
    return Text.assemble((f"{finding.consumer}: " if finding.consumer else "", "dim"), finding.message)


def _sum(report: LintReport) -> str:
    return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in report.counts.items())
