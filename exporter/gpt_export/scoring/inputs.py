"""What the user names, as documents: text files, globs, folders, JSON lines, Parquet, standard input."""

from __future__ import annotations

import codecs
import glob
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from gpt_export_models.regular_files import open_file

from gpt_export.errors import InputError
from gpt_export.scoring.documents import Document
from gpt_export.scoring.extras import parquet

BLOCK_BYTES = 1 << 18
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
TEXTS = (".txt", ".text", ".md")
"""What is read of a folder beside JSON lines and Parquet; a file that is named is read whatever it is called."""
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files in order, and how their texts are found in them."""

    paths: tuple[Path, ...]
    field: str = "text"
    as_ids: bool = False
    has_stdin: bool = False

    @property
    def size_bytes(self) -> int | None:
        """Bytes of all files, None where standard input is among them."""
        return None if self.has_stdin else sum(path.stat().st_size for path in self.paths if path.exists())

    def __iter__(self) -> Iterator[Document]:
        """The documents in order; each time it is asked for, from the beginning."""
        for path in self.paths:
            yield from self._of(path)
        if self.has_stdin:
            yield _text(STDIN, None, self.as_ids)

    def _of(self, path: Path) -> Iterator[Document]:
        if path.suffix in JSON_LINES:
            yield from json_lines(path, self.field, as_ids=self.as_ids)
        elif path.suffix in PARQUET:
            yield from parquet_rows(path, self.field, as_ids=self.as_ids)
        else:
            yield _text(str(path), path, self.as_ids)


def open_corpus(names: Iterable[str], *, field: str = "text", as_ids: bool = False) -> Corpus:
    """The corpus that the names say: files, globs, folders and `-`, in the order given, those of one name sorted.

    Args:
        field: of JSON lines and Parquet, where the text (or the ids) is.
        as_ids: whether the texts are ids in digits, and the fields lists of ids.

    Raises:
        InputError: there is nothing of that name.
    """
    paths: list[Path] = []
    has_stdin = False
    for name in names:
        if name == STDIN:
            has_stdin = True
            continue
        path = Path(name)
        if path.is_dir():
            wanted = (*TEXTS, *JSON_LINES, *PARQUET)
            found = sorted(one for one in path.rglob("*") if one.is_file() and one.suffix in wanted)
            what = f"{name} holds no file that ends in {', '.join(wanted)}"
        elif path.exists():
            found, what = [path], ""
        else:
            found = sorted(Path(one) for one in glob.glob(name, recursive=True) if Path(one).is_file())  # noqa: PTH207 - a pattern may be absolute
            what = f"there is no file {name}"
        if not found:
            raise InputError(f"{what}; name text files, JSON lines, Parquet, folders of them, or - for standard input")
        paths += found
    return Corpus(tuple(paths), field, as_ids, has_stdin)


def json_lines(path: Path, field: str, *, as_ids: bool = False) -> Iterator[Document]:
    """A document a line that is not blank, called `path:line`."""
    try:
        file = open_file(path)
    except OSError as error:
        yield Document.failed(str(path), f"it cannot be read: {error.strerror}")
        return
    with file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield json_document(f"{path}:{number}", line, field, as_ids=as_ids)


def json_document(name: str, line: bytes, field: str, *, as_ids: bool = False) -> Document:
    """The document in one JSON line; what is wrong with it is its fault, and no exception."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        return Document.failed(name, f"the line is not JSON in UTF-8: {error}", len(line))
    extra = value.get("id") if isinstance(value, dict) else None
    held = value.get(field) if isinstance(value, dict) else value if isinstance(value, str) else None
    if held is None:
        keys = f"has {', '.join(map(str, value))}" if isinstance(value, dict) and value else "is no object with fields"
        return Document.failed(name, f"the line has no field {field!r}, it {keys}; say which with --field", len(line))
    return _held(name, held, as_ids, len(line), extra)


def parquet_rows(path: Path, field: str, *, as_ids: bool = False) -> Iterator[Document]:
    """A document a row, called `path:row` from 0, read a thousand at a time.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    module = parquet(f"reading {path}")
    try:
        file = module.ParquetFile(path)
        names = file.schema_arrow.names
    except Exception as error:  # pyarrow's errors and the system's
        yield Document.failed(str(path), f"it cannot be read as Parquet: {' '.join(str(error).split())}")
        return
    if field not in names:
        fault = f"it has no column {field!r}, it has {', '.join(names)}; say which with --field"
        yield Document.failed(str(path), fault)
        return
    share = path.stat().st_size // max(1, file.metadata.num_rows)
    columns = [field, *(["id"] if "id" in names and field != "id" else [])]
    row = 0
    for batch in file.iter_batches(batch_size=1000, columns=columns):
        for values in batch.to_pylist():
            yield _held(f"{path}:{row}", values[field], as_ids, share, values.get("id"))
            row += 1


def _held(name: str, held: Any, as_ids: bool, size: int, extra: Any) -> Document:
    """The document of what a field holds."""
    if isinstance(held, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in held):
        return Document(name=name, ids=held, size_bytes=size, extra=extra)
    if not isinstance(held, str):
        return Document.failed(name, f"the field holds {type(held).__name__}, a text or a list of ids is wanted", size)
    if as_ids:
        return _ids_in(name, held, size, extra)
    return Document(name=name, blocks=lambda: iter((held,)), size_bytes=size, extra=extra)


def _ids_in(name: str, text: str, size: int, extra: Any = None) -> Document:
    words = text.replace(",", " ").split()
    if not all(word.isdecimal() and len(word) < 19 for word in words):
        return Document.failed(name, 'it is not a list of ids such as "1 2 3"', size)
    return Document(name=name, ids=[int(word) for word in words], size_bytes=size, extra=extra)


def _text(name: str, path: Path | None, as_ids: bool) -> Document:
    size = path.stat().st_size if path is not None and path.exists() else 0
    if not as_ids:
        return Document(name=name, blocks=lambda: _blocks(path), size_bytes=size)
    try:
        return _ids_in(name, "".join(_blocks(path)), size)
    except (OSError, UnicodeDecodeError) as error:
        return Document.failed(name, f"it cannot be read: {error}", size)


def _blocks(path: Path | None) -> Iterator[str]:
    """The text of a file, or of standard input, as it stands (no line end is changed), in blocks of UTF-8."""
    if path is None:
        yield from _decoded(sys.stdin.buffer)
        return
    with open_file(path) as file:
        yield from _decoded(file)


def _decoded(file: BinaryIO) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    read: Sequence[bytes] | Iterator[bytes] = iter(lambda: file.read(BLOCK_BYTES), b"")
    for block in chain(read, (b"",)):
        if text := decoder.decode(block, final=not block):
            yield text


def open_prompts(name: str, field: str) -> Corpus:
    """The corpus of a file of JSON lines or Parquet whose prompts are in `field`; a line is a prompt.

    Raises:
        InputError: there is no such file, or it is no JSON lines.
    """
    path = Path(name)
    if not path.is_file() or path.suffix not in (*JSON_LINES, *PARQUET):
        raise InputError(f"{name} is no file of prompts; name JSON lines ({', '.join(JSON_LINES)}) or Parquet")
    return Corpus((path,), field)
