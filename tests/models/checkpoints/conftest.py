from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from gpt_export_models.checkpoints import read_checkpoint
from gpt_export_models.errors import CheckpointError


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Reads a checkpoint that must be refused, and gives the one line that the user sees."""

    def read(path: Path, config_file: Path | None = None) -> str:
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path, config_file=config_file)
        text = str(caught.value)
        assert caught.value.exit_code == 1
        assert "\n" not in text
        assert len(text) < 2500
        return text

    return read
