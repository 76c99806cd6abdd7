"""The page, the tables and the command's text of a score."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.conftest import Run, tree

Cli = Callable[..., Run]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "<script>alert(1)</script>.txt".replace("/", "_")).write_text("a text of some <b>words</b> " * 9)
    (tmp_path / "in" / "b.txt").write_text("another text")
    (tmp_path / "in" / "c.txt").write_bytes(b"\xff")
    return tmp_path / "in"


def test_a_score_leaves_tables_and_a_page(cli: Cli, byte_variants: Path, corpus: Path, tmp_path: Path) -> None:
    args = ("score", byte_variants, corpus, "--variant", "int8", "--against-variant", "fp32", "--workers", 1)
    run = cli(*args, "--output", tmp_path / "out", "--json")
    summary = run.json()
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    lines = [json.loads(line) for line in (tmp_path / "out" / "documents.jsonl").read_text().splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "out" / "documents.parquet").to_pylist()
    assert table == lines
    assert [line["name"].rpartition("/")[2] for line in lines] == ["<script>alert(1)<_script>.txt", "b.txt"]
    (failed,) = (tmp_path / "out" / "failed.jsonl").read_text().splitlines()
    assert json.loads(failed)["reason"].startswith("it is not UTF-8")
    page = (tmp_path / "out" / "score.html").read_text()
    assert "<script" not in page
    assert not re.search(r"https?://|src=|url\(|@import", page)
    for words in (
        "Loss by document",
        "Loss by position in the window",
        "Calibration",
        "int8 beside fp32",
        "furthest apart",
    ):
        assert words in page
    assert page.count("<svg") == 4
    again = cli(*args, "--output", tmp_path / "again", "--json")
    assert again.out == run.out
    assert tree(tmp_path / "again")["score.html"] == page.encode()


def test_the_command_tells_perplexity_and_divergence(cli: Cli, byte_variants: Path, corpus: Path) -> None:
    run = cli("score", byte_variants, corpus, "--variant", "int8", "--against-variant", "fp32", "--workers", 1)
    assert run.code == 0, run.err
    for words in ("perplexity", "bits a byte", "2 scored, 1 failed", "beside fp32:", "same top-1", "at token"):
        assert words in run.out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["no.txt"], 2, "there is no file"),
        (["in", "--resume"], 2, "--resume goes on with what is in a folder"),
        (["in", "--ray-address", "127.0.0.1:1"], 2, "--ray-address is for --engine ray"),
        (["in", "--engine", "ray", "--ray-address", "127.0.0.1:1"], 1, "no Ray cluster at 127.0.0.1:1 can be had"),
        (["in", "--engine", "ray", "--ray-address", "here"], 1, "is not the address of a Ray cluster"),
        (["in", "--strict", "--workers", "1"], 2, "it is not UTF-8"),
        (["in/c.txt", "--workers", "1"], 2, "none of 1 documents could be scored"),
    ],
)
def test_bad_input_is_one_sentence(
    cli: Cli,
    byte_original: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(corpus.parent)
    cli("score", byte_original, *args).refused(code, words)
