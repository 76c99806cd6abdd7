"""A corpus in files to a folder of results and a page: what `gpt-export score` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt_export.scoring.api import Scores
from gpt_export.scoring.folder import write_text
from gpt_export.scoring.results import PAGE, result_files, write_summary


def score_into(scores: Scores, folder: Path | None, *, compared: bool) -> dict[str, Any]:
    """The summary of a score that is run to its end, its results written to `folder` if there is one.

    Raises:
        GptExportError: the run cannot go on. Parts that are done are kept, results of an earlier run are untouched.
    """
    if folder is None:
        for _ in scores:
            pass
        return scores.summary()
    documents = iter(scores)
    first = next(documents, None)  # the folder is checked and locked now
    if first is None:
        return scores.summary()
    with result_files(folder, compared=compared) as files:
        files.add(first)
        for told in documents:
            files.add(told)
    summary = scores.summary()
    write_summary(folder, summary)
    from gpt_export.scoring.page import score_html  # jinja2 is slow to import

    write_text(folder / PAGE, score_html(summary))
    return summary
