"""The tables on decoding say what the figures say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benches.decode_doc import GOALS, everyone_table, goal_row, quality_table, roofline_share, targets_table
from benches.decoding.rounds import BATCH, DECODE, GROWTH, LONG, PREFILL, SHORT
from benches.quality import windows
from benches.record import machine


def entrant(precision: str, decode: float, prefill: float, growth: float = 1.2) -> dict[str, Any]:
    figures = {DECODE: decode, PREFILL: prefill, BATCH: decode * 4, SHORT: 10.0, LONG: 10.0 * growth, GROWTH: growth}
    spreads = {name: {"median": value, "min": value - 1, "max": value + 1} for name, value in figures.items()}
    return {"precision": precision, "figures": spreads, "load_s": 0.5, "peak_rss_mb": 900.0, "anon_mb": 600.0}


@pytest.fixture
def values() -> dict[str, Any]:
    return {
        "bandwidth": {"gb_s": 30.0, "method": "NumPy, maximum", "threads": 2, "array_mb": 1091},
        "entrants": {
            "ours fp32": entrant("fp32", 57, 500),
            "Optimum": entrant("fp32", 40, 900),
            "llama.cpp F32": entrant("fp32", 50, 800),
            "ours int4": entrant("int4", 150, 300, growth=1.9),
            "llama.cpp Q4_0": entrant("int4", 120, 280),
            "OpenVINO int8": {"precision": "int8", "failure": "OpenVINO int8 ended: it said nothing"},
        },
        "machine": machine(),
        "peers": {"openvino-genai": "1"},
        "rounds": 4,
        "threads": 2,
        "weights_mb": {"fp32": 500.0, "int4": 80.0},
    }


def goal(what: str) -> Any:
    return next(one for one in GOALS if one.what.startswith(what))


def test_ours_is_beside_the_fastest_peer_of_its_precision(values: dict[str, Any]) -> None:
    row = goal_row(goal("decode fp32, tok/s"), values)
    assert row[1:] == ["57", "llama.cpp F32 50, Optimum 40", "1.14 x", "95%", "1 x", "reached"]


def test_a_goal_beside_one_peer_leaves_the_others_out(values: dict[str, Any]) -> None:
    beside = replace(goal("decode fp32"), beside="Optimum")
    assert goal_row(beside, values)[2:4] == ["Optimum 40", "1.43 x"]


def test_a_missed_goal_is_said(values: dict[str, Any]) -> None:
    assert goal_row(goal("decode int4"), values)[3:] == ["1.25 x", "40%", "1.25 x", "reached"]
    assert goal_row(replace(goal("decode int4"), factor=1.4), values)[5:] == ["1.4 x", "**missed**"]


def test_less_is_better_for_milliseconds(values: dict[str, Any]) -> None:
    assert goal_row(goal("prefill 512 fp32"), values)[3] == "1.60 x"
    assert goal_row(goal("prefill 512 int4"), values)[1:4] == ["300", "llama.cpp Q4_0 280", "0.93 x"]


def test_a_variant_with_another_cache_is_named_where_it_is_the_fastest(values: dict[str, Any]) -> None:
    values["entrants"]["ours int4-kv8"] = entrant("int4", 170, 280)
    values["weights_mb"]["int4-kv8"] = 80.0
    assert goal_row(goal("decode int4"), values)[1] == "170 (int4-kv8)"


def test_what_is_missing_is_said_and_not_counted(values: dict[str, Any]) -> None:
    row = goal_row(goal("decode int8"), values)
    assert (row[1], row[-1]) == ("not measured", "not measured")


def test_the_roofline_share_is_bytes_a_second_over_the_bandwidth(values: dict[str, Any]) -> None:
    assert roofline_share("ours fp32", values) == pytest.approx(57 * 500e6 / 30e9)


def test_growth_beyond_its_limit_is_missed(values: dict[str, Any]) -> None:
    rows = {line.split(" | ")[0].strip("| "): line for line in targets_table(values).splitlines()}
    assert "reached" in rows["growth fp32, 32 to 1000"]
    assert "**missed**" in rows["growth int4, 32 to 1000"]


def test_everyone_is_listed_by_precision_and_speed_with_failures(values: dict[str, Any]) -> None:
    names = [line.split(" | ")[0].strip("| ") for line in everyone_table(values).splitlines()[2:]]
    assert names == ["ours fp32", "llama.cpp F32", "Optimum", "OpenVINO int8", "ours int4", "llama.cpp Q4_0"]
    assert "failed: OpenVINO int8 ended" in everyone_table(values)


def test_perplexity_is_beside_eager_and_its_limits() -> None:
    found = {"PyTorch eager": 100.0, "ours int8": 100.2, "ours int4": 100.3, "llama.cpp Q4_0": 100.4}
    text = quality_table(
        {"machine": machine(), "peers": {}, "perplexity": found, "tokens": 1024, "window": 512, "windows": 2}
    )
    assert "| ours int8 | 100.200 | +0.200 % |" in text
    assert "| int8 | 100.200 | 100.100 (eager and 0.1 %) | **missed** |" in text
    assert "| int4 | 100.300 | 100.400 (llama.cpp Q4_0) | reached |" in text


def test_windows_are_whole_and_do_not_overlap() -> None:
    assert windows(range(11), 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(SystemExit, match="the text has 3 tokens, one window has 4"):
        windows(range(3), 4)
