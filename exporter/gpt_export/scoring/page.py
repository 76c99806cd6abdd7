"""A score as one self-contained page: no script, no request, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from gpt_export.report import figures
from gpt_export.report.visible import printable, visible
from gpt_export.scoring import page_plots
from gpt_export.scoring.totals import BIN_NATS


def score_html(summary: Mapping[str, Any]) -> str:
    """The page of what `Scores.summary` gives."""
    settings = summary["settings"]
    reference = settings["against_variant"] or settings["against"]
    return (
        _templates()
        .get_template("score.html.jinja")
        .render(
            summary=summary,
            settings=settings,
            reference=reference,
            tiles=_tiles(summary, reference),
            by_document=page_plots.histogram(summary["loss_by_document"], BIN_NATS, "by-document"),
            by_position=page_plots.positions(summary["loss_by_position"], "by-position"),
            calibration=page_plots.calibration(summary["calibration"], "calibration-plot"),
            scatter=page_plots.scatter(summary["scatter"], "scatter-plot", (str(reference), settings["variant"]))
            if summary.get("scatter")
            else None,
        )
    )


def _tiles(summary: Mapping[str, Any], reference: str | None) -> list[tuple[str, str, str]]:
    low, high = summary["perplexity_low"], summary["perplexity_high"]
    interval = f"{low:.2f} to {high:.2f}, 95 %" if low is not None else "too little for an interval"
    tiles = [
        ("perplexity", f"{summary['perplexity']:.3f}", interval),
        ("loss", f"{summary['nll'] / summary['scored']:.4f}", "nats a token"),
        ("tokens", f"{summary['scored']:,}", f"scored of {summary['tokens']:,}"),
        ("documents", f"{summary['documents']:,}", f"{summary['failed']:,} failed"),
    ]
    if summary["bits_per_byte"] is not None:
        tiles.append(("bits a byte", f"{summary['bits_per_byte']:.4f}", "of the text in UTF-8"))
    if "kl_mean" in summary:
        tiles += [
            ("perplexity beside", f"{summary['reference_perplexity']:.3f}", str(reference)),
            ("KL divergence", figures.number(summary["kl_mean"]), f"nats, mean; {summary['kl_max']:.3g} at most"),
            ("same next token", figures.agreement(summary["top1_agreement"]), f"top-1, {reference}"),
        ]
    return tiles


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=ChoiceLoader([PackageLoader("gpt_export", "scoring"), PackageLoader("gpt_export", "report")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"number": figures.number, "visible": visible}
    return templates
