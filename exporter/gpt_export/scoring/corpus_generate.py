"""A file of prompts to a file of continuations: what `gpt-export generate --prompts` does."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gpt_export_models.regular_files import OBJECT_BYTES, read_text

from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ConfigError, InputError, OutputError
from gpt_export.runtime.generation import USUAL_NEW_TOKENS, GenerationConfig, Stops
from gpt_export.runtime.session import head_of
from gpt_export.runtime.tokenizing import open_tokenizer
from gpt_export.scoring.continuing_work import ContinuingSetup, sampling_of
from gpt_export.scoring.crews import open_crew
from gpt_export.scoring.documents import Document
from gpt_export.scoring.folder import RUN, open_run, remove_run, replacing
from gpt_export.scoring.progress import OnProgress, ignore_progress
from gpt_export.scoring.prompts import PART_PROMPTS, PromptJob
from gpt_export.scoring.run import PartRun
from gpt_export.scoring.settings import EngineSettings

BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueSettings:
    """What decides the continuations of a file of prompts.

    Raises:
        ConfigError: a value is out of range.
    """

    variant: str = "fp32"
    config: GenerationConfig
    as_ids: bool = False
    log_probabilities: bool = False
    batch: int = BATCH
    """Prompts that are continued side by side."""
    part_prompts: int = PART_PROMPTS

    def __post_init__(self) -> None:
        for name in ("batch", "part_prompts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} is out of range; pass at least 1")


@dataclass(frozen=True, slots=True)
class Written:
    """What a run has left."""

    lines: int
    failed: int
    tokens: int


def generate_into(
    artifact: Artifact,
    documents: Iterable[Document],
    output: Path,
    settings: ContinueSettings,
    engine: EngineSettings,
    *,
    resume: bool = False,
    strict: bool = False,
    total_bytes: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Written:
    """Writes a line for each prompt to `output`, in their order; parts are beside it until all are done.

    Raises:
        OutputError: the output is there, or cannot be written.
        InputError: there is no prompt, a setting is out of range, or the model continues no texts.
    """
    folder = output.with_name(f"{output.name}.run")
    if output.exists():
        raise OutputError(f"{output} is there already; choose another --output, or remove it")
    settings = replace(settings, config=_seeded(settings.config, folder, resume))
    job = _job(artifact, documents, settings)
    record = _record(artifact, settings)
    with open_run(folder, record, resume=resume) as run_folder:
        run = PartRun(job, run_folder, strict=strict, total_bytes=total_bytes, on_progress=on_progress)

        def setup(threads: int, prepack: bool) -> ContinuingSetup:
            return ContinuingSetup(
                artifact=artifact.folder.resolve(),
                variant=settings.variant,
                config=settings.config,
                seed=settings.config.seed or 0,
                batch=settings.batch,
                log_probabilities=settings.log_probabilities,
                as_ids=settings.as_ids,
                threads=threads,
                prepack=prepack,
            )

        written = _write(run.records(lambda: open_crew(artifact, (settings.variant,), engine, setup)), output)
    if not written.lines:
        output.unlink(missing_ok=True)
        remove_run(folder)
        raise InputError("there is no prompt; give JSON lines with a field `prompt`")
    remove_run(folder)
    return written


def failed_path(output: Path) -> Path:
    """Where the prompts are told that could not be continued."""
    return output.with_name(f"{output.stem}.failed.jsonl")


def _write(records: Iterator[dict[str, Any]], output: Path) -> Written:
    lines = failed = tokens = 0
    with ExitStack() as stack:
        to = stack.enter_context(stack.enter_context(replacing(output)).open("w", encoding="utf-8"))
        faults = None
        for record in records:
            for document in record["documents"]:
                out = document["out"]
                to.write(json.dumps(out) + "\n")
                lines, tokens = lines + 1, tokens + out["tokens"]
                if document["fault"]:
                    failed += 1
                    if faults is None:
                        draft = stack.enter_context(replacing(failed_path(output)))
                        faults = stack.enter_context(draft.open("w", encoding="utf-8"))
                    told = {"index": out["index"], "name": document["name"], "reason": document["fault"]}
                    faults.write(json.dumps(told) + "\n")
    return Written(lines, failed, tokens)


def _job(artifact: Artifact, documents: Iterable[Document], settings: ContinueSettings) -> PromptJob:
    model = artifact.manifest.model
    artifact.variant_path(settings.variant)
    if head_of(artifact.manifest).of == "classes":
        raise InputError(f"{artifact.manifest.name} scores classes and no next token, so it cannot continue a text")
    tokenizer = None if settings.as_ids else open_tokenizer(artifact.folder, artifact.manifest)
    sampling_of(settings.config)
    Stops.of(settings.config, tokenizer, int(model["vocab_size"]))
    if tokenizer is None and not settings.as_ids:
        raise InputError(f"{artifact.folder} has no tokenizer, it is for ids alone; pass lists of ids, with --ids")
    asked = settings.config.max_new_tokens
    return PromptJob(
        documents=documents,
        tokenizer=tokenizer,
        vocab_size=int(model["vocab_size"]),
        context_length=int(model["context_length"]),
        batch=settings.batch,
        new_tokens=USUAL_NEW_TOKENS if asked is None else asked,
        part_prompts=settings.part_prompts,
    )


def _record(artifact: Artifact, settings: ContinueSettings) -> dict[str, Any]:
    manifest = artifact.manifest
    return {"kind": "generate", "artifact": manifest.name, "digest": manifest.to_dict()["digest"], **asdict(settings)}


def _seeded(config: GenerationConfig, folder: Path, resume: bool) -> GenerationConfig:
    """The settings with a seed: that of the run which goes on, or one that is drawn now."""
    if config.seed is not None:  # an option about draws, so tokens are drawn, as `Session.generate` has it
        return replace(config, temperature=1.0) if config.temperature is None else config
    if resume and (folder / RUN).exists():
        try:
            found = json.loads(read_text(folder / RUN, largest=OBJECT_BYTES))["config"]["seed"]
        except (OSError, ValueError, KeyError, TypeError):  # `open_run` says what is wrong with it
            found = 0
        return replace(config, seed=found)
    return replace(config, seed=secrets.randbits(63))
