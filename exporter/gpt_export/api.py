"""The library's front door: what the commands do, as functions that take and return values.

Their imports stand inside: `help(gpt_export)` must work, and linting must not wait, where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_export.graph.opsets import DEFAULT_OPSET
from gpt_export.progress import OnStage, ignore

if TYPE_CHECKING:
    from torch import nn

    from gpt_export.artifact.reading import Artifact
    from gpt_export.gate.limits import Limits
    from gpt_export.gate.report import ParityReport
    from gpt_export.linting.report import LintReport
    from gpt_export.pipeline.config import Gate


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
        output: the folder of the artifact; its parents are made.
        context_length: the longest sequence that is promised; the runtime refuses longer ones.
        vocab_size: the last axis of the logits; GPT-2's vocabulary gets GPT-2's tokenizer for the text case.
        name: the artifact's name in its manifest; the class's name if left out.
        opset: the version of the standard operators, 17 to 20.
        texts: what the text case is made of; None is two prompts of the book where the model has a tokenizer.
        cases: what is compared: `default` of about 2,000 positions, `full` for every shape whole, or names of cases.
        gate: on a failed comparison `enforce` publishes nothing, `report` publishes and records it; `off` compares
            nothing.
        seed: seeds the ids of the shape grid.
        torchscript: write `torchscript/model.pt` as well.
        force: replace an artifact that is at `output`.
        on_stage: called with the name of each stage when it begins.

    Returns:
        The published artifact.

    Raises:
        GptExportError: `ConfigError`, `SourceError`, `ScriptError`, `GraphError`, `OutputError`, or `ParityError` with
            the report; nothing was published then.
    """
    from gpt_export.pipeline.config import ExportConfig
    from gpt_export.pipeline.stages import export as export_source
    from gpt_export.sources.modes import evaluating
    from gpt_export.sources.source import source_of_module

    config = ExportConfig(
        opset=opset,
        texts=texts,
        cases=(cases,) if isinstance(cases, str) else cases,
        gate=gate,
        seed=seed,
        torchscript=torchscript,
    )
    with evaluating(module):
        source = source_of_module(
            module,
            name=name or type(module).__name__.lower(),
            record={"kind": "module", "class": type(module).__qualname__},
            vocab_size=vocab_size,
            context_length=context_length,
        )
        return export_source(source, config, Path(output), replace=force, on_stage=on_stage)


def validate(
    artifact: str | Path | Artifact,
    against: nn.Module | str | Path | None = None,
    *,
    cases: str | Sequence[str] = "default",
    texts: Sequence[str] | None = None,
    corpus: str | None = None,
    limits: Limits | None = None,
    context_length: int | None = None,
    config_file: str | Path | None = None,
    on_stage: OnStage = ignore,
) -> ParityReport:
    """The report on `artifact` compared with its model; `report.passed` is the verdict, `report.failures` the reasons.

    An artifact's hashes are verified first, and all its variants are compared. In an `.onnx` file of any origin inputs,
    outputs and weights are matched by name, shape and content.

    Args:
        artifact: an artifact folder, an opened `Artifact`, or an `.onnx` file.
        against: what it must be: a module from int64 ids (batch, sequence) to logits (a tensor, or an object with
            `logits` as transformers returns it), a checkpoint's path, or any SOURCE of the command line. None is the
            source that the artifact's manifest names, where a name and a seed suffice to make it again.
        cases: what is compared: `default` of about 2,000 positions, `full` for every shape whole, or names of cases.
        texts: what the text case is made of; None is what the artifact was exported with.
        corpus: a longer text, compared in windows of the context.
        limits: what is allowed; None is what the artifact was exported with, or the default for an `.onnx` file.
        context_length: the longest sequence for a module and an `.onnx` file; None asks the module's configuration.
        config_file: the book's configuration as JSON, for a checkpoint that does not say its head count.
        on_stage: called with the name of each stage when it begins.

    Raises:
        ArtifactError: the artifact is missing or damaged, or was made from a source of other sizes.
        SourceError: `against` is nothing that can be compared, or None where the manifest does not suffice.
        ConfigError: a case is not known.
    """
    from gpt_export.testing import compare

    return compare(
        artifact,
        against,
        cases=cases,
        texts=texts,
        corpus=corpus,
        limits=limits,
        context_length=context_length,
        config_file=config_file,
        on_stage=on_stage,
    )


def lint(
    path: str | Path,
    *,
    consumers: Sequence[str] = (),
    target_ort: str | None = None,
    ignore: Collection[str] = (),
) -> LintReport:
    """What can be seen to be wrong without running it; `report.findings` has code, severity, place, message and remedy.

    Args:
        path: an `.onnx` file, an artifact folder (each variant is looked at), or a folder of `.onnx` files.
        consumers: the loaders whose contracts must hold, of `optimum`, `transformers.js`, `onnxruntime-genai` and
            `triton`; none named is all of them, as far as they apply.
        target_ort: the oldest onnxruntime that must load the file, such as `1.17`.
        ignore: codes of rules to leave out, such as `GX001`.

    Raises:
        ArtifactError: there is nothing at `path`, or it is no ONNX model and holds none.
        ConfigError: a consumer, a release or a code is not known.
    """
    from gpt_export.linting.run import lint_path
    from gpt_export.linting.settings import LintSettings

    settings = LintSettings(consumers=tuple(consumers), target_ort=target_ort, ignore=frozenset(ignore))
    return lint_path(Path(path), settings)
