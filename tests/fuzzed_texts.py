"""Texts on which a tokenizer's ids are compared with tiktoken's, in Python and in JavaScript: one seeded list.

Left out is what the engines' regular expressions define differently, so that no answer is right for both: U+0085 and
U+FEFF (JavaScript's `\\s`), code points that are not assigned, lone surrogates, and texts that spell a special token.
"""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

COUNT = 12_000
EXCLUDED = frozenset("\x85\ufeff")
SPECIAL = "<|endoftext|>"

_SPACES = " \t\n\r\x0b\x0c\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "\u2019s", "''", "'", "'x")
_WORDS = ("every", "effort", "Moves", "YOU", "naïve", "Straße", "kjv", "x", "print", "O", "l'été", "日本語", "ß")
_SYMBOLS = (*".,()#@_—…€", "...", "!?", "->", "==", "\\n", "</s>", "<|", "|>", "``")
_DIGITS = ("0", "1", "42", "007", "3.14", "1e-5", "٣", "४२", "²", "½", "Ⅷ", "㉛", "\U0001d7d8")
_EMOJI = ("👩\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "👍🏽", "🇩🇪")
_MARKS = ("e\u0301", "o\u0308\u0323", "ก็", "नि", "한", "ﬁ", "\u200b", "\u2060", "\x00")
_BLOCKS = (
    (0x20, 0x7F),
    (0xA0, 0x250),
    (0x300, 0x370),
    (0x370, 0x530),
    (0x590, 0x700),
    (0x900, 0xE00),
    (0x2000, 0x2070),
    (0x2190, 0x2400),
    (0x3040, 0x3100),
    (0x4E00, 0x9000),
    (0xAC00, 0xD7A4),
    (0xE000, 0xE080),
    (0x1F300, 0x1F650),
)


def fuzzed_texts(count: int = COUNT, seed: int = 20_240) -> list[str]:
    """`count` texts of 1 to a few hundred characters, the same ones for one seed and one version of Unicode."""
    draw = random.Random(seed)
    kinds: tuple[Callable[[random.Random], str], ...] = (_anything, _of_a_block, _prose, _spaces, _mixture, _repeated)
    texts: list[str] = []
    while len(texts) < count:
        text = kinds[len(texts) % len(kinds)](draw)
        if text and SPECIAL not in text and not EXCLUDED & set(text):
            texts.append(text)
    return texts


@cache
def _assigned() -> Sequence[str]:
    """Every assigned code point but surrogates and private use (which would be most of them), by Python's Unicode."""
    chars = (chr(code) for code in range(sys.maxunicode + 1))
    return [char for char in chars if unicodedata.category(char) not in ("Cn", "Cs", "Co")]


def _anything(draw: random.Random) -> str:
    return "".join(draw.choices(_assigned(), k=draw.randint(1, 40)))


def _of_a_block(draw: random.Random) -> str:
    first, end = draw.choice(_BLOCKS)
    chars = [char for code in range(first, end) if unicodedata.category(char := chr(code)) != "Cn"]
    return "".join(draw.choices([*chars, " ", " "], k=draw.randint(1, 60)))


def _prose(draw: random.Random) -> str:
    words = (draw.choice(_WORDS) + draw.choice(("", "", "", *_CONTRACTIONS)) for _ in range(draw.randint(1, 15)))
    return draw.choice((" ", "  ", "\n", ", ", " \n")).join(words)


def _spaces(draw: random.Random) -> str:
    runs = ("".join(draw.choices(_SPACES, k=draw.randint(1, 5))) for _ in range(draw.randint(1, 6)))
    return "".join(run + draw.choice((*_WORDS, *_DIGITS, "", ".")) for run in runs)


def _mixture(draw: random.Random) -> str:
    parts = (*_WORDS, *_CONTRACTIONS, *_SYMBOLS, *_DIGITS, *_EMOJI, *_MARKS, *_SPACES)
    return "".join(draw.choices(parts, k=draw.randint(1, 25)))


def _repeated(draw: random.Random) -> str:
    part = draw.choice((*_WORDS, *_SYMBOLS, *_DIGITS, *_EMOJI, *_MARKS, draw.choice(_SPACES), draw.choice(_assigned())))
    return part * draw.randint(2, 60) + draw.choice(_WORDS)
