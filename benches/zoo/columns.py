"""The columns of the record: a callable each, from an animal and a folder to what became of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from gpt_export.weights.quantize.schemes import Precision
from torch import nn

from tests.zoo.animal import Animal
from tests.zoo.oracle import unwrapped, widened
from tests.zoo.plain import LARGEST, PlainModel, largest_difference

Outcome = Literal["right", "wrong", "refused"]
PRECISIONS: tuple[Precision, ...] = ("int8", "int4")
_PATH = re.compile(r"(?:/[^\s/:\"',]+)+/([^\s/:\"',]+)")
"""A file with its folders, which belong to the machine and not to the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a column made of an animal."""

    outcome: Outcome
    """A file whose numbers are the module's, one whose numbers are not, or none."""
    why: str = ""
    """In a line, where it is not right."""
    difference: float | None = None
    """The largest, in deviations of the logits."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        finite = self.difference is None or self.difference < float("inf")
        number = float(f"{self.difference:.2g}") if self.difference is not None and finite else None
        return {**asdict(self), "difference": number, "facts": dict(self.facts)}


Column = Callable[[Animal, Path], Made]


def torch_export(animal: Animal, folder: Path) -> Made:
    """`torch.onnx.export(dynamo=True)` as its documentation has it, both axes dynamic."""
    path = folder / "dynamo.onnx"

    def make(module: nn.Module) -> None:
        dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        program = torch.onnx.export(module, (_example(animal),), dynamo=True, dynamic_shapes=(dims,), verbose=False)
        assert program is not None
        program.save(path)

    return _made(animal, path, make)


def torch_script(animal: Animal, folder: Path) -> Made:
    """`torch.jit.script`, then `torch.onnx.export(dynamo=False)`."""
    path = folder / "script.onnx"

    def make(module: nn.Module) -> None:
        ids = {0: "batch", 1: "sequence"}
        scripted = torch.jit.script(module)
        torch.onnx.export(
            scripted,
            (_example(animal),),
            str(path),
            dynamo=False,
            input_names=["input_ids"],
            dynamic_axes={"input_ids": ids},
            opset_version=17,
        )

    return _made(animal, path, make)


def ours(animal: Animal, folder: Path) -> Made:
    """This toolkit as a user calls it: the folder's float32 file, with the cache that was found."""
    import gpt_export

    try:
        artifact = gpt_export.export(animal.make(), folder / "ours", name=animal.name)
    except gpt_export.GptExportError as error:
        return Made(outcome="refused", why=_line(error), facts={"kind": type(error).__name__})
    except Exception as error:  # nothing of a user's module may end so
        return Made(outcome="refused", why=f"unexpected: {_line(error)}", facts={"kind": type(error).__name__})
    path = artifact.folder / "onnx" / "model.onnx"
    facts = {
        "road": artifact.manifest.source.get("road", "script"),
        "cached": PlainModel.open(path).cached,
        "notes": [
            _PATH.sub(lambda match: match[1], " ".join(note.split()))
            for note in artifact.manifest.model.get("notes", ())
        ],
    }
    return _judged(path, animal, facts)


def ours_quantised(animal: Animal, folder: Path) -> Made:
    """The same with every precision; right where the gate, with its limits for each, published them."""
    import gpt_export

    def lost_of(*precisions: Precision) -> str:
        """Why these are not published together with float32; nothing if they are."""
        options: dict[str, Any] = {"name": animal.name, "context_length": animal.context, "force": True}
        try:
            gpt_export.export(animal.make(), folder / "quantised", precisions=("fp32", *precisions), **options)
        except Exception as error:  # whatever kind it is, the record says it
            return _line(error)
        return ""

    together = lost_of(*PRECISIONS)
    if not together:
        return Made(outcome="right", facts={"precisions": list(PRECISIONS)})
    lost = {precision: lost_of(precision) for precision in PRECISIONS}
    kept = [precision for precision, why in lost.items() if not why]
    whys = [f"{precision}: {why}" for precision, why in lost.items() if why]
    return Made(outcome="refused" if whys else "right", why="; ".join(whys), facts={"precisions": kept})


COLUMNS: Mapping[str, Column] = {
    "torch.onnx.export": torch_export,
    "torch.jit.script": torch_script,
    "gpt-export": ours,
    "gpt-export, quantised": ours_quantised,
}


def _made(animal: Animal, path: Path, make: Callable[[nn.Module], None]) -> Made:
    """What `make`, which writes `path` from the animal's module without wrappers and in float32, came to."""
    try:
        module = widened(unwrapped(animal.make()), torch.float32)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            make(module)
    except (Exception, SystemExit) as error:  # torch has no tree of its own
        return Made(outcome="refused", why=_line(error))
    return _judged(path, animal, {})


def _judged(path: Path, animal: Animal, facts: Mapping[str, Any]) -> Made:
    try:
        difference = largest_difference(path, animal, animal.make())
    except Exception as error:  # a file of one shape is a wrong file
        return Made(outcome="wrong", why=_line(error), facts=facts)
    right = difference <= LARGEST
    return Made(
        outcome="right" if right else "wrong",
        why="" if right else "other numbers or shapes",
        difference=difference,
        facts=facts,
    )


def _example(animal: Animal) -> torch.Tensor:
    """Ids of a shape that is never compared."""
    return torch.arange(2 * 7).reshape(2, 7) % animal.vocab


def _line(error: BaseException, width: int = 300) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return _PATH.sub(lambda match: match[1], text)[:width]
