"""An artifact's folder to prompts that are being continued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpt_export.errors import InputError
from gpt_export.runtime.chat import marked, open_chat
from gpt_export.runtime.generation import Generation, GenerationConfig
from gpt_export.runtime.session import Session


def open_generation(
    folder: Path,
    prompts: Sequence[str],
    config: GenerationConfig,
    *,
    variant: str | None = None,
    as_ids: bool = False,
    threads: int | None = None,
) -> Generation:
    """The generation from `prompts` by the artifact in `folder`, in its own tokenizer.

    Args:
        variant, threads: as in `Session.open`.
        as_ids: whether prompts and pieces are ids; the tokenizer is not asked for then.

    Raises:
        ArtifactError: the artifact is damaged or lacks the variant.
        InputError, TextError: as in `Generation`, or the artifact is for ids alone and the prompts are texts.
    """
    session = Session.open(folder, variant=variant, threads=threads)
    tokenizer = None if as_ids else session.tokenizer
    if tokenizer is None and not as_ids:
        raise InputError(f'{folder} has no tokenizer, it is for ids alone; pass ids, such as "1 2 3", with --ids')
    if config.chat:
        if tokenizer is None:
            raise InputError("a chat is text, and --ids says that prompts are ids; leave one of them out")
        typed = [prompt if config.special else marked(prompt, tokenizer.specials) for prompt in prompts]
        prompts = open_chat(folder, session.manifest).prompts(typed)
    return Generation(session, tokenizer, prompts, config)
