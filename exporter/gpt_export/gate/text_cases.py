"""Cases of real token sequences: the texts asked for, varied Unicode, and a corpus."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from gpt_export_models.tokenizer import encode_batch, pad

from gpt_export.errors import ConfigError, TextError
from gpt_export.gate.case import Case
from gpt_export.gate.settings import GateSettings
from gpt_export.sources.source import Source

logger = logging.getLogger(__name__)

SEED_TEXTS = ("Every effort moves you", "Every day holds a")
"""The book's batch; compared where the user passes no text."""
CORPUS_POSITIONS = {"default": 512, "full": 8192}
"""How much of `--text-file` is compared."""
ENOUGH_TOKENS = 64
"""Of the Unicode text, where nothing is judged by what it does to a text."""

UNICODE_TEXT = """\
The lighthouse keeper counted 1,024 waves before breakfast, then 17 more - "enough," she said; it wasn't.
北風吹過山谷，遠處傳來鐘聲。 猫は窓辺で静かに眠っている。 오늘은 바다가 유난히 잔잔합니다.
Привет, мир! Γειά σου Κόσμε. مرحبا بالعالم שלום עולם नमस्ते दुनिया
👩‍🚀🚀🌍 tiny steps 🐢💨 and 🏳️‍🌈 e\u0301 vs é, ﬁne print ½ ≠ ⅓, ∑ᵢ xᵢ² → ∞

def fold(xs, acc=0):
\tfor i, x in enumerate(xs):
\t\tacc += x ** 2 if i % 2 else -x  # sign flips
\treturn {"acc": acc, "n": len(xs)}


                                an indent of thirty-two spaces,   three   here,\t\ttabs\r
AAAAAAAAAAAAAAAAAAAAAAAA 0000000000000000 ---------------- ....... !!!
https://example.org/a?b=c&d=%20#top <p class="x">&amp;</p> {"k": [1, null, -2.5e-3]}
"""
"""Several scripts, emoji with joiners, code, long runs of spaces and of one letter: what short prompts never show."""


def text_cases(source: Source, settings: GateSettings, *, whole: bool = True) -> tuple[Case, ...]:
    """The texts of the settings, the Unicode text and the corpus, for a model with a tokenizer.

    Args:
        whole: whether all of the Unicode text is run.

    Raises:
        ConfigError: texts or a corpus were given for a model without a tokenizer.
        TextError: a text gives no token, or more than the context holds.
    """
    if source.tokenizer is None:
        if settings.texts is not None or settings.corpus is not None:
            raise ConfigError(
                f"{source.name} has a vocabulary of {source.vocab_size} and no tokenizer for it; leave texts out"
            )
        return ()
    cases = []
    try:
        ids, mask = encode_batch(settings.texts or SEED_TEXTS, source.context_length, tokenizer=source.tokenizer)
        cases.append(Case("text", ids, mask, "real token sequences", is_text=True))
    except TextError as error:  # a carried tokenizer need not know the default texts
        if settings.texts is not None:
            raise
        logger.info("the default texts are left out: %s", error)
    try:
        if tokens := source.tokenizer.encode(UNICODE_TEXT):
            kept = tokens if whole else _sampled(tokens)
            note = "" if len(kept) == len(tokens) else f"stands for {len(tokens)} tokens; the full set runs them all"
            cases.append(_windows("unicode", kept, source.context_length, "varied Unicode text", note))
    except TextError as error:
        logger.info("the Unicode text is left out: %s", error)
    if settings.corpus is not None:
        tokens = source.tokenizer.encode(settings.corpus)
        if not tokens:
            raise TextError("the text file gives no token; pass a file with text")
        kept = tokens[: max(CORPUS_POSITIONS["full" if settings.full else "default"], source.context_length)]
        note = "" if len(kept) == len(tokens) else f"the first {len(kept)} of {len(tokens)} tokens"
        cases.append(_windows("corpus", kept, source.context_length, "the text file", note))
    return tuple(cases)


def _sampled(tokens: Sequence[int]) -> Sequence[int]:
    """The first tokens of a text and the last, which are of another kind."""
    half = ENOUGH_TOKENS // 2
    return tokens if len(tokens) <= ENOUGH_TOKENS else [*tokens[:half], *tokens[-half:]]


def _windows(name: str, tokens: Sequence[int], context_length: int, reason: str, note: str = "") -> Case:
    """`tokens` cut to windows of the context, as a batch padded on the right."""
    rows = [tokens[start : start + context_length] for start in range(0, len(tokens), context_length)]
    ids, mask = pad(rows, pad_id=0)
    return Case(name, ids, mask.astype(np.int64), reason, note, is_text=True)
