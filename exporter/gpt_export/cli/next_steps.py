"""What to do with a fresh artifact: commands to copy, each of which works as it is printed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt_export_models.errors import GptExportError
from gpt_export_models.tokenizer import Tokenizer

from gpt_export.artifact.manifest import Manifest

PROMPTS = ("Every effort moves you", "Hello", "a", "0")
"""The first that the tokenizer has ids for, few enough for the context, is continued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The source as the user named it."""

    source: str
    config_file: Path | None = None
    heads: int | None = None
    weights: Path | None = None
    adapter: str | None = None
    base: Path | None = None
    lora_alpha: float | None = None

    def options(self) -> list[str]:
        """`--against` and what belongs to it, to name the same source to `gpt-export validate`."""
        words = ["--against", self.source]
        said = {
            "--weights": self.weights,
            "--config": self.config_file,
            "--heads": self.heads,
            "--adapter": self.adapter,
            "--base": self.base,
            "--lora-alpha": self.lora_alpha,
        }
        for option, value in said.items():
            words += [] if value is None else [option, str(value)]
        return words


def next_steps(shown: Path, manifest: Manifest, asked: Asked, tokenizer: Tokenizer | None) -> Iterator[str]:
    """The commands, one a line.

    Args:
        shown: the artifact's folder as the user named it.
        tokenizer: the artifact's.
    """
    folder = str(shown)
    made_again = manifest.source.get("kind") == "seeded" and "quantized_from" not in manifest.source
    again = [] if made_again else asked.options()
    yield shlex.join(["gpt-export", "validate", folder, *again])
    yield shlex.join(["gpt-export", "inspect", folder])
    if not manifest.variants:
        return
    prompt = _prompt(tokenizer, int(manifest.model["context_length"]))
    if manifest.model["head"]["of"] == "tokens":
        yield shlex.join(["gpt-export", "generate", folder, *(["--ids", "0"] if prompt is None else [prompt])])
        yield shlex.join(["gpt-export", "serve", folder])
        yield shlex.join(["gpt-export", "bench", folder])
    code = f"Session.open({folder!r})"
    if prompt is None or manifest.model["head"]["of"] != "tokens":
        code = f"{code}.logits([[0]]).shape"
    else:
        code = f"''.join({code}.text('{prompt}'))"
    yield f"python -c {_quoted(f'from gpt_export import Session; print({code})')}"


def _quoted(code: str) -> str:
    """`code` as one word of a shell, in double quotes where nothing in it means more than itself there."""
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'


def _prompt(tokenizer: Tokenizer | None, context_length: int) -> str | None:
    for prompt in PROMPTS if tokenizer else ():
        assert tokenizer is not None
        try:
            count = len(tokenizer.encode(prompt))
        except GptExportError:
            continue
        if 0 < count <= max(1, context_length // 2):
            return prompt
    return None
