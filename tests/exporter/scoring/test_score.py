"""A corpus to its figures: the same whoever scores it, and whatever happens to them."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt_export import scoring
from gpt_export.errors import ArtifactError, ConfigError, InputError, OutputError
from gpt_export.runtime.session import Session
from gpt_export.scoring import folder as run_folder
from gpt_export.scoring.documents import Document

from tests.byte_gpt import CONTEXT
from tests.conftest import tree
from tests.exporter.scoring.conftest import exact_losses

Killing = Callable[[int], Callable[[Any], None]]
RNG = np.random.default_rng(0)
TEXTS = ["".join(map(chr, RNG.integers(32, 127, int(size)))) for size in RNG.integers(2, 130, 40)]
PARTS = {"part_tokens": 300}


def scored(artifact: Path, texts: Any = TEXTS, **said: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    scores = scoring.score(artifact, texts, **(PARTS | said))
    return list(scores), scores.summary()


@pytest.fixture(scope="module")
def plain(byte_original: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """By this process alone."""
    return scored(byte_original, engine="inline")


def test_losses_are_those_of_the_logits(byte_original: Path, plain: Any) -> None:
    session = Session.open(byte_original)
    documents, summary = plain
    expected = []
    for text in TEXTS:
        ids = list(text.encode())
        expected.append(sum(exact_losses(session, ids[at : at + CONTEXT]).sum() for at in range(0, len(ids), CONTEXT)))
    np.testing.assert_allclose([one["nll"] for one in documents], expected, rtol=1e-5)
    assert summary["nll"] == math.fsum(one["nll"] for one in documents)
    assert summary["scored"] == sum(len(text) - -(-len(text) // CONTEXT) for text in TEXTS)
    assert summary["perplexity"] == math.exp(summary["nll"] / summary["scored"])
    assert summary["perplexity_low"] < summary["perplexity"] < summary["perplexity_high"]
    assert [one["document"] for one in documents] == list(range(len(TEXTS)))


def test_a_stride_gives_each_token_its_window(byte_original: Path) -> None:
    session, ids = Session.open(byte_original), list("".join(TEXTS).encode())[:83]
    ((found,), _) = scored(byte_original, [ids], engine="inline", window=16, stride=6)
    expected = exact_losses(session, ids[:16]).sum()
    for start in range(6, len(ids), 6):
        window = ids[start : start + 16]
        if start + 10 < len(ids):
            expected += exact_losses(session, window)[9:].sum()
    assert found["nll"] == pytest.approx(expected, rel=1e-5)
    assert found["scored"] == len(ids) - 1


@pytest.mark.parametrize("workers", [1, 2])
def test_figures_are_the_same_by_any_number_of_processes(byte_original: Path, plain: Any, workers: int) -> None:
    assert scored(byte_original, iter(TEXTS), workers=workers) == plain


def test_figures_are_the_same_when_workers_are_killed(byte_original: Path, plain: Any, killing: Killing) -> None:
    assert scored(byte_original, workers=2, on_progress=killing(2)) == plain  # a third could meet the same document


def test_parts_do_not_change_a_long_document(byte_original: Path) -> None:
    text = "".join(TEXTS)
    ((whole,), _) = scored(byte_original, [text], engine="inline", part_tokens=100_000)
    ((parts,), summary) = scored(byte_original, [text], engine="inline", part_tokens=100)
    assert parts["nll"] == pytest.approx(whole["nll"], rel=1e-12)
    assert (parts["tokens"], parts["scored"], parts["bytes"]) == (whole["tokens"], whole["scored"], whole["bytes"])
    assert sum(n for _, n, _ in summary["loss_by_position"]) == parts["scored"]


def test_a_graph_without_a_cache_is_scored_without_padding(byte_uncached: Path, plain: Any) -> None:
    documents, _ = scored(byte_uncached, workers=2)
    np.testing.assert_allclose([d["nll"] for d in documents], [d["nll"] for d in plain[0]], rtol=1e-5)


def test_another_variant_is_compared_position_by_position(byte_variants: Path) -> None:
    documents, summary = scored(byte_variants, TEXTS[:5], engine="inline", variant="int8", against_variant="fp32")
    one, other = (Session.open(byte_variants, variant=name) for name in ("fp32", "int8"))
    ids = list(TEXTS[0].encode())[:CONTEXT]
    p, q = (exact_log_softmax(session, ids) for session in (one, other))
    alone, _ = scored(byte_variants, [ids], engine="inline", variant="int8", against_variant="fp32")
    assert alone[0]["kl_mean"] == pytest.approx((np.exp(p) * (p - q)).sum(axis=1).mean(), rel=1e-4)
    assert alone[0]["top1_agreement"] == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert summary["kl_max"] == max(one["kl_max"] for one in documents) == summary["worst_positions"][0]["kl"]
    assert summary["reference_nll"] == pytest.approx(
        scored(byte_variants, TEXTS[:5], engine="inline")[1]["nll"], rel=1e-5
    )
    assert len(summary["scatter"]) == sum(-(-(len(text) - 1) // CONTEXT) for text in TEXTS[:5])


def exact_log_softmax(session: Session, ids: list[int]) -> np.ndarray:
    logits = session.logits(np.array([ids]))[0, :-1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_the_eager_model_agrees_with_its_export(byte_original: Path) -> None:
    checkpoint = byte_original.parent / "checkpoint"
    said = {"against": str(checkpoint / "model.pth"), "source_options": {"config_file": checkpoint / "book.json"}}
    _, summary = scored(byte_original, TEXTS[:6], engine="inline", **said)
    assert summary["kl_max"] < 1e-9
    assert summary["top1_agreement"] == 1
    assert summary["reference_nll"] == pytest.approx(summary["nll"], rel=1e-6)


def test_what_cannot_be_scored_is_told_and_nothing_else_is_lost(byte_original: Path, plain: Any) -> None:
    def broken() -> Any:
        yield "a" * 100
        yield b"\xff".decode("utf-8")

    mixed: list[Any] = [*TEXTS]
    mixed[5:5] = ["", "a", [1, 999], Document(name="torn", blocks=broken), "\ud800"]
    documents, summary = scored(byte_original, mixed, engine="inline")
    faults = [one["fault"] for one in documents if "fault" in one]
    words = ["it is empty", "one token", "id 999 is outside", "not UTF-8", "not valid Unicode"]
    assert all(word in fault for word, fault in zip(words, faults, strict=True))
    assert (summary["failed"], summary["documents"]) == (5, 40)
    good = [one for one in documents if "fault" not in one]
    np.testing.assert_allclose([d["nll"] for d in good], [d["nll"] for d in plain[0]], rtol=1e-5)
    with pytest.raises(InputError, match="5 failed: it is empty; mend it, or leave --strict out"):
        scored(byte_original, mixed, engine="inline", strict=True)


def test_a_run_goes_on_where_it_stopped(byte_original: Path, plain: Any, tmp_path: Path) -> None:
    scores = iter(scoring.score(byte_original, TEXTS, engine="inline", folder=tmp_path / "run", **PARTS))
    next(scores)
    scores.close()  # type: ignore[attr-defined]
    parts = sorted((tmp_path / "run" / "parts").iterdir())
    assert 0 < len(parts) < 8
    times = [part.stat().st_mtime_ns for part in parts]
    assert scored(byte_original, engine="inline", folder=tmp_path / "run", resume=True) == plain
    assert [part.stat().st_mtime_ns for part in parts] == times


def test_a_finished_run_needs_no_worker(byte_original: Path, plain: Any, tmp_path: Path, monkeypatch: Any) -> None:
    assert scored(byte_original, engine="inline", folder=tmp_path / "run") == plain
    monkeypatch.setattr("gpt_export.scoring.crews.InlineCrew", None)
    assert scored(byte_original, engine="inline", folder=tmp_path / "run", resume=True) == plain


def test_results_of_another_run_are_not_touched(byte_original: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    scored(byte_original, engine="inline", folder=folder)
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    before = tree(folder)
    for where, said, words in (
        (folder, {}, "go on with --resume"),
        (folder, {"resume": True, "window": 16}, "another run, with .*window 40 instead of 16"),
        (folder, {"resume": True, "texts": TEXTS[::-1]}, "changed, or come in another order"),
        (other, {"resume": True}, "holds no run of gpt-export"),
        (other / "mine.txt", {}, "is a file"),
    ):
        with pytest.raises(OutputError, match=words):
            scored(byte_original, **{"engine": "inline", "folder": where, **said})
    assert tree(folder) == before
    with (
        run_folder.open_run(tmp_path / "busy", {}, resume=False),
        pytest.raises(OutputError, match="another run is wri"),
    ):
        run_folder.open_run(tmp_path / "busy", {}, resume=True).__enter__()


def test_a_full_disk_loses_nothing_that_was_done(byte_original: Path, plain: Any, tmp_path: Path) -> None:
    code = (
        "import json, resource, sys\nfrom gpt_export import scoring\n"
        "said = json.loads(sys.argv[3])\n"
        "scores = iter(scoring.score(sys.argv[1], folder=sys.argv[2], engine='inline', **said))\n"
        "next(scores)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n    list(scores)\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(byte_original),
            str(tmp_path / "run"),
            json.dumps({"documents": TEXTS} | PARTS),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.startswith("OutputError"), done.stdout + done.stderr
    assert "File too large; free space and go on with --resume" in done.stdout
    assert not [path for path in (tmp_path / "run").rglob("*") if "draft" in path.name]
    assert scored(byte_original, engine="inline", folder=tmp_path / "run", resume=True) == plain


SCORE = """
import json, sys
from pathlib import Path
from gpt_export import scoring
from gpt_export.scoring.corpus_score import score_into
said = json.loads(sys.argv[3])
scores = scoring.score(sys.argv[1], folder=sys.argv[2], workers=1, resume=True, **said)
score_into(scores, Path(sys.argv[2]), compared=False)
"""


def test_a_run_that_is_killed_three_times_ends_with_the_same_results(byte_original: Path, tmp_path: Path) -> None:
    said = json.dumps({"documents": TEXTS * 6} | PARTS)

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", SCORE, str(byte_original), str(folder), said], start_new_session=True
        )

    assert start(tmp_path / "whole").wait(100) == 0
    total = len(list((tmp_path / "whole" / "parts").iterdir()))
    parts, kills = tmp_path / "killed" / "parts", 0
    for aim in (1, total // 3, 2 * total // 3):
        process = start(tmp_path / "killed")
        while process.poll() is None and not (parts.exists() and len(list(parts.glob("part-*"))) >= aim):
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert start(tmp_path / "killed").wait(100) == 0
    assert tree(tmp_path / "killed").keys() == tree(tmp_path / "whole").keys()
    for name in ("documents.jsonl", "failed.jsonl", "summary.json", "score.html"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_memory_does_not_grow_with_the_corpus(byte_original: Path) -> None:
    code = (
        "import resource, sys\nfrom gpt_export import scoring\n"
        "texts = ('some words ' * 30 for _ in range(int(sys.argv[2])))\n"
        "for _ in (s := scoring.score(sys.argv[1], texts, engine='inline')): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, s.summary()['documents'])\n"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code, str(byte_original), str(count)], capture_output=True, text=True, check=True
        ).stdout.split()
        for count in (30, 600)
    ]
    assert [int(count) for _, count in found] == [30, 600]
    assert int(found[1][0]) < int(found[0][0]) + 40


def test_settings_that_do_not_go_together_are_refused(byte_original: Path) -> None:
    for said, kind, words in (
        ({"window": 41}, ConfigError, "does not fit into the context of 40"),
        ({"window": 10, "stride": 11}, ConfigError, "leaves out tokens between"),
        ({"against": "x", "against_variant": "int8"}, ConfigError, "one reference"),
        ({"against_variant": "fp32"}, ConfigError, "compared with itself"),
        ({"variant": "int3"}, ArtifactError, "no variant 'int3'"),
        ({"windows": 3}, ConfigError, "the settings of a score are"),
        ({"engine": "spark"}, ConfigError, "choose one of local, ray, inline"),
    ):
        with pytest.raises(kind, match=words):
            scoring.score(byte_original, TEXTS, **said)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no document"):
        scored(byte_original, [], engine="inline")
    with pytest.raises(InputError, match="none of 2 documents could be scored"):
        scored(byte_original, ["", "a"], engine="inline")


def test_ids_alone_score_ids_and_refuse_texts(ids_alone: Path, plain: Any) -> None:
    documents, _ = scored(ids_alone, [list(text.encode()) for text in TEXTS], engine="inline")
    assert [one["nll"] for one in documents] == [one["nll"] for one in plain[0]]
    with pytest.raises(InputError, match="none of 40 documents"):
        scored(ids_alone, engine="inline")


def test_a_damaged_artifact_is_refused_before_it_is_run(byte_original: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(byte_original, tmp_path / "copy"))
    (path,) = copy.rglob("*.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="is damaged"):
        scored(copy, engine="local", workers=1)


def test_a_scheduler_of_ones_own_gets_columns(byte_original: Path, plain: Any) -> None:
    scorer = scoring.BatchScorer(byte_original, **PARTS)
    found = scorer({"text": np.array([*TEXTS[:4], ""], dtype=object), "id": np.arange(5)})
    np.testing.assert_allclose(found["nll"][:4], [one["nll"] for one in plain[0][:4]], rtol=1e-5)
    assert found["fault"].tolist() == ["", "", "", "", "it is empty"]
    assert np.isnan(found["perplexity"][4])
    assert found["id"].tolist() == [0, 1, 2, 3, 4]
