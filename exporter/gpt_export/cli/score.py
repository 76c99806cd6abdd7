"""`gpt-export score`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gpt_export.cli.corpus_options import engine_of, engine_options, token_progress
from gpt_export.cli.errors import run_options
from gpt_export.cli.options import as_json, echo_json, source_options

DECISIVE = ("variant", "against", "against_variant", "window", "stride", "whole_windows")
"""Options that are fields of `ScoreSettings`."""


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--variant", help="Which of the artifact's graphs.  [default: the first of fp32, fp16, int8, int4]")
@click.option("--against", metavar="SOURCE", help="Compare with an eager model; needs torch.")
@click.option("--against-variant", metavar="VARIANT", help="Compare with another of the artifact's graphs.")
@click.option("--window", type=click.IntRange(2), metavar="N", help="Tokens seen at once.  [default: the context]")
@click.option("--stride", type=click.IntRange(1), metavar="N", help="Tokens between windows.  [default: the window]")
@click.option("--whole-windows", is_flag=True, help="Leave out what does not fill a window, as benchmarks do.")
@click.option("--field", default="text", show_default=True, help="Of JSON lines and Parquet, where the text is.")
@click.option("--ids", "as_ids", is_flag=True, help="Texts are token ids, in digits; fields are lists of ids.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep results there, as they come.")
@engine_options
@source_options
@run_options
def score(
    artifact: Path,
    texts: tuple[str, ...],
    field: str,
    as_ids: bool,
    output: Path | None,
    resume: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Measure the perplexity of the model in ARTIFACT on TEXTs, and how far it is from another.

    A TEXT is a file, a glob, a folder, JSON lines (.jsonl), Parquet, or - for standard input. Every text file is a
    document, and every line of JSON or row of Parquet. Documents that cannot be scored are told and left out.
    """
    from gpt_export.artifact.reading import Artifact  # onnxruntime is slow to import; --help must stay instant
    from gpt_export.errors import ConfigError
    from gpt_export.scoring.api import Scores
    from gpt_export.scoring.corpus_score import score_into
    from gpt_export.scoring.inputs import open_corpus
    from gpt_export.scoring.settings import ScoreSettings

    if resume and output is None:
        raise ConfigError("--resume goes on with what is in a folder; name it with --output")
    engine = engine_of(options)
    opened = Artifact.open(artifact)
    decisive = {name: options.pop(name) for name in DECISIVE}
    decisive["variant"] = opened.variant_name(decisive["variant"])
    source = {key: value for key, value in options.items() if value is not None}  # what is said of --against
    settings = ScoreSettings(**decisive, source_options=source)
    corpus = open_corpus(texts, field=field, as_ids=as_ids)
    with token_progress() as on_progress:
        scores = Scores(
            opened,
            corpus,
            settings,
            engine,
            folder=output,
            resume=resume,
            strict=strict,
            total_bytes=corpus.size_bytes,
            on_progress=on_progress,
        )
        summary = score_into(scores, output, compared=settings.compares)
    echo_json(summary) if as_json() else click.echo(_text(summary, output))


def _text(summary: dict[str, Any], output: Path | None) -> str:
    lines = [_line("perplexity", summary, "perplexity", ".3f") + _interval(summary)]
    lines.append(f"{'tokens':<16}{summary['scored']:,} scored of {summary['tokens']:,}")
    lines.append(f"{'loss':<16}{summary['nll'] / summary['scored']:.6f} nats a token, {summary['nll']:,.3f} in all")
    if summary["bits_per_byte"] is not None:
        lines.append(_line("bits a byte", summary, "bits_per_byte", ".4f"))
    lines.append(f"{'documents':<16}{summary['documents']:,} scored, {summary['failed']:,} failed")
    if "kl_mean" in summary:
        settings = summary["settings"]
        lines.append(f"beside {settings['against_variant'] or settings['against']}:")
        lines.append(_line("  perplexity", summary, "reference_perplexity", ".3f"))
        lines.append(f"{'  KL':<16}{summary['kl_mean']:.3g} nats in the mean, {summary['kl_max']:.3g} at most")
        lines.append(f"{'  same top-1':<16}{summary['top1_agreement']:.2%}")
        for one in summary["worst_positions"][:3]:
            lines.append(f"  KL {one['kl']:.3g} at token {one['token']} of {one['name']}: …{one['before'][-40:]!r}")
    if output is not None:
        lines.append(f"{output} has the documents, the summary and score.html")
    return "\n".join(lines)


def _line(label: str, summary: dict[str, Any], key: str, form: str) -> str:
    return f"{label:<16}{format(summary[key], form)}"


def _interval(summary: dict[str, Any]) -> str:
    low, high = summary["perplexity_low"], summary["perplexity_high"]
    return "" if low is None else f"  ({low:.3f} to {high:.3f}, 95 %, from {summary['interval_of']})"
