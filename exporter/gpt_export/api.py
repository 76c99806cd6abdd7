"""The library's front door: what the commands do, as functions that take and return values.

Their imports stand inside: `help(gpt_export)` must work, and linting must not wait, where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_export.graph.opsets import DEFAULT_OPSET
from gpt_export.progress import OnStage, ignore
from gpt_export.wording import in_python_words

if TYPE_CHECKING:
    from torch import nn

    from gpt_export.artifact.reading import Artifact
    from gpt_export.artifact.variant_names import CacheKind
    from gpt_export.gate.limits import Limits
    from gpt_export.gate.report import ParityReport
    from gpt_export.graph.road_names import Road
    from gpt_export.linting.report import LintReport
    from gpt_export.pipeline.config import Gate, Profile
    from gpt_export.weights.quantize.schemes import Precision


@in_python_words
def export(
    source: nn.Module | str | Path,
    output: str | Path,
    *,
    context_length: int | None = None,
    vocab_size: int | None = None,
    name: str | None = None,
    config_file: str | Path | None = None,
    heads: int | None = None,
    weights: str | Path | None = None,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    lora_alpha: float | None = None,
    road: Road = "auto",
    cache: bool = True,
    precisions: str | Sequence[Precision] = "fp32",
    kv_cache: str | Sequence[CacheKind] = "fp32",
    calibration: str | None = None,
    profile: Profile | None = None,
    opset: int = DEFAULT_OPSET,
    texts: Sequence[str] | None = None,
    corpus: str | None = None,
    cases: str | Sequence[str] = "default",
    limits: Limits | None = None,
    gate: Gate = "enforce",
    seed: int = 123,
    torchscript: bool | None = None,
    single_file: bool = False,
    license: str | None = None,
    base_model: str | None = None,
    html: str | Path | None = None,
    force: bool = False,
    on_stage: OnStage = ignore,
) -> Artifact:
    """Exports `source` to ONNX, compares the files with it, and publishes them at `output`; `print` it for a line.

    A module maps int64 ids (batch, sequence) to scores: of the next token at every position or at the last one, or of
    classes; as a tensor, first in a tuple, or as `logits`. It is exported in eval mode and left in the mode it came in.
    Its parameters and buffers are the weights.

    Args:
        source: a module, the path of a checkpoint, or any SOURCE of the command line.
        output: the folder of the artifact; its parents are made.
        context_length: of a module, the longest sequence that is promised, which the runtime holds callers to; None
            asks the module's configuration, and tries where that says nothing.
        vocab_size: of a module, how many ids there are; None is the rows of the table that it looks them up in.
        name: the artifact's name in its manifest; that of the source if left out.
        config_file: JSON with what a factory takes; for a checkpoint of the book's code, its configuration.
        heads: how many heads a checkpoint has that does not say it.
        weights: a checkpoint to load into the class that `source` names as `package.module:factory`.
        adapter: a folder of PEFT's to merge into the weights; None is the one that lies beside them, `none` leaves that
            away.
        base: the model that the adapter at `source` was trained on.
        lora_alpha: alpha of the low-rank layers in a state dict of the book's.
        road: how a module becomes a graph: `script` is torch.jit.script, `export` torch.export, `auto` the first of
            the two that takes it.
        cache: give the graph a key-value cache where one can be had.
        precisions: the variants to write, of `fp32`, `fp16`, `int8` and `int4`.
        kv_cache: what keys and values are kept in, `fp32` or `int8`, or both for variants side by side.
        calibration: a text of the model's domain, for better int4.
        profile: `portable` for standard operators alone, `ort` for onnxruntime's fused ones as well; None is `ort`
            where the graph has a cache.
        opset: the version of the standard operators, 17 to 20.
        texts: what the text case is made of; None is two prompts of the book where the model has a tokenizer.
        corpus: a longer text to compare on, in windows of the context.
        cases: what is compared: `default` of some hundred positions, `full` for every shape whole, or names of cases.
        limits: what is allowed of float32 in place of the measured limits.
        gate: on a failed comparison `enforce` publishes nothing, `report` publishes and records it; `off` compares
            nothing.
        seed: seeds the ids of the shape grid, and weights that are drawn.
        torchscript: write `torchscript/model.pt` as well; None does so for modules that script.
        single_file: keep the weights in the `.onnx` file whatever their size; below 2 GB.
        license: the weights' licence for the model card, as the hub names it, such as `apache-2.0`.
        base_model: the hub's name of the model that this is an export of, for the model card.
        html: a file to write the report to, also when it fails.
        force: replace an artifact that is at `output`.
        on_stage: called with the name of each stage when it begins.

    Returns:
        The published artifact.

    Raises:
        GptExportError: `ConfigError`, `SourceError`, `CheckpointError`, `ScriptError`, `GraphError`, `OutputError`, or
            `ParityError` with the report; nothing was published then.
    """
    from gpt_export.pipeline.config import ExportConfig
    from gpt_export.pipeline.published import publish
    from gpt_export.sources.modes import evaluating
    from gpt_export.sources.names import source_of

    config = ExportConfig(
        opset=opset,
        texts=None if texts is None else tuple(texts),
        corpus=corpus,
        cases=(cases,) if isinstance(cases, str) else tuple(cases),
        limits=limits,
        gate=gate,
        seed=seed,
        torchscript=torchscript,
        profile=profile,
        road=road,
        cache=cache,
        precisions=(precisions,) if isinstance(precisions, str) else tuple(precisions),  # type: ignore[arg-type]
        kv_caches=(kv_cache,) if isinstance(kv_cache, str) else tuple(kv_cache),  # type: ignore[arg-type]
        calibration=calibration,
        single_file=single_file,
        license=license,
        base_model=base_model,
    )
    with evaluating(source):
        found = source_of(
            source,
            name=name,
            context_length=context_length,
            vocab_size=vocab_size,
            seed=seed,
            config_file=_path(config_file),
            heads=heads,
            weights=_path(weights),
            adapter=adapter,
            base=_path(base),
            lora_alpha=lora_alpha,
            cached=cache,
        )
        return publish(found, config, Path(output), replace=force, html=_path(html), on_stage=on_stage)


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)


@in_python_words
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
    heads: int | None = None,
    weights: str | Path | None = None,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    lora_alpha: float | None = None,
    roles: Sequence[str] = (),
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
        cases: what is compared: `default` of some hundred positions, `full` for every shape whole, or names of cases.
        texts: what the text case is made of; None is what the artifact was exported with.
        corpus: a longer text, compared in windows of the context.
        limits: what is allowed; None is what the artifact was exported with, or the default for an `.onnx` file.
        context_length: the longest sequence for a module and an `.onnx` file; None asks the module's configuration.
        config_file: the book's configuration as JSON, for a checkpoint that does not say its head count.
        heads: the head count of such a checkpoint.
        weights: a checkpoint for a `package.module:factory`.
        adapter: a folder of PEFT's that is merged into a source by name; `none` leaves away the one beside its weights.
        base: the model of the adapter that `against` is.
        lora_alpha: the scaling of low-rank layers in a state dict of the book's.
        roles: what inputs and outputs of an `.onnx` file mean, as `NAME=ROLE`, where it cannot be guessed.
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
        heads=heads,
        weights=weights,
        adapter=adapter,
        base=base,
        lora_alpha=lora_alpha,
        roles=roles,
        on_stage=on_stage,
    )


@in_python_words
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
