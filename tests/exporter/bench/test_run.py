from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpt_export.bench import run
from gpt_export.bench.bandwidth import largest_cache_bytes, measure_bandwidth
from gpt_export.bench.bytes_read import bytes_per_token
from gpt_export.bench.plan import BenchConfig
from gpt_export.bench.plot import check_plot, page, svg, write_plot
from gpt_export.bench.run import benchmark, roofline
from gpt_export.bench.table import best_columns, print_benchmark, rows
from gpt_export.errors import ArtifactError, OutputError

from tests.byte_gpt import CONFIG, CONTEXT
from tests.conftest import Run
from tests.test_imports import PACKAGES, belongs_any, imports, reached


def numbers(values: Any) -> Iterator[float]:
    """Every number in JSON values."""
    if isinstance(values, dict):
        for value in values.values():
            yield from numbers(value)
    elif isinstance(values, int | float):
        yield values


def test_every_figure_is_there_and_positive(found: dict[str, Any]) -> None:
    values = found["variants"]["fp32"]
    assert set(values) == {
        "decode_tok_s", "growth", "load_s", "memory", "prefill_ms", "profile", "roofline", "size_bytes"
    }  # fmt: skip
    assert list(values["prefill_ms"]) == [str(CONTEXT)]
    assert list(values["decode_tok_s"]) == ["1", "3"]
    assert len(values["growth"]["step_ms"]) == 2
    figures = list(numbers(values))
    assert all(math.isfinite(figure) and figure > 0 for figure in figures)
    for spread in (values["load_s"], *values["prefill_ms"].values(), *values["decode_tok_s"].values()):
        assert spread["min"] <= spread["median"] <= spread["max"]


def test_what_was_cut_to_the_context_is_said(found: dict[str, Any]) -> None:
    assert f"prefill 1024 was cut from 1024 to {CONTEXT} tokens: the context holds {CONTEXT}" in found["notes"]


def test_memory_is_that_of_one_row_and_of_everything(found: dict[str, Any]) -> None:
    used = found["variants"]["fp32"]["memory"]
    assert used["interpreter_anon_mb"] < used["one_row"]["peak_anon_mb"]
    assert used["one_row"]["peak_anon_mb"] < used["one_row"]["peak_rss_mb"] <= used["all"]["peak_rss_mb"]


LET_GO = """
import json
from gpt_export.bench import memory

with memory.peak() as result:
    block = bytearray(b"x") * 80_000_000
    before = memory.now()
    del block
print(json.dumps([result, before, memory.now()]))
"""


def test_the_peak_sees_memory_that_is_let_go() -> None:
    # In a process of its own: in a large one a block that was let go may stay with the allocator.
    done = subprocess.run([sys.executable, "-c", LET_GO], capture_output=True, text=True, check=True)
    result, before, after = json.loads(done.stdout)
    if before is None or after is None:
        pytest.skip("memory is read from /proc, which this system does not have")
    assert result["peak_anon_mb"] >= before["anon_mb"] * 0.99
    assert after["anon_mb"] < before["anon_mb"] - 70  # so that a reading at the end would not have seen it


def test_the_roofline_is_bandwidth_over_the_bytes_that_were_counted(found: dict[str, Any], byte_original: Path) -> None:
    values, bandwidth = found["variants"]["fp32"], found["bandwidth"]
    counted = bytes_per_token(byte_original / "onnx" / "model.onnx")
    ceiling = bandwidth["gb_s"] * 1e9 / counted
    assert values["roofline"]["tok_s"] == pytest.approx(ceiling, rel=1e-3)
    share = values["decode_tok_s"]["1"]["median"] / ceiling
    assert values["roofline"]["share"] == pytest.approx(share, abs=1e-4)
    width, layers = CONFIG["emb_dim"], CONFIG["n_layers"]
    tokens = found["plan"]["decode_context"] + found["plan"]["new_tokens"] // 2
    assert values["roofline"]["cache_mb"] == pytest.approx(2 * layers * width * 4 * tokens / 1e6, abs=1e-3)


def test_the_roofline_of_known_figures() -> None:
    values = {"decode_tok_s": {"1": {"median": 45.0}}}
    found = roofline(values, 500_000_000, 100_000_000, {"gb_s": 30.0})
    assert (found["tok_s"], found["share"], found["share_with_cache"]) == (60.0, 0.75, 0.9)
    assert roofline({"decode_tok_s": {"4": {}}}, 5, 1, {"gb_s": 30.0})["share"] is None


def test_bandwidth_tells_method_and_threads() -> None:
    found = measure_bandwidth(2, 2**22)
    assert found["gb_s"] > 0
    assert (found["threads"], found["array_mb"]) == (2, 4)
    assert found["method"]


def test_the_largest_cache_is_read_where_linux_tells_it(tmp_path: Path) -> None:
    assert largest_cache_bytes(tmp_path) == 0
    for index, size in (("index0", "48K"), ("index3", "2048K")):
        (tmp_path / index).mkdir()
        (tmp_path / index / "size").write_text(f"{size}\n")
    assert largest_cache_bytes(tmp_path) == 2**21


def test_each_variant_runs_in_a_process_of_its_own(byte_original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.sys, "executable", "/bin/false")
    with pytest.raises(ArtifactError, match=r"the process that measured fp32 of .* ended: exit code 1; run gpt-export"):
        benchmark(byte_original, (), BenchConfig(repeats=1), bandwidth_bytes=2**20)


