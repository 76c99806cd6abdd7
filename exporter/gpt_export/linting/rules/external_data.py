"""Weights in files of their own: there, whole, inside the folder, apart from each other, on pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gpt_export_models.problems import some

from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.linting.finding import Finding, Location, Severity, tensor
from gpt_export.linting.registry import rule
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import external, inside, shown, unreadable

MISSING = rule(
    "GX201",
    Severity.ERROR,
    "the file of a tensor's bytes is not there",
    "copy it beside the .onnx file under the name that the model gives",
)
TOO_SHORT = rule(
    "GX202",
    Severity.ERROR,
    "a tensor's bytes end before its elements do",
    "the file was cut short or is of another export: copy both files again",
)
OUTSIDE = rule(
    "GX203",
    Severity.ERROR,
    "a tensor's bytes lie outside the model's folder: onnxruntime refuses to read them from 1.24 on",
    "put the file beside the model and name it without folders",
)
OVERLAPPING = rule(
    "GX204",
    Severity.ERROR,
    "two tensors share some of their bytes but not all",
    "the offsets are wrong: export again",
)
MISALIGNED = rule(
    "GX205",
    Severity.WARNING,
    "tensors start off a page of 4096 bytes, so that not every loader can map them where they are",
    "save again with the offset of every large tensor on a page",
)
UNUSED_BYTES = rule(
    "GX206",
    Severity.WARNING,
    "a file of external data holds bytes that no tensor names",
    "it was appended to, or is of another export: delete it and save again",
)
MALFORMED = rule(
    "GX207",
    Severity.ERROR,
    "a tensor's entry on external data cannot be read",
    "export again",
)
SHAPE = rule(
    "GX208",
    Severity.ERROR,
    "numbers that shapes are computed from are external data: onnxruntime wants them before it reads that",
    "keep small tensors in the .onnx file (size_threshold=1024 in onnx.save)",
)
PAGE_BYTES = 4096
_SHAPE_OPERANDS = frozenset(
    {
        ("ConstantOfShape", 0),
        *((operator, 1) for operator in ("Reshape", "Expand", "Squeeze", "Unsqueeze", "Tile", "Pad", "Split")),
        *((f"Reduce{kind}", 1) for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum")),
        ("ReduceSumSquare", 1),
        *(("Slice", index) for index in (1, 2, 3, 4)),
        *(("Resize", index) for index in (2, 3)),
    }
)
"""Inputs that shape inference wants the values of; tried one by one with onnxruntime 1.17 and 1.32."""


@dataclass(frozen=True, slots=True)
class _Range:
    """The bytes of one tensor in a file."""

    name: str
    start: int
    end: int


def external_data(model: OnnxModel, _settings: LintSettings) -> Iterator[Finding]:
    """Every file that tensors are said to be in, and the ranges of each. Only sizes are read."""
    ranges: dict[str, list[_Range]] = {}
    lost: dict[tuple[str, str], list[str]] = {}
    for name, value in {**model.initializers, **model.constants}.items():
        try:
            place = external(value)
        except ValueError as error:
            yield MALFORMED.found(tensor(name), f"the external data of {name} cannot be found: {error}")
            continue
        if place is None:
            continue
        path = inside(model.path, place.location)
        if operator := _shaped_by(name, model):
            message = f"{name} is external and tells a {operator} its shape; it must be in the .onnx file"
            yield SHAPE.found(tensor(name), message)
        fault = "" if path is None else unreadable(path)
        if path is None or fault:
            lost.setdefault((place.location, fault), []).append(name)
            continue
        needed = size_bytes(value)
        if needed is not None and place.length is not None and place.length != needed:
            yield TOO_SHORT.found(
                tensor(name), f"{name} has a length of {place.length} bytes; its dims and type need {needed}"
            )
            continue
        start = place.offset or 0
        length = needed if needed is not None else place.length or 0
        ranges.setdefault(place.location, []).append(_Range(name, start, start + length))
    for (location, fault), names in lost.items():
        yield _lost(location, fault, names)
    for location, found in ranges.items():
        yield from _file(model.path.parent / location, location, found)


def _shaped_by(name: str, model: OnnxModel) -> str | None:
    """An operator whose shape inference reads the tensor, None without one."""
    readers = model.readers.get(name, [])
    return next((node.op_type for node, index in readers if (node.op_type, index) in _SHAPE_OPERANDS), None)


def _lost(location: str, fault: str, names: list[str]) -> Finding:
    location = some([location])
    where, who = Location("file", location), f"{len(names)} tensors ({shown(names)})"
    if not fault:
        message = f"{who} are in {location}; only files in the model's folder are allowed, not through links either"
        return OUTSIDE.found(where, message)
    return MISSING.found(where, f"{who} are in {location}, {fault}")


def _file(path: Path, location: str, ranges: list[_Range]) -> Iterator[Finding]:
    size, where = path.stat().st_size, Location("file", location)
    for each in ranges:
        if each.end > size:
            message = f"{each.name} takes the bytes {each.start} to {each.end} of {location}, which has {size}"
            yield TOO_SHORT.found(tensor(each.name), message)
    ordered = sorted({(each.start, each.end): each for each in ranges}.values(), key=lambda each: each.start)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            message = f"{after.name} starts at {after.start} of {location}, inside {before.name} (ends at {before.end})"
            yield OVERLAPPING.found(tensor(after.name), message)
    if off := [each for each in ordered if each.start % PAGE_BYTES and each.end - each.start >= PAGE_BYTES]:
        message = (
            f"{len(off)} of {len(ordered)} tensors in {location} start off a page; first {off[0].name} at "
            f"{off[0].start}, multiples of {PAGE_BYTES} are expected"
        )
        yield MISALIGNED.found(where, message)
    if unused := _unused(ordered, size):
        yield UNUSED_BYTES.found(where, f"{unused} of the {size} bytes of {location} belong to no tensor")


def _unused(ordered: list[_Range], size: int) -> int:
    """Bytes between and behind the tensors, those up to the next page left out."""
    unused, end = 0, 0
    for start, next_end in [*((each.start, each.end) for each in ordered), (size, size)]:
        gap = start - end
        unused += gap if gap >= PAGE_BYTES else 0
        end = max(end, next_end)
    return unused
