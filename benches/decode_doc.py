"""The tables on decoding beside peers: what was to be reached, every figure, and what quantisation costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benches.decoding.roster import OURS, PRECISIONS
from benches.decoding.rounds import BATCH, DECODE, GROWTH, LONG, PREFILL, SHORT
from benches.tables import machine_line, met, range_of, table

NOTHING = "not measured"


@dataclass(frozen=True, slots=True)
class Goal:
    """Ours beside the fastest peer, in one figure and among some precisions."""

    what: str
    figure: str
    precisions: tuple[str, ...]
    factor: float
    """How many times as fast as the fastest peer."""
    less_is_better: bool = False
    beside: str | tuple[str, ...] = ""
    """The only peers to be beside, by the beginning of their names."""


GOALS = (
    Goal("decode fp32, tok/s", DECODE, ("fp32",), 1.0),
    Goal("decode int8, tok/s", DECODE, ("int8",), 1.0),
    Goal("decode int4, tok/s", DECODE, ("int4",), 1.25),
    Goal("step at 1000 int8, ms", LONG, ("int8",), 1.1, less_is_better=True),
    Goal("step at 1000 int4, ms", LONG, ("int4",), 1.25, less_is_better=True),
    Goal("prefill 512 fp32, ms", PREFILL, ("fp32",), 1.0, less_is_better=True),
    Goal("prefill 512 int8, ms", PREFILL, ("int8",), 1.0, less_is_better=True),
    Goal("prefill 512 int4, ms", PREFILL, ("int4",), 0.9, less_is_better=True),
    Goal("16 rows fp32, tok/s in all", BATCH, ("fp32",), 1.0),
    Goal("16 rows int8, tok/s in all", BATCH, ("int8",), 1.0),
    Goal("16 rows int4, tok/s in all", BATCH, ("int4",), 1.0),
)
_BUILT = ("llama.cpp", "onnxruntime-genai")
LLAMA_GOALS = (
    Goal("decode fp32, tok/s", DECODE, ("fp32",), 1.0),
    Goal("decode int8 beside llama.cpp and genai, tok/s", DECODE, ("int8",), 1.1, beside=_BUILT),
    Goal("decode int8 beside OpenVINO, tok/s", DECODE, ("int8",), 1.0, beside="OpenVINO"),
    Goal("decode int4 beside llama.cpp and genai, tok/s", DECODE, ("int4",), 1.2, beside=_BUILT),
    Goal("decode int4 beside OpenVINO, tok/s", DECODE, ("int4",), 1.0, beside="OpenVINO"),
    Goal("prefill 512 int8, ms", PREFILL, ("int8",), 1.0, less_is_better=True),
    Goal("16 rows int8, tok/s in all", BATCH, ("int8",), 1.0),
    Goal("16 rows int4, tok/s in all", BATCH, ("int4",), 1.0),
)
"""Of a Llama-shaped decoder, the graph of which is derived and not written by hand."""
GROWTH_LIMIT = 1.2
QUALITY_LIMIT_PERCENT = 0.1
"""How much worse int8 may be than eager; int4 may be as much worse as llama.cpp's Q4_0."""


def llama_table(values: Mapping[str, Any]) -> str:
    """`targets_table` of a Llama-shaped decoder."""
    return targets_table(values, LLAMA_GOALS)


def targets_table(values: Mapping[str, Any], goals: Sequence[Goal] = GOALS) -> str:
    """Ours beside the peers in every figure that has a goal."""
    rows = [goal_row(goal, values) for goal in goals]
    for name, one in sorted(values["entrants"].items()):
        if name.startswith(OURS) and (growth := one.get("figures", {}).get(GROWTH)):
            verdict = met(growth["median"] <= GROWTH_LIMIT)
            rows.append(
                [
                    f"growth {name.removeprefix(OURS).strip()}, 32 to 1000",
                    f"{growth['median']:.2f} x",
                    "",
                    "",
                    "",
                    f"{GROWTH_LIMIT} x",
                    verdict,
                ]
            )
    head = ["", "ours", "peers", "beside the fastest", "of the roofline", "at least", ""]
    band = values["bandwidth"]
    line = (
        f"{values['rounds']} rounds, {values['threads']} threads. The memory was read at {band['gb_s']:g} GB/s in "
        f"the same run ({band['method']})."
    )
    return f"{machine_line(values)}\n\n{line}\n\n{table(head, rows)}"


