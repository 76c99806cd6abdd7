"""Windows, and texts to ids piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from gpt_export.scoring.encoding import encode_blocks
from gpt_export.scoring.windows import windows
from gpt_export_models.carried_tokenizer import CarriedTokenizer
from gpt_export_models.tokenizer import Gpt2Tokenizer

from tests.byte_gpt import END, byte_tokenizer


def scored(length: int, window: int, stride: int, cuts: Sequence[int] = (), **said: bool) -> list[tuple[int, int]]:
    """Of every token that counts, its number and how many tokens stand before it in its window."""
    pieces = np.split(np.arange(length, dtype=np.int32), cuts)
    return [
        (int(one.ids[at]), at)
        for one in windows(pieces, window, stride, **said)
        for at in range(one.first, len(one.ids))
    ]


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 15, 16, 17, 40])
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_with_a_stride_below_the_window_every_token_but_the_first_counts_once(length: int, stride: int) -> None:
    found = scored(length, 8, stride)
    assert [token for token, _ in found] == list(range(1, length))
    assert all(before >= min(token, 8 - stride) for token, before in found)


def test_without_overlap_the_first_token_of_each_window_is_not_scored() -> None:
    assert [token for token, _ in scored(20, 8, 8)] == [t for t in range(20) if t % 8]


def test_whole_windows_leave_out_the_end() -> None:
    assert [token for token, _ in scored(20, 8, 8, whole_only=True)] == [t for t in range(16) if t % 8]
    assert scored(7, 8, 8, whole_only=True) == []
    assert len(scored(8, 8, 8, whole_only=True)) == 7


@pytest.mark.parametrize("stride", [2, 8])
def test_it_does_not_matter_in_which_pieces_the_ids_come(stride: int) -> None:
    whole = scored(37, 8, stride)
    for cuts in ([1], [8, 16], [7, 8, 9, 30], list(range(1, 37))):
        assert scored(37, 8, stride, cuts) == whole


TEXT = "In the beginning\nGod created  the heaven\n\n  and the earth.\r\nÄther, 語 and 🙂 words\nend " * 40


@pytest.mark.parametrize("tokenizer", [Gpt2Tokenizer(), CarriedTokenizer(byte_tokenizer(), END)], ids=lambda t: t.name)
def test_a_text_in_pieces_has_the_ids_of_the_whole(tokenizer: Gpt2Tokenizer) -> None:
    blocks = [TEXT[at : at + 97] for at in range(0, len(TEXT), 97)]
    pieces = list(encode_blocks(blocks, tokenizer, size=300))
    assert len(pieces) > 5
    assert [i for ids, _ in pieces for i in ids] == tokenizer.encode(TEXT)
    assert sum(size for _, size in pieces) == len(TEXT.encode())


class Whole(Gpt2Tokenizer):
    """A tokenizer that looks at the whole text: no cut is right."""

    def encode(self, text: str) -> list[int]:
        return [len(text)] if text else []


def test_where_no_cut_is_right_the_text_is_encoded_whole() -> None:
    assert list(encode_blocks([TEXT, TEXT], Whole(), size=100)) == [([2 * len(TEXT)], 2 * len(TEXT.encode()))]
