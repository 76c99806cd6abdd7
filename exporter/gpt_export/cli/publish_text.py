"""What an export tells a person at its end: the files, the verdict of each, what was compared."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_export.artifact.manifest import Manifest
from gpt_export.report.page import REPORT_NAME

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
    return [f"  {path:<{width}}  {manifest.files[path]['size_bytes'] / 1e6:>9,.1f} MB" for path in paths]


def _verdicts(parity: Mapping[str, Any]) -> Iterator[str]:
    """A line for each file that was run and for what was read of the files, the verdict first."""
    yield ""
    names = {target: target_words(target) for target in parity["targets"]}
    width = max(map(len, (*names.values(), "weights")))
    for target, figures in parity["targets"].items():
        change = figures["perplexity_change"]
        said = [
            f"{figures['cases']} cases, {figures['positions']} positions",
            f"{figures['strain']:.0%} of the limit",
            f"top-1 {'100%' if figures['top1_agreement'] == 1 else format(figures['top1_agreement'], '.1%')}",
        ]
        said += [f"perplexity {change:+.2%}"] if change is not None and not figures["bounded"] else []
        yield f"  {_mark(figures['passed'])}  {names[target]:<{width}}  {', '.join(said)}"
    yield from _weights(parity, width)


def _weights(parity: Mapping[str, Any], width: int) -> Iterator[str]:
    if weights := parity["weights"]:
        equal = weights["checked"] - len(weights["mismatches"])
        exact = " that are stored as they are" if parity["quantized"] else ""
        yield (
            f"  {_mark(weights['passed'])}  {'weights':<{width}}  {equal} of {weights['checked']}{exact}, "
            "equal bit for bit"
        )
    for variant, found in parity["quantized"].items():
        worst = "" if found["worst_sqnr_db"] is None else f", the worst {found['worst_sqnr_db']:.0f} dB from its source"
        told = any(str(fault).startswith(f"{variant}, ") for fault in parity["faults"])
        yield f"  {_mark(not told)}  {variant:<{width}}  {found['matrices']} matrices of codes read back{worst}"


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
    yield from (f"  FAILED {failure}" for failure in parity["failures"])


def _mark(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def target_words(target: str) -> str:
    """What a target of a comparison is called for a person: the float32 graph by its precision."""
    return {"onnx": "fp32", "torchscript": "TorchScript"}.get(target, target)


def fitted(line: str) -> str:
    """The line, broken between words to the width of the terminal and indented behind the first; as it is in a pipe."""
    if not sys.stdout.isatty():
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    width = max(40, shutil.get_terminal_size().columns - 1)
    whole = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(whole) if len(line) > width else line