def goal_row(goal: Goal, values: Mapping[str, Any]) -> list[str]:
    """What was found for one goal, and whether it is enough."""
    found = {
        name: one["figures"][goal.figure]["median"]
        for name, one in values["entrants"].items()
        if one["precision"] in goal.precisions and goal.figure in one.get("figures", {})
    }
    order = sorted(found, key=lambda name: found[name], reverse=not goal.less_is_better)
    best = next((name for name in order if name.startswith(OURS)), None)
    beside = [name for name in order if not name.startswith(OURS) and name.startswith(goal.beside)]
    shown = ", ".join(f"{name} {found[name]:.0f}" for name in beside)
    asked = f"{goal.factor:g} x"
    if best is None or not beside:
        return [goal.what, NOTHING if best is None else f"{found[best]:.0f}", shown, NOTHING, "", asked, NOTHING]
    ratio = found[beside[0]] / found[best] if goal.less_is_better else found[best] / found[beside[0]]
    variant = best.removeprefix(OURS).strip()
    own = f"{found[best]:.0f}" + ("" if (variant,) == goal.precisions else f" ({variant})")
    share = f"{roofline_share(best, values):.0%}" if goal.figure == DECODE else ""
    return [goal.what, own, shown, f"{ratio:.2f} x", share, asked, met(ratio >= goal.factor)]


def roofline_share(ours: str, values: Mapping[str, Any]) -> float:
    """Bytes of weights that one of ours reads in a second, over what the memory gives."""
    weights_bytes = values["weights_mb"][ours.removeprefix(OURS).strip()] * 1e6
    tokens_s = values["entrants"][ours]["figures"][DECODE]["median"]
    return float(tokens_s * weights_bytes / (values["bandwidth"]["gb_s"] * 1e9))


def everyone_table(values: Mapping[str, Any]) -> str:
    """Every figure of everyone, by precision and then by decoding."""
    columns = {DECODE: 1, PREFILL: 0, BATCH: 0, SHORT: 1, LONG: 1, GROWTH: 2}
    rows = []
    for name, one in sorted(values["entrants"].items(), key=_order):
        if failure := one.get("failure"):
            rows.append([name, f"failed: {failure}", *[""] * (len(columns) + 1)])
            continue
        cells = [range_of(one["figures"][figure], digits) for figure, digits in columns.items()]
        rows.append([name, *cells, f"{one['load_s']:.2f}", f"{one['peak_rss_mb']:.0f}"])
    head = ["", "decode, tok/s", "prefill 512, ms", "16 rows, tok/s", "step at 32, ms", "step at 1000, ms", "growth"]
    return table([*head, "load, s", "peak RSS, MB"], rows)


def quality_table(values: Mapping[str, Any]) -> str:
    """Perplexity of eager, of our variants and of the peers' files, on one text."""
    eager = values["perplexity"]["PyTorch eager"]
    rows = []
    for name, perplexity in sorted(values["perplexity"].items(), key=lambda item: item[1]):
        rows.append([name, f"{perplexity:.3f}", f"{100 * (perplexity / eager - 1):+.3f} %"])
    words = f"{values['tokens']} tokens in {values['windows']} windows of {values['window']}"
    return f"{machine_line(values)}\n\n{words}.\n\n{table(['', 'perplexity', 'beside eager'], rows)}{_verdicts(values)}"


def _verdicts(values: Mapping[str, Any]) -> str:
    found = values["perplexity"]
    rows = []
    if own := found.get(f"{OURS} int8"):
        limit = found["PyTorch eager"] * (1 + QUALITY_LIMIT_PERCENT / 100)
        rows.append(["int8", f"{own:.3f}", f"{limit:.3f} (eager and 0.1 %)", met(own <= limit)])
    if (own := found.get(f"{OURS} int4")) and (limit := found.get("llama.cpp Q4_0")):
        rows.append(["int4", f"{own:.3f}", f"{limit:.3f} (llama.cpp Q4_0)", met(own <= limit)])
    return "\n\n" + table(["to reach", "found", "limit", ""], rows) if rows else ""


def _order(item: tuple[str, Mapping[str, Any]]) -> tuple[int, float]:
    _, one = item
    known: Sequence[str] = (*PRECISIONS, one["precision"])
    speed = one.get("figures", {}).get(DECODE, {}).get("median", 0.0)
    return known.index(one["precision"]), -speed
