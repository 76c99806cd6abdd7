"""Puts the results of the benches into the tables of docs/performance.md; the text between them is written by hand.

`python -m benches.performance_doc` rewrites the page; with `--check` it only says whether the page is up to date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benches import decode_doc
from benches.page import keep_current
from benches.record import RESULTS, read_record
from benches.tables import machine_line, met, range_of, table

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
NOT_MEASURED = "*Not measured yet.*"
_BLOCK = re.compile(r"(?P<begin><!-- begin (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end (?P=name) -->)", re.DOTALL)


def render(page: str, results: Path = RESULTS) -> str:
    """`page` with every block between markers made anew from the results.

    Raises:
        KeyError: a marker names no block of `BLOCKS`.
    """

    def block(match: re.Match[str]) -> str:
        record, text = BLOCKS[match["name"]]
        values = read_record(record, results)
        return f"{match['begin']}{text(values) if values else NOT_MEASURED}\n{match['end']}"

    return _BLOCK.sub(block, page)


def exports_table(values: Mapping[str, Any]) -> str:
    """Each stage of the whole exports."""
    return "\n\n".join([machine_line(values), *(_stages(name, found) for name, found in values["exports"].items())])


def graphs_table(values: Mapping[str, Any]) -> str:
    """Script, graph and passes without weights, beside their target."""
    rows = []
    for name, found in values["graphs"].items():
        together = found["together"]
        stages = {stage["stage"]: stage["seconds"] for stage in found["stages"]}
        rows.append(
            [
                f"`{name}`",
                *(f"{stages[stage]['median']:.2f}" for stage in ("script", "graph", "passes")),
                range_of(together["seconds"], 2),
                range_of(together["anon_mb"], 0),
                range_of(together["rss_mb"], 0),
            ]
        )
    target = values["target"]
    head = ["source", "script, s", "graph, s", "passes, s", "together, s", "anonymous, MB", "RSS, MB"]
    verdict = "reached" if target["met"] else "**missed**"
    limits = f"under {target['target_seconds']:g} s and {target['target_mb']:g} MB of anonymous memory"
    return f"{table(head, rows)}\n\nTo reach for the skeleton: {limits}; {verdict}."


def peers_table(values: Mapping[str, Any]) -> str:
    """Exports beside Optimum and a copy, size by size."""
    parts = [machine_line(values)]
    for size, found in values["sizes"].items():
        rows = [
            [f"`{name}`", *_figures(tool)]
            for name, tool in sorted(found["tools"].items(), key=lambda item: item[1]["wall_s"]["median"])
        ]
        head = ["", "wall time, s", "peak RSS, MB", "peak anonymous, MB", "written, MB", "runs"]
        parts.append(f"GPT-2 {size}, a checkpoint of {found['checkpoint_mb']:.0f} MB:\n\n{table(head, rows)}")
    if targets := values["targets"]:
        rows = [
            [one["what"], f"{one['value']:.2f} {one['unit']}", f"{one['limit']:g} {one['unit']}", met(one["met"])]
            for one in targets
        ]
        parts.append(table(["to reach", "found", "limit", ""], rows))
    return "\n\n".join(parts)


def noise_table(values: Mapping[str, Any]) -> str:
    """How far onnxruntime is from eager, in units of eager's own noise."""
    found = values["summary"]
    names = {
        "ratio_to_probe": "the probe's noise",
        "ratio_to_case": "the case's own noise",
        "worst_of_both": "the larger of the two noises",
    }
    rows = [
        [text, *(f"{found[key][column]:.2f}" for column in ("q0.5", "q0.9", "q0.99", "max"))]
        for key, text in names.items()
    ]
    count = found["ratio_to_case"]["count"]
    shown = table(["in units of", "median", "90 %", "99 %", "largest"], rows)
    return f"{machine_line(values)}\n\n{len(values['models'])} models, {count} cases:\n\n{shown}"


