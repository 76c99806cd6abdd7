"""A conversation as the text that a model was trained on: its chat template, filled in a process of its own.

A template is a program that came with somebody's checkpoint. It runs in jinja2's sandbox, which keeps it from the
attributes of Python's objects, and in a child process with little time and memory, which stops one that loops.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_export_models.problems import some
from gpt_export_models.tokenizer_files import (
    chat_template_in,
    content_of,
    is_tokenizers,
    settings_in,
)

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError, TextError

_OPEN, _CLOSE = "\U0010fffc", "\U0010fffd"
"""Marks around what a user typed; code points for private use, the last ones."""
SECONDS = 10.0
"""How long a template may take; one that is meant well takes a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat template, and the special tokens that it may name."""

    folder: Path
    template: str
    tokens: Mapping[str, str]

    def prompts(self, said: Sequence[str]) -> tuple[str, ...]:
        """For each text the conversation in which a user says it, up to where the model answers.

        Raises:
            TextError: the template fails, asks for what it may not have, or does not end.
        """
        chats = [[{"role": "user", "content": text}] for text in said]
        return tuple(self._rendered({"template": self.template, "tokens": self.tokens, "chats": chats}))

    def _rendered(self, asked: Mapping[str, Any]) -> list[str]:
        command = [sys.executable, "-m", "gpt_export.runtime.chat_child"]
        try:
            run = subprocess.run(
                command, input=json.dumps(asked), capture_output=True, text=True, timeout=SECONDS, encoding="utf-8"
            )
        except subprocess.TimeoutExpired as error:
            raise TextError(self._refusal(f"takes more time than it may, {SECONDS:g} seconds")) from error
        if run.returncode or not run.stdout:
            raise TextError(self._refusal("takes more time or more memory than it may"))
        answer = json.loads(run.stdout)
        if "error" in answer:
            raise TextError(self._refusal(f"fails: {some([answer['error']])}"))
        return [str(text) for text in answer["texts"]]

    def _refusal(self, why: str) -> str:
        return (
            f"the chat template of {self.folder} {why}; leave --chat out, and write the prompt with --special yourself"
        )


def open_chat(folder: str | Path, manifest: Manifest | None = None) -> Chat:
    """The chat template of the artifact in `folder`. Its files are verified first.

    Raises:
        ArtifactError: there is no such artifact, a file is damaged, or there is no template.
    """
    artifact = Artifact.open(folder) if manifest is None else Artifact(Path(folder), manifest)
    names = [name for name in artifact.manifest.files if is_tokenizers(name)]
    artifact.verify(names)
    files = {name: artifact.folder / name for name in names}
    template = chat_template_in(files)
    if template is None:
        raise ArtifactError(
            f"{folder} has no chat template; leave --chat out, or write the prompt with --special yourself"
        )
    tokens = {
        key: text
        for values in reversed(settings_in(files))
        for key, value in values.items()
        if key.endswith("_token") and (text := content_of(value)) is not None
    }
    return Chat(Path(folder), template, tokens)


def marked(text: str, specials: Iterable[str]) -> str:
    """`text` with every special token that it spells between marks, so that a template can go around it."""
    known = sorted(specials, key=len, reverse=True)
    plain = unmarked(text)
    if not known:
        return plain
    return re.sub("|".join(map(re.escape, known)), lambda found: f"{_OPEN}{found[0]}{_CLOSE}", plain)


def unfolded(text: str) -> list[tuple[str, bool]]:
    """The parts of a marked text, and whether special tokens in them are tokens: not where they were typed."""
    parts = []
    for i, part in enumerate(text.split(_OPEN)):
        typed, closed, rest = part.partition(_CLOSE)
        parts += [(typed, False), (rest, True)] if i and closed else [(part, True)]
    return parts


def unmarked(text: str) -> str:
    """`text` without marks."""
    return text.replace(_OPEN, "").replace(_CLOSE, "")
