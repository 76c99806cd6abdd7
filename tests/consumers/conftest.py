"""What the tests of other programs share: the record that the compatibility table is made from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

RECORD = "GPT_EXPORT_COMPATIBILITY"
"""The environment variable that names the file of the record; without it nothing is written."""

Record = Callable[..., None]


@pytest.fixture
def compatibility() -> Record:
    """Adds one outcome to the record: `compatibility(consumer=..., version=..., variant=..., outcome=...)`.

    `outcome` is `pass`, or the reason why the cell is not applicable, as a sentence without its full stop. Call it
    after the assertions: a test that fails leaves no line. `what` says what was run, in a few words.
    """

    def record(*, consumer: str, version: str, variant: str, outcome: str, what: str = "") -> None:
        if path := os.environ.get(RECORD):
            line = {"consumer": consumer, "version": version, "variant": variant, "outcome": outcome, "what": what}
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")

    return record
