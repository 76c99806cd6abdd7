"""What the user names, as documents."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from gpt_export.errors import ConfigError, InputError
from gpt_export.scoring import extras
from gpt_export.scoring.inputs import open_corpus


def told(*names: object, **said: Any) -> list[tuple[str, Any]]:
    """Of each document its name, and its text, ids or fault."""
    return [
        (one.name.rpartition("/")[2], one.fault or (one.ids if one.blocks is None else "".join(one.blocks())))
        for one in open_corpus(map(str, names), **said)
    ]


def test_files_folders_and_globs_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, text in (
        ("b.txt", "two\r\n"),
        ("a.txt", "one"),
        ("in/c.md", "three"),
        ("in/d.bin", "no"),
        ("e", "named"),
    ):
        (tmp_path / name).write_bytes(text.encode())
    assert told(tmp_path) == [("a.txt", "one"), ("b.txt", "two\r\n"), ("c.md", "three")]
    assert told(tmp_path / "e", tmp_path / "*.txt") == [("e", "named"), ("a.txt", "one"), ("b.txt", "two\r\n")]


def test_lines_of_json_are_documents_and_wrong_ones_are_faults(tmp_path: Path) -> None:
    lines = [b'{"text": "one", "id": 7}', b"", b'{"words": "x"}', b"{", b'"plain"', b'{"text": 3}', b'{"text": [1, 2]}']
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([*lines, b'{"text": "\xff"}']))
    found = told(tmp_path / "x.jsonl")
    assert [name for name, _ in found] == [f"x.jsonl:{i}" for i in (1, 3, 4, 5, 6, 7, 8)]
    assert [what for _, what in found if "plain" in what or what in ("one", [1, 2])] == ["one", "plain", [1, 2]]
    assert found[1][1] == "the line has no field 'text', it has words; say which with --field"
    assert "not JSON" in found[2][1]
    assert "holds int" in found[4][1]
    assert "not JSON in UTF-8" in found[6][1]
    assert told(tmp_path / "x.jsonl", field="words")[1][1] == "x"
    assert next(iter(open_corpus([str(tmp_path / "x.jsonl")]))).extra == 7


def test_rows_of_parquet_are_documents(tmp_path: Path) -> None:
    rows = [{"text": "one", "id": 1}, {"text": None, "id": 2}, {"text": "three", "id": 3}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"no")
    found = told(tmp_path)
    assert [what for _, what in found][:3] == [
        "one",
        "the field holds NoneType, a text or a list of ids is wanted",
        "three",
    ]
    assert "cannot be read as Parquet" in found[3][1]
    assert "it has text, id; say which with --field" in told(tmp_path / "x.parquet", field="words")[0][1]


def test_standard_input_is_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("ä text".encode())))
    assert told("-") == [("-", "ä text")]
    assert open_corpus(["-"]).size_bytes is None


def test_ids_are_read_in_digits(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1 2,3\n4")
    (tmp_path / "y.txt").write_text("1 two")
    assert [what for _, what in told(tmp_path, as_ids=True)] == [
        [1, 2, 3, 4],
        'it is not a list of ids such as "1 2 3"',
    ]


def test_a_character_on_the_edge_of_a_block_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt_export.scoring.inputs.BLOCK_BYTES", 1)
    (tmp_path / "x.txt").write_text("ä語🙂", encoding="utf-8")
    assert told(tmp_path / "x.txt") == [("x.txt", "ä語🙂")]
    (tmp_path / "x.txt").write_bytes("ä".encode()[:1])
    (document,) = open_corpus([str(tmp_path / "x.txt")])
    with pytest.raises(UnicodeDecodeError):
        list((document.blocks or iter)())  # type: ignore[operator]


def test_nothing_of_that_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*x; name text files"):
        open_corpus([str(tmp_path / "x")])
    with pytest.raises(InputError, match="holds no file that ends in"):
        open_corpus([str(tmp_path)])


def test_what_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(extras, "import_module", missing)
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"--engine ray needs ray, which is not installed; .*'gpt-export\[ray\]'"):
        extras.ray("--engine ray")
    with pytest.raises(ConfigError, match=r"'gpt-export\[parquet\]'"):
        extras.parquet("reading x.parquet")
    assert not extras.has_parquet()
    with pytest.raises(ConfigError, match="make cluster needs ray"):
        extras.needs("ray", "make cluster", "ray")


def test_sizes_of_the_input_add_up(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": "t" * i}) + "\n" for i in range(9)))
    corpus = open_corpus([str(tmp_path)])
    assert sum(one.size_bytes for one in corpus) == corpus.size_bytes
