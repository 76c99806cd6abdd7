"""Cases that step across the lengths at which a model does something new, and how those lengths are found."""

from __future__ import annotations

import numpy as np
import pytest
from gpt_export.gate.case import Case
from gpt_export.gate.turn_cases import BUDGET, LARGEST_BYTES, turn_cases
from gpt_export.passes.cache.turns import left_behind
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.graphs import source_and_graph
from gpt_export.sources.source import source_of_module
from numpy.typing import NDArray

import tests.zoo as zoo


def ids(row: int, length: int) -> NDArray[np.int64]:
    return np.random.default_rng(row).integers(0, 97, (1, length))


def ends(case: Case) -> set[int]:
    """Where pieces end, counted in tokens of the row that is padded most."""
    padding = int((case.mask == 0).sum(axis=1).max())
    return {stop - padding for _, stop in case.cuts()}


@pytest.mark.parametrize("turn", [2, 9, 22, 100, 512])
def test_the_tokens_around_a_turn_are_fed_alone_with_and_without_padding(turn: int) -> None:
    cases = {case.name: case for case in turn_cases((turn,), 1024, 97, ids)}
    assert {turn, turn + 1, turn + 2} <= ends(cases["pad-left-turns"])
    assert cases["pad-left-turns"].mask[-1, 0] == 0
    unpadded = {stop for _, stop in cases["pad-left-turns"].cuts()}
    assert {turn, turn + 1, turn + 2} <= unpadded


def test_a_large_piece_straddles_the_turn_and_small_ones_surround_it() -> None:
    cases = {case.name: case for case in turn_cases((100,), 1024, 97, ids)}
    pieces = cases["cache-turns-pieces"]
    (straddling,) = [(start, stop) for start, stop in pieces.cuts() if start < 100 < stop]
    assert straddling[1] - straddling[0] == 13
    assert pieces.chunks == (80, 5, 1, 1, 9, 1, 13)


def test_every_turn_is_crossed_in_one_text() -> None:
    for case in turn_cases((8, 16, 40), 64, 97, ids):
        assert case.ids.shape[1] > 43
        assert sum(case.chunks) == case.ids.shape[1]


@pytest.mark.parametrize("turn", [100, 512, 700, 1500, 4096])
def test_one_case_crosses_whatever_it_takes_and_more_only_within_the_budget(turn: int) -> None:
    cases = turn_cases((turn,), 8192, 97, ids)
    assert all(case.ids.shape[1] > turn + 2 for case in cases)
    assert len(cases) == 1 or sum(case.positions for case in cases) <= BUDGET
    assert (len(cases) == 1) == (turn >= 700)


def test_a_turn_that_no_memory_holds_is_named() -> None:
    vocab = LARGEST_BYTES // (4 * 1000)
    (*_, case) = turn_cases((20, 5000), 8192, vocab, ids)
    assert case.ids.shape[1] < 100
    assert "5000 is not reached" in case.note


@pytest.mark.parametrize("turns", [(), (1,), (64,), (65, 100)])
def test_what_lies_outside_of_the_context_takes_no_case(turns: tuple[int, ...]) -> None:
    assert turn_cases(turns, 64, 97, ids) == ()


def test_tokens_are_left_behind_where_a_window_begins_to_slide() -> None:
    distance = np.arange(30)[:, None] - np.arange(30)
    window = ((distance >= 0) & (distance < 9)).astype(float)
    blocks = ((distance >= 0) & (np.arange(30)[:, None] // 8 == np.arange(30) // 8)).astype(float)
    fading = np.where(distance >= 0, 10.0 ** (-20.0 * np.maximum(distance, 0)), 0)
    assert left_behind(window[None]) == {9}
    assert left_behind(blocks[None]) == {8}
    assert left_behind(np.stack([window, blocks])) == {8, 9}
    assert left_behind((distance >= 0)[None].astype(float)) == set()
    assert left_behind(fading[None]) == set()


@pytest.mark.parametrize(
    ("name", "turn"),
    [("window_everywhere", 9), ("window_alternating", 12), ("window_band_buffer", 16), ("speedrun_block_windows", 16)],
)
def test_the_pass_finds_the_windows_of_the_zoo(name: str, turn: int) -> None:
    animal = zoo.find(name)
    source = source_of_module(animal.make(), name=name, record={}, context_length=animal.context)
    assert turn in source_and_graph(source, ExportConfig(profile="portable"))[0].turns


def test_what_has_no_window_has_no_turn() -> None:
    animal = zoo.find("alibi_slopes")
    source = source_of_module(animal.make(), name="alibi", record={}, context_length=animal.context)
    assert source_and_graph(source, ExportConfig(profile="portable"))[0].turns == ()
