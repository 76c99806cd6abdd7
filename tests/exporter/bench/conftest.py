from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gpt_export.bench.plan import BenchConfig
from gpt_export.bench.run import benchmark


@pytest.fixture(scope="session")
def found(byte_original: Path) -> dict[str, Any]:
    """What the bench says of a small GPT with a context of 40 tokens."""
    return benchmark(byte_original, (), BenchConfig(repeats=2, threads=1, batches=(1, 3)), bandwidth_bytes=2**22)
