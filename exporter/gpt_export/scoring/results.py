"""What a run leaves for others to read: JSON lines and Parquet of the documents, the failures, the summary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gpt_export.scoring import extras
from gpt_export.scoring.folder import replacing, write_text

DOCUMENTS = "documents.jsonl"
TABLE = "documents.parquet"
FAILED = "failed.jsonl"
SUMMARY = "summary.json"
PAGE = "score.html"
GROUP = 10_000
"""Rows of a Parquet file that are held until they are written."""

_WHOLE, _REAL = "int64", "float64"
COLUMNS: Mapping[str, str] = {
    "document": _WHOLE,
    "name": "string",
    "tokens": _WHOLE,
    "scored": _WHOLE,
    "bytes": _WHOLE,
    "nll": _REAL,
    "perplexity": _REAL,
    "perplexity_low": _REAL,
    "perplexity_high": _REAL,
    "bits_per_byte": _REAL,
}
COMPARED: Mapping[str, str] = {
    "reference_nll": _REAL,
    "reference_perplexity": _REAL,
    "kl_mean": _REAL,
    "kl_max": _REAL,
    "top1_agreement": _REAL,
}


@contextmanager
def result_files(folder: Path, *, compared: bool) -> Iterator[ResultFiles]:
    """Files that documents are written to as they come; each takes its place when all have.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    with ExitStack() as stack:
        files = ResultFiles(folder, stack, compared)
        yield files
        files.end()


class ResultFiles:
    """Use `result_files`."""

    def __init__(self, folder: Path, stack: ExitStack, compared: bool) -> None:
        self._documents = stack.enter_context(_lines(folder / DOCUMENTS))
        self._failed = stack.enter_context(_lines(folder / FAILED))
        self._table = None
        if extras.has_parquet():
            columns = {**COLUMNS, **(COMPARED if compared else {})}
            self._table = stack.enter_context(_parquet_table(folder / TABLE, columns))

    def add(self, told: Mapping[str, Any]) -> None:
        """Writes what is told of a document."""
        if "fault" in told:
            self._failed.write(_line({**told, "reason": told["fault"]}, without="fault"))
            return
        self._documents.write(_line(told))
        if self._table:
            self._table.add(told)

    def end(self) -> None:
        """Writes what was held."""
        if self._table:
            self._table.end()


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Puts `summary.json` in place."""
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")


@contextmanager
def _lines(path: Path) -> Iterator[Any]:
    with replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
        yield file


@contextmanager
def _parquet_table(path: Path, columns: Mapping[str, str]) -> Iterator[_Table]:
    module = extras.parquet("Parquet")
    import pyarrow

    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in columns.items()])
    with replacing(path) as draft, module.ParquetWriter(draft, schema) as writer:
        yield _Table(writer, schema, pyarrow)


class _Table:
    """Rows on their way to a Parquet file, a group at a time."""

    def __init__(self, writer: Any, schema: Any, pyarrow: Any) -> None:
        self._writer, self._schema, self._pyarrow = writer, schema, pyarrow
        self._rows: list[dict[str, Any]] = []

    def add(self, told: Mapping[str, Any]) -> None:
        self._rows.append({name: told[name] for name in self._schema.names})
        if len(self._rows) == GROUP:
            self.end()

    def end(self) -> None:
        if self._rows:
            self._writer.write_table(self._pyarrow.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def _line(values: Mapping[str, Any], without: str = "") -> str:
    kept = {key: value for key, value in values.items() if key != without and not (key == "id" and value is None)}
    return json.dumps(kept) + "\n"


def read_lines(path: Path) -> Iterable[dict[str, Any]]:
    """The values of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
