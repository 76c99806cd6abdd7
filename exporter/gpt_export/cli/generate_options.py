"""The options of `gpt-export generate`, group by group: what is continued, how tokens are chosen, when it ends."""

from __future__ import annotations

from pathlib import Path

import click

from gpt_export.cli.completion import complete_variant
from gpt_export.cli.errors import F

PROMPTS = (
    click.option(
        "--file",
        "prompt_file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="Read a prompt from a UTF-8 file, without the line end at its end.",
    ),
    click.option(
        "--interactive", is_flag=True, help="Go on line by line, the cache kept; Ctrl-C stops an answer, Ctrl-D ends."
    ),
    click.option("--ids", "as_ids", is_flag=True, help='Prompts are token ids, such as "15496 11"; so is what comes.'),
    click.option("--special", is_flag=True, help="Special tokens that a prompt spells are tokens, not text."),
    click.option(
        "--chat", is_flag=True, help="Each PROMPT is what a user says: put the model's chat template around it."
    ),
    click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Answers to each prompt."),
)
SAMPLING = (
    click.option(
        "--temperature",
        type=float,
        help="0 takes the likeliest token.  [default: 1 if another option is about draws, else 0]",
    ),
    click.option("--top-k", type=int, help="Draw from the K likeliest tokens.  [default: all]"),
    click.option("--top-p", type=float, help="Draw from the likeliest tokens that hold P of the probability."),
    click.option("--min-p", type=float, help="Draw from tokens at least P times as likely as the likeliest."),
    click.option(
        "--repetition-penalty",
        type=float,
        default=1.0,
        show_default=True,
        help="Divide the logits of tokens that are there already; above 1 repeats less.",
    ),
    click.option("--seed", type=click.IntRange(0), help="Seed of the draws.  [default: another each time]"),
)
ENDS = (
    click.option(
        "--max-new-tokens",
        type=click.IntRange(0),
        help="Tokens a prompt gets.  [default: 50, or what the context has room for]",
    ),
    click.option(
        "--stop",
        "stops",
        multiple=True,
        metavar="TEXT",
        help="Stop before this text or special token; with --ids, at this id. Repeatable.",
    ),
    click.option("--ignore-end-of-text", is_flag=True, help="Go on after the tokenizer's end-of-text token."),
)
RUNNING = (
    click.option(
        "--variant",
        shell_complete=complete_variant,
        help="Which of the artifact's graphs.  [default: the first of fp32, fp16, int8, int4]",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="Threads within an operator.  [default: onnxruntime's choice]"
    ),
)


def generate_options(command: F) -> F:
    """Adds every option above, in the order of the groups."""
    for option in reversed((*PROMPTS, *SAMPLING, *ENDS, *RUNNING)):
        command = option(command)
    return command
