"""Failures speak of options on the command line, and of arguments in Python."""

from __future__ import annotations

from pathlib import Path

import gpt_export
import pytest
from gpt_export.errors import GptExportError
from gpt_export.wording import python_words

from tests import samples


@pytest.mark.parametrize(
    ("said", "in_python"),
    [
        (
            "x exists; replace it with --force, or choose another --output",
            "replace it with force=True, or choose another output",
        ),
        ("name it with --against and c.pt with --weights", "name it with against and c.pt with weights"),
        ("pass them as JSON with --config", "pass them as JSON with config_file"),
        ("let the export quantise it: --precision int8,int4", "quantise it: precisions=int8,int4"),
        ("beyond it; --no-cache keeps it all", "cache=False keeps it all"),
        ("run gpt-export generate --ids, or --batch", "run gpt-export generate --ids, or --batch"),
        ("a well--known thing - and --", "a well--known thing - and --"),
    ],
)
def test_options_become_arguments(said: str, in_python: str) -> None:
    assert in_python in python_words(said)


def test_nothing_of_the_front_door_says_force(tiny: Path, tmp_path: Path) -> None:
    sizes = {"context_length": samples.CONTEXT, "vocab_size": samples.VOCAB}
    failures = [
        lambda: gpt_export.export(samples.tiny_dummy(), tiny, **sizes),  # type: ignore[arg-type]
        lambda: gpt_export.export("gpt2-124m", tmp_path / "x", heads=3),
        lambda: gpt_export.validate(tiny),
        lambda: gpt_export.export("tests.samples:random_ids", tmp_path / "x"),
    ]
    for failing in failures:
        with pytest.raises(GptExportError) as caught:
            failing()
        assert " --" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(GptExportError, match="force=True"):
        failures[0]()
