"""Correct models pass: random decoders of many shapes and weight scales, each exported and judged by the default gate.

A dozen run always; `GPT_EXPORT_SLOW=1` (which `.ci/run` sets) runs all fifty.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gpt_export.errors import ParityError
from gpt_export.pipeline import stages
from gpt_export.pipeline.config import ExportConfig

from tests.mutations.good import random_good_model, random_shape

MODELS = 50
FAST = (0, 3, 7, 11, 14, 19, 22, 27, 33, 38, 41, 46)
CHOSEN = range(MODELS) if os.environ.get("GPT_EXPORT_SLOW") else FAST


@pytest.mark.parametrize("i", CHOSEN)
def test_a_correct_model_passes(i: int, tmp_path: Path) -> None:
    source, described = random_good_model(i)
    try:
        stages.export(source, ExportConfig(), tmp_path / "artifact")
    except ParityError as error:
        pytest.fail(f"false alarm on {described}: {error}")


def test_the_fifty_are_as_varied_as_promised() -> None:
    sizes = [random_shape(i) for i in range(MODELS)]
    assert max(config.emb_dim for config, _ in sizes) == 768
    assert min(config.emb_dim for config, _ in sizes) < 32
    assert {config.n_layers for config, _ in sizes} >= {1, 12}
    assert len({config.n_heads for config, _ in sizes}) >= 6
    assert min(spread for _, spread in sizes) < 0.022
    assert max(spread for _, spread in sizes) > 0.19
