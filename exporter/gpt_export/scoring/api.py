"""Scoring from Python: documents in, results out, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from gpt_export_models.scratch import scratch_folder

from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ConfigError, InputError
from gpt_export.runtime.session import head_of
from gpt_export.runtime.tokenizing import open_tokenizer
from gpt_export.scoring.crews import open_crew
from gpt_export.scoring.dispatch import Crew
from gpt_export.scoring.documents import Document, documents_of
from gpt_export.scoring.folder import RunFolder, open_run
from gpt_export.scoring.plan import Planner
from gpt_export.scoring.progress import OnProgress, ignore_progress
from gpt_export.scoring.run import PartRun
from gpt_export.scoring.scoring_job import ScoringJob
from gpt_export.scoring.scoring_work import ScoringSetup
from gpt_export.scoring.settings import PART_TOKENS, PART_WINDOWS, EngineSettings, ScoreSettings
from gpt_export.scoring.totals import Totals


class Scores:
    """A corpus being scored. Iterate over it for what each document cost; `summary` then tells of all.

    A document that could not be scored comes as a mapping with its `fault`.
    """

    def __init__(
        self,
        artifact: Artifact,
        documents: Iterable[str | Sequence[int] | Document],
        settings: ScoreSettings,
        engine: EngineSettings,
        *,
        folder: Path | None = None,
        resume: bool = False,
        strict: bool = False,
        total_bytes: int | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Checks everything that can be checked before the first document. Use `score`."""
        model = artifact.manifest.model
        for variant in (settings.variant, settings.against_variant):
            if variant is not None:
                artifact.variant_path(variant)
        head = head_of(artifact.manifest)
        if head.of != "tokens" or head.positions != "all":
            raise InputError(f"{artifact.folder} does not give the logits of every position, so a text has no loss")
        window, stride = settings.for_context(int(model["context_length"]))
        self._artifact, self._documents, self._settings, self._engine = artifact, documents, settings, engine
        self._folder, self._resume, self._strict = folder, resume, strict
        self._total_bytes, self._on_progress = total_bytes, on_progress
        self.tokenizer = open_tokenizer(artifact.folder, artifact.manifest)
        self._planner = Planner(
            tokenizer=self.tokenizer,
            vocab_size=int(model["vocab_size"]),
            window=window,
            stride=stride,
            whole_windows=settings.whole_windows,
            part_tokens=settings.part_tokens or max(PART_TOKENS, PART_WINDOWS * window),
        )
        self.totals = Totals()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """What each document cost, in order: see `docs/corpora.md` for the fields.

        Raises:
            GptExportError: the run cannot go on; what is done is in the folder.
        """
        self.totals = Totals()
        with self._open_folder() as folder:
            run = PartRun(
                ScoringJob(self._planner, documents_of(self._documents), self._padded),
                folder,
                strict=self._strict,
                total_bytes=self._total_bytes,
                on_progress=self._on_progress,
            )
            for record in run.records(self._crew):
                yield from self.totals.add(record)

    def summary(self) -> dict[str, Any]:
        """What all documents cost, in JSON values.

        Raises:
            InputError: there was no text, or none could be scored.
        """
        if not self.totals.documents:
            what = f"none of {self.totals.failed} documents" if self.totals.failed else "there is no text: no document"
            raise InputError(f"{what} could be scored; name UTF-8 texts of at least two tokens")
        return {"settings": self.record(), **self.totals.to_dict()}

    def record(self) -> dict[str, Any]:
        """What decides the figures, in JSON values."""
        settings = self._settings.to_dict() | {"window": self._planner.window, "stride": self._planner.stride}
        settings["part_tokens"] = self._planner.part_tokens
        manifest = self._artifact.manifest
        return {"kind": "score", "artifact": manifest.name, "digest": manifest.to_dict()["digest"], **settings}

    @property
    def _padded(self) -> bool:
        """Whether windows of unlike length may be side by side: graphs with a cache have a mask, a module need not."""
        graphs = [name for name in (self._settings.variant, self._settings.against_variant) if name is not None]
        masked = all(self._artifact.manifest.variants[name]["cache"] for name in graphs)
        return masked and self._settings.against is None

    @contextmanager
    def _open_folder(self) -> Iterator[RunFolder]:
        if self._folder is not None:
            with open_run(self._folder, self.record(), resume=self._resume) as run:
                yield run
            return
        with (
            scratch_folder("gpt-export-score-") as made,
            open_run(made, self.record(), resume=False) as run,
        ):
            yield run

    def _crew(self) -> AbstractContextManager[Crew]:
        settings = self._settings

        def setup(threads: int, prepack: bool) -> ScoringSetup:
            return ScoringSetup(
                artifact=self._artifact.folder.resolve(),
                variant=settings.variant,
                against=settings.against,
                against_variant=settings.against_variant,
                source_options=settings.source_options,
                threads=threads,
                prepack=prepack,
            )

        return open_crew(self._artifact, (settings.variant, settings.against_variant), self._engine, setup)


