"""What an export tells a person at its end: the files, the verdict of each, what was compared."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.variant_names import ORDER
from gpt_export.cli.width import columns
from gpt_export.gate.report import target_words
from gpt_export.report.figures import size
from gpt_export.report.page import REPORT_NAME

TARGETS = ("onnx", *ORDER[1:], "torchscript")
"""In the order in which they are told."""
FILES = ("onnx/", "torchscript/")


def summary(manifest: Manifest, shown: Path) -> str:
    """The artifact in a few lines that fit 80 columns, the verdict of every file at the head of its line."""
    parity = manifest.parity
    verdict = "NOT compared" if parity is None else "" if parity["passed"] else "with FAILED parity"
    lines = [f"{f'Published {verdict}'.strip()}: {shown}", *_files(manifest)]
    lines += [*_verdicts(parity), *_remarks(parity)] if parity else []
    notes = parity["notes"] if parity else manifest.model["notes"]
    lines += [f"  note: {note}" for note in notes]
    if REPORT_NAME in manifest.files:
        lines.append(f"  report: {shown / REPORT_NAME}")
    return "\n".join(map(fitted, lines))


def _files(manifest: Manifest) -> list[str]:
    """The model's files with their sizes below one another, variants in their order."""
    order = [path for variant in manifest.variants.values() for path in (variant["path"], f"{variant['path']}_data")]
    others = [path for path in manifest.files if path.startswith(FILES) and path not in order]
    paths = [path for path in (*order, *others) if path in manifest.files]
    width = max(map(len, paths), default=0)
    return [f"  {path:<{width}}  {size(manifest.files[path]['size_bytes']):>9}" for path in paths]


def _verdicts(parity: Mapping[str, Any]) -> Iterator[str]:
    """A line for each file that was run and for what was read of the files, the verdict first."""
    yield ""
    order = [target for target in TARGETS if target in parity["targets"]]  # JSON has them by the alphabet
    found = [
        (parity["targets"][name]["passed"], target_words(name), _ran(parity["targets"][name]))
        for name in dict.fromkeys((*order, *parity["targets"]))
    ]
    found += _read(parity)
    width = max(len(name) for _, name, _ in found)
    for passed, name, said in found:
        yield f"  {'passed' if passed else 'FAILED'}  {name:<{width}}  {said}"


def _ran(figures: Mapping[str, Any]) -> str:
    change, top1 = figures["perplexity_change"], figures["top1_agreement"]
    said = [
        f"{figures['cases']} cases, {figures['positions']} positions",
        f"{figures['strain']:.0%} of the limit",
        f"top-1 {'100%' if top1 == 1 else format(top1, '.1%')}",
    ]
    said += [f"perplexity {change:+.2%}"] if change is not None and not figures["bounded"] else []
    return ", ".join(said)


def _read(parity: Mapping[str, Any]) -> Iterator[tuple[bool, str, str]]:
    """What was compared without running: weights that are stored as they are by their bits, codes by their meaning."""
    if weights := parity["weights"]:
        equal = weights["checked"] - len(weights["mismatches"])
        exact = " that are not quantised" if parity["quantized"] else ""
        yield weights["passed"], "weights", f"{equal} of {weights['checked']}{exact} equal bit for bit"
    for variant in sorted(parity["quantized"], key=TARGETS.index):
        found = parity["quantized"][variant]
        told = any(str(fault).startswith(f"{variant}, ") for fault in parity["faults"])
        yield not told, f"{variant} codes", codes_words(found)


def codes_words(found: Mapping[str, Any]) -> str:
    """What was found of a file's quantised matrices."""
    worst = found["worst_sqnr_db"]
    near = "" if worst is None else f", SQNR at least {worst:.0f} dB"
    return f"{found['matrices']} matrices, each read back and compared with its source{near}"


def _remarks(parity: Mapping[str, Any]) -> Iterator[str]:
    unjudged = [
        target_words(target)
        for target, figures in parity["targets"].items()
        if not figures["bounded"] and figures["perplexity_change"] is None
    ]
    if unjudged:
        yield f"  note: the perplexity of {', '.join(unjudged)} was not judged, which takes a --text-file"
    if judge := parity.get("judged_against"):
        yield f"  judged against {judge}"
    yield from (f"  FAILED {failure}" for failure in parity["failures"][:1])
    if more := len(parity["failures"][1:]):
        yield f"  and {more} more, all of them in the report"


def fitted(line: str) -> str:
    """The line, broken between words to the columns that are known and indented behind the first; else as it is."""
    known = columns()
    if known is None:
        return line
    head = re.match(r"  (?:passed|FAILED)  .+?  +(?=\S)", line)
    indent = " " * (len(head[0]) if head else len(line) - len(line.lstrip()) + 2)
    width = max(40, known - 1)
    whole = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(whole) if len(line) > width else line
