from __future__ import annotations

from typing import Any

import pytest
from gpt_export.bench.plan import BenchConfig, Plan, plan
from gpt_export.errors import ConfigError


def test_a_context_with_room_is_measured_as_asked() -> None:
    found = plan(BenchConfig(), 1024)
    assert found.prefill == (128, 512, 1024)
    assert found.growth == (32, 1000)
    assert (found.decode_context, found.new_tokens, found.notes) == (128, 32, ())


@pytest.mark.parametrize("context", range(2, 200))
def test_every_length_fits_the_context_and_every_cut_is_said(context: int) -> None:
    found = plan(BenchConfig(), context)
    assert max(found.prefill) <= context
    assert found.decode_context + found.new_tokens <= context
    assert max(found.growth) + found.growth_tokens <= context
    assert min(found.prefill + found.growth + (found.decode_context, found.new_tokens, found.growth_tokens)) >= 1
    cut = [length for length in (128, 512, 1024) if length > context]
    assert all(
        any(f"prefill {length} was cut from {length} to {context}" in note for note in found.notes) for length in cut
    )
    assert all(f"the context holds {context}" in note for note in found.notes)


def test_lengths_that_are_cut_to_the_same_are_measured_once() -> None:
    assert plan(BenchConfig(prefill=(8, 512, 1024)), 24).prefill == (8, 24)


def test_a_context_of_one_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="a context of 1 token has no room to decode in"):
        plan(BenchConfig(), 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prefill": (0,)}, "--prefill 0 is out of range; pass whole numbers of at least 1"),
        ({"prefill": ()}, "--prefill nothing is out of range"),
        ({"batches": (1, -1)}, "--batch 1,-1 is out of range"),
        ({"repeats": 0}, "--repeats 0 is out of range; pass a whole number of at least 1"),
        ({"threads": 0}, "--threads 0 is out of range"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BenchConfig(**settings)


def test_a_plan_survives_the_way_to_another_process() -> None:
    found = plan(BenchConfig(threads=2), 1024)
    assert Plan.from_dict(found.to_dict()) == found
