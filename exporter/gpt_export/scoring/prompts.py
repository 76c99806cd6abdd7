"""Continuing prompts as a job: lines in, lines out, in their order."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpt_export_models.errors import TextError
from gpt_export_models.tokenizer import Tokenizer, encode

from gpt_export.scoring.continuing_work import Prompt
from gpt_export.scoring.documents import Document
from gpt_export.scoring.piece import Piece

PART_PROMPTS = 1024
"""Prompts whose continuations are written together: what is lost when a run is killed."""
PIECE_BATCHES = 4
"""A worker gets so many batches of prompts at a time, whose rows make room for each other."""


@dataclass(slots=True, kw_only=True)
class Line:
    """A line of the input."""

    number: int
    name: str
    extra: Any
    text: str | None = None
    ids: tuple[int, ...] = ()
    fault: str | None = None
    input_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class PromptPart:
    """Lines that are written together."""

    number: int
    lines: list[Line] = field(default_factory=list)

    def names(self) -> list[str]:
        """What its lines are called."""
        return [line.name for line in self.lines]

    def digest(self) -> str:
        """SHA-256 of everything that is continued here."""
        found = hashlib.sha256()
        for line in self.lines:
            found.update(f"{line.number} {line.fault} {','.join(map(str, line.ids))}\n".encode())
        return found.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptJob:
    """See `run.Job`."""

    documents: Iterable[Document]
    tokenizer: Tokenizer | None
    vocab_size: int
    context_length: int
    batch: int
    new_tokens: int
    """What a prompt gets at most, for the progress."""
    part_prompts: int = PART_PROMPTS

    def parts(self) -> Iterator[PromptPart]:
        """See `Job.parts`."""
        numbered, behind = enumerate(self.documents), 0
        for number in itertools.count():
            part = PromptPart(number=number)
            for place, document in itertools.islice(numbered, self.part_prompts):
                behind += document.size_bytes
                part.lines.append(self._line(place, document, behind))
            if not part.lines:
                return
            yield part

    def pieces(self, part: PromptPart) -> Iterator[Piece]:
        """See `Job.pieces`: prompts of about one length together."""
        prompts = [Prompt(number=line.number, ids=line.ids) for line in part.lines if not line.fault]
        prompts.sort(key=lambda prompt: (len(prompt.ids), prompt.number))
        size = self.batch * PIECE_BATCHES
        for at in range(0, len(prompts), size):
            taken = prompts[at : at + size]
            yield Piece(part=part.number, rows=taken, documents=tuple(prompt.number for prompt in taken))

    def size(self, part: PromptPart) -> tuple[int, int]:
        """See `Job.size`."""
        return self.new_tokens * sum(not line.fault for line in part.lines), part.lines[-1].input_bytes

    def done_tokens(self, row: Prompt, result: Any) -> int:  # noqa: ARG002 - as many as was expected, for the share
        """See `Job.done_tokens`."""
        return self.new_tokens

    def record(self, part: PromptPart, found: Mapping[Any, Any]) -> dict[str, Any]:
        """See `Job.record`."""
        return {
            "part": part.number,
            "digest": part.digest(),
            "documents": [_told(line, found.get((line.number, 0))) for line in part.lines],
        }

    def _line(self, number: int, document: Document, behind: int) -> Line:
        name = document.name.encode("utf-8", "replace").decode()
        line = Line(number=number, name=name, extra=document.extra, fault=document.fault, input_bytes=behind)
        try:
            if document.ids is not None:
                line.ids = tuple(document.ids)
                line.fault = self._fault_of(line.ids)
            elif document.blocks is not None:
                line.text = "".join(document.blocks())
                if self.tokenizer is None:
                    line.fault = "it is a text, and the artifact is for ids alone"
                else:
                    line.ids = tuple(encode(line.text, self.context_length, self.tokenizer))
        except TextError as error:
            line.text, line.fault = None, str(error)
        except UnicodeDecodeError as error:
            line.fault = f"it is not UTF-8: {error.reason}"
        return line

    def _fault_of(self, ids: tuple[int, ...]) -> str | None:
        if not ids:
            return "it is empty"
        if len(ids) > self.context_length:
            return f"it has {len(ids)} ids, the context is {self.context_length}"
        if wrong := [one for one in ids if not 0 <= one < self.vocab_size]:
            return f"id {wrong[0]} is outside the vocabulary; ids run from 0 to {self.vocab_size - 1}"
        return None


def _told(line: Line, found: Any) -> dict[str, Any]:
    """The line of the output, and beside it what the run wants to know: `name`, `fault`, `ends`."""
    fault = line.fault or (found if isinstance(found, str) else None)
    out: dict[str, Any] = {"index": line.number}
    if line.extra is not None:
        out["id"] = line.extra
    out["prompt"] = list(line.ids) if line.text is None and line.ids else line.text
    if fault:
        out |= {"text": None, "ids": [], "tokens": 0, "finish_reason": "failed", "reason": fault}
    else:
        ids = list(found.ids)
        out |= {"text": found.text, "ids": ids, "tokens": len(ids), "finish_reason": found.finish_reason}
        if found.log_probabilities is not None:
            out["log_probabilities"] = list(found.log_probabilities)
    return {"name": line.name, "fault": fault, "ends": True, "out": out}
