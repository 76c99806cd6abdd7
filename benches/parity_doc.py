"""Puts cases, limits and results into the tables of docs/parity.md; the text between them is written by hand.

`python -m benches.parity_doc` rewrites the page; with `--check` it only says whether the page is up to date.
`GPT_EXPORT_RECORD=1 pytest tests/mutations/test_mutations.py` makes the table of faults anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from gpt_export.gate.cases import choose_cases
from gpt_export.gate.limits import LIMITS, NOISE_FLOOR
from gpt_export.gate.noise import NOISE_CEILING
from gpt_export.gate.settings import GateSettings
from gpt_export.gate.validate import greedy_cases
from gpt_export.runtime.signature import CacheShape
from gpt_export.sources.source import Source
from gpt_export_models.config import GPT_CONFIG_124M
from gpt_export_models.tokenizer import Gpt2Tokenizer
from torch import Tensor, nn

from benches.page import keep_current
from benches.performance_doc import NOT_MEASURED, machine_line
from benches.record import RESULTS, read_record

PAGE = Path(__file__).parent.parent / "docs" / "parity.md"
_BLOCK = re.compile(r"(?P<begin><!-- begin (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end (?P=name) -->)", re.DOTALL)


def render(page: str, results: Path = RESULTS) -> str:
    """`page` with every block between markers made anew.

    Raises:
        KeyError: a marker names no block of `BLOCKS`.
    """
    return _BLOCK.sub(lambda match: f"{match['begin']}{BLOCKS[match['name']](results)}\n{match['end']}", page)


def cases_table(_results: Path) -> str:
    """The default cases of GPT-2, with their reasons."""
    config = GPT_CONFIG_124M
    source = Source(
        name="gpt2",
        record={},
        vocab_size=config["vocab_size"],
        context_length=config["context_length"],
        judged_against="GPT-2",
        reference=nn.Identity,
        skeleton=nn.Identity(),
        weights={},
        tokenizer=Gpt2Tokenizer(),
        cache=CacheShape.alike(n_layers=config["n_layers"], n_heads=config["n_heads"], head_dim=64),
    )
    needs = {"ids": "", "mask": "a mask", "cache": "a cache"}
    cases = choose_cases(source, GateSettings(), whole_text=False)
    cases += greedy_cases(_Silent(), cases)  # which ids it has, the model says; how many of them, not
    rows = [
        [
            f"`{case.name}`",
            f"{case.ids.shape[0]} x {case.ids.shape[1]}",
            str(int(case.mask.sum())),
            _pieces(case.chunks),
            needs[case.needs],
            case.reason + (f"; {case.note}" if case.note else ""),
        ]
        for case in cases
    ]
    total = sum(int(case.mask.sum()) for case in cases)
    table = _table(["case", "shape", "positions", "fed in pieces of", "needs", "why"], rows)
    return f"For GPT-2 (a vocabulary of 50257, a context of 1024) the default set has {total} positions:\n\n{table}"


class _Silent(nn.Module):
    """Says the first id of all, whatever it reads."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 1)


def limits_table(results: Path) -> str:
    """The table of limits, and the measurement behind the factor."""
    rows = []
    for precision, limits in LIMITS.items():
        largest = "none" if limits.noise_factor is None else f"{limits.noise_factor:g} x noise"
        kl = "none" if limits.kl_mean is None else f"{limits.kl_mean:g} nats"
        rows.append([f"`{precision}`", largest, kl, f"{limits.top1:.0%}"])
    table = _table(["precision", "largest difference", "mean KL", "least top-1 agreement"], rows)
    text = (
        f"{table}\n\nThe noise counts as at least 2^-20 ({NOISE_FLOOR:.1e}) of the scale, and a model whose own noise "
        f"is above 2^-7 ({NOISE_CEILING:.1e}) is refused: it says too little to judge by."
    )
    noise = read_record("noise", results)
    factor = LIMITS["fp32"].noise_factor
    if noise is None or factor is None:
        return text
    found = noise["summary"]["worst_of_both"]
    return (
        f"{text}\n\nMeasured on {len(noise['models'])} correct models ({found['count']} cases): half of all cases stay "
        f"below {found['q0.5']:.2f} times the noise, 99 % below {found['q0.99']:.2f}, and the largest is "
        f"{found['max']:.2f}. The limit of {factor:g} is {factor / found['max']:.1f} times that.\n\n"
        f"{machine_line(noise)}"
    )


def faults_table(results: Path) -> str:
    """Every planted fault, what caught it, and where the bisection put it."""
    return _faults("mutations", results)


def fused_faults_table(results: Path) -> str:
    """The same of the faults in onnxruntime's own operators."""
    return _faults("mutations-fused", results)


def cache_faults_table(results: Path) -> str:
    """The same of the faults of the cache pass."""
    return _faults("mutations-cache", results)


def llama_faults_table(results: Path) -> str:
    """The same of the faults of Llama and its kin."""
    return _faults("mutations-llama", results)


def _faults(record: str, results: Path) -> str:
    found = read_record(record, results)
    if found is None:
        return NOT_MEASURED
    rows = []
    for row in found["faults"]:
        failed = f"{row['failed_cases']} of {row['cases']} cases" if "outputs" in row["caught_by"] else ""
        caught = [
            failed if by == "outputs" else {"weights": "the bits", "graph": "the graph"}[by] for by in row["caught_by"]
        ]
        layer = "" if row["part"] is None else "outside" if row["layer"] is None else str(row["layer"])
        operator = f"`{row['operator']}`" if row["operator"] else ""
        rows.append([row["fault"], ", ".join(caught), layer, row["part"] or "", operator, row["cause"] or ""])
    head = ["fault", "caught by", "layer", "part", "operator", "cause that is named"]
    return f"{len(rows)} faults, all of them caught:\n\n{_table(head, rows)}"


def cost_table(results: Path) -> str:
    """The parts of the gate beside one eager pass."""
    found = read_record("gate-cost", results)
    if found is None:
        return NOT_MEASURED
    parts = []
    for name, values in found["sources"].items():
        wall, processor = values["wall"], values["processor"]
        names = sorted(wall["parts_seconds"], key=lambda part: -wall["parts_seconds"][part])
        rows = [["one eager pass", *(f"{clock['eager_pass_seconds']:.1f}" for clock in (wall, processor))]]
        rows += [[part, *(f"{clock['parts_seconds'][part]:.1f}" for clock in (wall, processor))] for part in names]
        for label, key in (
            ("**the gate, in eager passes**", "gate_over_eager_pass"),
            ("without its own eager pass", "without_its_own_eager_pass"),
        ):
            rows.append([label, *(f"{clock[key]:.2f}" for clock in (wall, processor))])
        table = _table([f"`{name}`, {values['positions']} positions", "wall, s", "processor, s"], rows)
        parts.append(table)
    return "\n\n".join([machine_line(found), *parts])


BLOCKS: Mapping[str, Callable[[Path], str]] = {
    "cases": cases_table,
    "limits": limits_table,
    "faults": faults_table,
    "fused-faults": fused_faults_table,
    "cache-faults": cache_faults_table,
    "llama-faults": llama_faults_table,
    "cost": cost_table,
}
"""By marker, what makes its text from the folder of results."""


def _pieces(chunks: Sequence[int]) -> str:
    if not chunks:
        return ""
    if len(set(chunks)) == 1 and len(chunks) > 2:
        return f"{chunks[0]}, {len(chunks)} times"
    return ", ".join(map(str, chunks))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    keep_current(PAGE, render, "python -m benches.parity_doc", __doc__)


if __name__ == "__main__":
    main()
