"""The sample output of the README is what the command prints, but for figures that the processor decides."""

from __future__ import annotations

import re
from pathlib import Path

from gpt_export.artifact.manifest import read_manifest

from benches.readme_doc import PAGE, sample, sample_of


def masked(text: str) -> str:
    """The text without shares of limits: other processors round otherwise."""
    return re.sub(r"\d+%(?= of the limit)", "N%", text)


def test_the_sample_is_up_to_date(artifact_124m: Path) -> None:
    made, shown = sample(read_manifest(artifact_124m)), sample_of(PAGE.read_text("utf-8"))
    assert masked(shown) == masked(made), "run python -m benches.readme_doc"
    assert "artifacts/dummy-124m/report.html" in shown


def test_another_count_of_cases_would_be_seen(artifact_124m: Path) -> None:
    made = sample(read_manifest(artifact_124m))
    assert masked(made.replace(" cases", "1 cases")) != masked(made)
