"""The library's front door for a module that the caller holds."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from gpt_export.artifact.reading import Artifact
from gpt_export.graph.opsets import DEFAULT_OPSET
from gpt_export.pipeline.config import ExportConfig, Gate
from gpt_export.pipeline.stages import export as export_source
from gpt_export.progress import OnStage, ignore
from gpt_export.sources.source import source_of_module


def export(
    module: nn.Module,
    output: str | Path,
    *,
    context_length: int,
    vocab_size: int,
    name: str | None = None,
    opset: int = DEFAULT_OPSET,
    texts: tuple[str, ...] | None = None,
    cases: str | tuple[str, ...] = "default",
    gate: Gate = "enforce",
    seed: int = 123,
    torchscript: bool = True,
    force: bool = False,
    on_stage: OnStage = ignore,
) -> Artifact:
    """Scripts `module`, exports it to ONNX, validates the files, and publishes them at `output`.

    The module maps int64 ids (batch, sequence) to float32 logits (batch, sequence, vocabulary). It is exported in eval
    mode and left in the mode it came in. Its parameters and buffers are the weights.

    Args:
        context_length: the longest sequence that is promised; the runtime refuses longer ones.
        vocab_size: the last axis of the logits; GPT-2's vocabulary gets GPT-2's tokenizer for the text case.
        name: the artifact's name in its manifest; the class's name if left out.
        texts, cases, gate, seed, opset: see `ExportConfig`.
        force: replace an artifact that is at `output`.
        on_stage: called with the name of each stage when it begins.

    Returns:
        The published artifact.

    Raises:
        GptExportError: `ConfigError`, `SourceError`, `ScriptError`, `GraphError`, `OutputError`, or `ParityError` with
            the report; nothing was published then.
    """
    config = ExportConfig(
        opset=opset,
        texts=texts,
        cases=(cases,) if isinstance(cases, str) else cases,
        gate=gate,
        seed=seed,
        torchscript=torchscript,
    )
    modes = {part: part.training for part in module.modules()} if isinstance(module, nn.Module) else {}
    try:
        if modes:
            module.eval()
        source = source_of_module(
            module,
            name=name or type(module).__name__.lower(),
            record={"kind": "module", "class": type(module).__qualname__},
            vocab_size=vocab_size,
            context_length=context_length,
        )
        return export_source(source, config, Path(output), replace=force, on_stage=on_stage)
    finally:
        for part, mode in modes.items():
            part.training = mode