def small_cache_table(values: Mapping[str, Any]) -> str:
    """Perplexity with both caches, and the share of the time that each thing takes with the one of 8 bits."""
    found = values["perplexity"]
    plain = [name for name in found if not name.endswith("-kv8")]
    lost = [
        [f"`{name}`", f"{found[name]:.3f}", f"{small:.3f}", f"{100 * (small / found[name] - 1):+.3f} %"]
        for name in plain
        for small in (found[f"{name}-kv8"],)
    ]
    kinds = list(next(iter(values["speed"].values())))
    rows = [[what, *(range_of(values["speed"][name][what], 2) for name in values["speed"])] for what in kinds]
    return "\n\n".join(
        [
            machine_line(values),
            f"Perplexity on {values['tokens']} tokens in windows of {values['window']}:",
            table(["", "float cache", "8 bits", "change"], lost),
            f"The processor's time with 8 bits as a share of that with floats, on one thread, {_cache_words(values)}, "
            f"the median of {values['rounds']} rounds (least to greatest):",
            table(["", *(f"`{name}`" for name in values["speed"])], rows),
        ]
    )


def _cache_words(values: Mapping[str, Any]) -> str:
    cache = values["cache"]
    return f"{cache['n_layers']} layers of {cache['n_heads']} heads of {cache['head_dim']}"


def roads_table(values: Mapping[str, Any]) -> str:
    """Each way from a module to its graph, size by size."""
    parts = [machine_line(values)]
    for size, ways in values["sizes"].items():
        rows = [
            [
                f"`{way}`",
                range_of(found["seconds"], 1),
                range_of(found["rss_mb"], 0),
                range_of(found["anon_mb"], 0),
                str(found["nodes"]),
                str(found["runs"]),
            ]
            for way, found in sorted(ways.items(), key=lambda item: item[1]["seconds"]["median"])
        ]
        head = ["", "seconds", "peak RSS, MB", "peak anonymous, MB", "nodes", "runs"]
        parts.append(f"{size}:\n\n{table(head, rows)}")
    target = values["target"]
    parts.append(f"To reach by both roads: under {target['limit_mb']:g} MB of RSS; {met(target['met'])}.")
    return "\n\n".join(parts)


BLOCKS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "decode": ("decode", decode_doc.targets_table),
    "decode-all": ("decode", decode_doc.everyone_table),
    "decode-llama-untied": ("decode-llama-untied", decode_doc.llama_table),
    "decode-llama-untied-all": ("decode-llama-untied", decode_doc.everyone_table),
    "decode-llama-tied": ("decode-llama-tied", decode_doc.llama_table),
    "decode-llama-tied-all": ("decode-llama-tied", decode_doc.everyone_table),
    "exports": ("export-stages", exports_table),
    "graphs": ("export-stages", graphs_table),
    "noise": ("noise", noise_table),
    "peers": ("export-peers", peers_table),
    "quality": ("quality", decode_doc.quality_table),
    "roads": ("roads", roads_table),
    "small-cache": ("small-cache", small_cache_table),
}
"""By marker, the result that is read and the text that is made of it."""


def _stages(name: str, found: Mapping[str, Any]) -> str:
    rows = [
        [stage["stage"], range_of(stage["seconds"], 2), range_of(stage["anon_mb"], 0), range_of(stage["rss_mb"], 0)]
        for stage in found["stages"]
    ]
    base = found["base"]
    intro = (
        f"`{name}`: {range_of(found['total_seconds'], 1)} s in all. Memory is the peak during the stage, above an "
        f"interpreter with torch imported ({base['anon_mb']['median']:.0f} MB anonymous, "
        f"{base['rss_mb']['median']:.0f} MB RSS, after {base['seconds']['median']:.1f} s):"
    )
    return f"{intro}\n\n{table(['stage', 'seconds', 'anonymous, MB', 'RSS, MB'], rows)}"


def _figures(tool: Mapping[str, Any]) -> list[str]:
    wall, size = range_of(tool["wall_s"], 1), f"{tool['output_mb']['median']:.0f}"
    if tool["failure"]:
        wall, size = f"{tool['failure']}, after {tool['wall_s']['median']:.0f} s", "none"
    return [wall, range_of(tool["peak_rss_mb"], 0), range_of(tool["peak_anon_mb"], 0), size, str(tool["runs"])]


def main() -> None:
    keep_current(PAGE, render, "python -m benches.performance_doc", __doc__)


if __name__ == "__main__":
    main()