def score(
    artifact: str | Path | Artifact,
    documents: Iterable[str | Sequence[int] | Document],
    *,
    engine: EngineSettings | str = "local",
    workers: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    on_progress: OnProgress = ignore_progress,
    **settings: Any,
) -> Scores:
    """The scores of documents: iterate for each one's, then ask for `summary()`.

        for found in (scores := scoring.score("artifacts/mine", texts, against_variant="int4")):
            print(found["name"], found["perplexity"])
        scores.summary()["perplexity"]

    Args:
        artifact: a folder, or an opened artifact.
        documents: texts, rows of ids, or `Document`s; read as they are needed, and once.
        engine: `local` for worker processes, `ray`, `inline` for this process, or `EngineSettings`.
        workers: how many, unless the engine's settings say so.
        folder: where parts are kept, so that a run that died can be resumed; a temporary one if left out.
        resume: go on with the run that is in the folder.
        strict: raise at the first document that cannot be scored.
        settings: fields of `ScoreSettings`.

    Raises:
        ArtifactError: there is no such artifact or variant.
        ConfigError, InputError: a setting is out of range, or the artifact scores no texts.
    """
    opened = artifact if isinstance(artifact, Artifact) else Artifact.open(artifact)
    try:
        chosen = ScoreSettings(**({"variant": opened.variant_name()} | settings))
    except TypeError as error:
        known = ", ".join(ScoreSettings.__dataclass_fields__)
        raise ConfigError(f"{error}; the settings of a score are {known}") from error
    return Scores(
        opened,
        documents,
        chosen,
        engine if isinstance(engine, EngineSettings) else EngineSettings(engine=engine, workers=workers),  # type: ignore[arg-type]
        folder=None if folder is None else Path(folder),
        resume=resume,
        strict=strict,
        on_progress=on_progress,
    )


class BatchScorer:
    """One worker for whoever has a scheduler already: `dataset.map_batches(BatchScorer, fn_constructor_kwargs=...)`.

    A batch is a mapping of columns, as Ray Data gives it; it comes back with `tokens`, `scored`, `nll` and `perplexity`
    for each text, and a `fault` where there is no figure.
    """

    def __init__(
        self, artifact: str | Path, *, field: str = "text", threads: int | None = None, **settings: Any
    ) -> None:
        """Opens the artifact; see `score` for the settings."""
        self._artifact = Artifact.open(artifact)
        self._field = field
        self._settings = ScoreSettings(**({"variant": self._artifact.variant_name()} | settings))
        self._engine = EngineSettings(engine="inline", threads=threads or 1, workers=1)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its figures."""
        import numpy as np

        texts = [one if isinstance(one, str) else [int(i) for i in one] for one in batch[self._field]]
        rows = list(Scores(self._artifact, texts, self._settings, self._engine))
        columns: dict[str, Any] = {
            key: np.array([row.get(key, 0) for row in rows], dtype=np.int64) for key in ("tokens", "scored")
        }
        for key in ("nll", "perplexity", "bits_per_byte"):
            columns[key] = np.array([row.get(key) if row.get(key) is not None else np.nan for row in rows])
        columns["fault"] = np.array([row.get("fault") or "" for row in rows], dtype=object)
        return dict(batch) | columns
