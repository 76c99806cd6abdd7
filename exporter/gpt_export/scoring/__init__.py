"""Corpora: what a model thinks of them, and how it goes on from them, on worker processes or on Ray.

    from gpt_export import scoring

    scores = scoring.score("artifacts/mine", texts, variant="int4")
    for found in scores:
        print(found["name"], found["perplexity"])
    print(scores.summary()["perplexity"])

`score` takes an iterator and is one; `BatchScorer` is a class for Ray Data's `map_batches`. Names are loaded on first
use, so that a worker that is told one thing imports one thing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt_export.scoring.api import BatchScorer, Scores, score
    from gpt_export.scoring.documents import Document
    from gpt_export.scoring.inputs import open_corpus
    from gpt_export.scoring.settings import EngineSettings, ScoreSettings

__all__ = ["BatchScorer", "Document", "EngineSettings", "ScoreSettings", "Scores", "open_corpus", "score"]

_HOMES = {
    "BatchScorer": "api",
    "Document": "documents",
    "EngineSettings": "settings",
    "ScoreSettings": "settings",
    "Scores": "api",
    "open_corpus": "inputs",
    "score": "api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
