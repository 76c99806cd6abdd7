"""A parity report as lines of text."""

from __future__ import annotations

from exporter.parity import ParityReport


def report_lines(report: ParityReport) -> list[str]:
    """One line a case, then the weights and the notes."""
    lines = []
    for target, results in report.targets.items():
        for result in results:
            verdict = "ok" if result.passed else "FAILED"
            note = f"  ({result.note})" if result.note else ""
            lines.append(
                f"  {target:<12} {result.name:<14} {verdict:<7} max {result.max_abs:<9.3g} "
                f"limit {result.limit:<9.3g} top-1 {result.top1_agreement:.1%}{note}"
            )
    if weights := report.weights:
        lines.append(
            f"  weights      {weights.checked - len(weights.mismatches)} of {weights.checked} equal bit for bit"
        )
    lines += [f"  note: {note}" for note in report.notes]
    return lines