def test_a_failure_in_the_process_is_the_same_sentence(tiny: Path) -> None:
    (tiny / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match="onnxruntime cannot load"):
        benchmark(tiny, (), BenchConfig(repeats=1, batches=(1,)), bandwidth_bytes=2**20)


def test_a_graph_without_a_cache_is_measured_and_said(byte_uncached: Path) -> None:
    found = benchmark(byte_uncached, (), BenchConfig(repeats=1, batches=(2,)), bandwidth_bytes=2**20)
    assert "fp32 has no cache: every step runs all tokens again" in found["notes"]
    assert found["variants"]["fp32"]["roofline"]["share"] is None
    assert ["of the roofline", "batch 1 not measured"] in rows(found)


def test_the_table_shows_every_variant_and_note(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_benchmark(found)
    out = capsys.readouterr().out
    assert f"fp32 ({found['variants']['fp32']['profile']})" in out
    assert all(row[0] in out for row in rows(found))
    told = " ".join(out.split())
    assert all(" ".join(note.split()) in told for note in found["notes"])


def test_the_best_of_each_row_is_marked(found: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    slow = copy.deepcopy(found["variants"]["fp32"])
    slow["decode_tok_s"]["1"]["median"] /= 2
    slow["prefill_ms"][str(CONTEXT)]["median"] *= 2
    both = found | {"variants": {"fp32": found["variants"]["fp32"], "slow": slow}}
    best = dict(zip((row[0] for row in rows(both)), best_columns(both), strict=True))
    assert (best["decode, batch 1, tok/s"], best[f"prefill {CONTEXT}, ms"]) == (0, 0)
    assert best["file, MB"] is best["of the roofline"] is None  # alike, and no matter of better
    print_benchmark(both)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line for line in lines if line.startswith("decode, batch 1")).count("*") == 1


def test_a_busy_machine_is_said(byte_original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "others_load", lambda: 3.5)
    monkeypatch.setattr(run, "_measured", lambda *_: MEASURED)
    told = benchmark(byte_original, (), BenchConfig(repeats=1, batches=(1,)), bandwidth_bytes=2**20)
    assert "the machine is busy: other programs had 3.5 of" in told["notes"][0]
    monkeypatch.setattr(run, "others_load", lambda: 0.1)
    quiet = benchmark(byte_original, (), BenchConfig(repeats=1, batches=(1,)), bandwidth_bytes=2**20)
    assert not any("busy" in note for note in quiet["notes"])


def test_the_plot_is_well_formed_and_has_a_bar_for_every_figure(found: dict[str, Any], tmp_path: Path) -> None:
    root = ElementTree.fromstring(svg(found))
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")][1:]
    values = found["variants"]["fp32"]
    bars = len(values["prefill_ms"]) + len(values["decode_tok_s"]) + len(values["growth"]["step_ms"]) + 1
    assert len(titles) == bars
    for suffix in (".svg", ".html"):
        path = tmp_path / f"plot{suffix}"
        write_plot(found, path)
        assert "<script" not in path.read_text("utf-8")


def test_names_in_the_plot_are_escaped(found: dict[str, Any]) -> None:
    renamed = found | {"artifact": "<b>&", "variants": {"<i>": found["variants"]["fp32"]}, "notes": ["<u>"]}
    assert not any(tag in page(renamed) for tag in ("<b>", "<i>", "<u>"))
    ElementTree.fromstring(svg(renamed))


@pytest.mark.parametrize(
    ("name", "said"), [("plot.png", "ends in .png; name a file"), ("no/plot.svg", "does not exist")]
)
def test_a_plot_that_cannot_be_drawn_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(OutputError, match=said):
        check_plot(tmp_path / name)


def test_measuring_needs_no_torch() -> None:
    edges = imports(PACKAGES, lazy=True) | {"gpt_export": set(), "gpt_export_models": set()}
    everything = reached("gpt_export.bench.run", edges) | reached("gpt_export.bench.child", edges)
    assert not belongs_any(everything, ("torch",))


@pytest.mark.usefixtures("small_bandwidth")
def test_the_command_prints_json_alone(cli: Callable[..., Run], byte_original: Path) -> None:
    done = cli("bench", byte_original, "--repeats", 1, "--batch", "1", "--prefill", "8,16", "--threads", 1, "--json")
    assert done.code == 0, done.err
    assert done.json()["variants"]["fp32"]["prefill_ms"].keys() == {"8", "16"}
    assert done.json()["plan"]["threads"] == 1


@pytest.mark.usefixtures("small_bandwidth")
def test_the_command_prints_a_table_and_draws(cli: Callable[..., Run], byte_original: Path, tmp_path: Path) -> None:
    done = cli("bench", byte_original, "--repeats", 1, "--batch", "2", "--plot", tmp_path / "a.svg")
    assert done.code == 0, done.err
    assert "decode, batch 2, tok/s in all" in done.out
    ElementTree.parse(tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--variant", "int3"), 1, "has no variant 'int3'; it has fp32"),
        (("--prefill", "0"), 2, "whole numbers of at least 1"),
        (("--batch", "1,x"), 2, "whole numbers of at least 1"),
        (("--plot", "a.png"), 1, "name a file that ends in .svg or .html"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    cli: Callable[..., Run], byte_original: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    done = cli("bench", byte_original, *options)
    done.refused(code, said)


MEASURED = {"decode_tok_s": {"1": {"median": 9.0}}}


@pytest.fixture
def small_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads a small array, so that the command is quick."""
    monkeypatch.setattr(run, "measure_bandwidth", lambda threads, _size: measure_bandwidth(threads, 2**20))
