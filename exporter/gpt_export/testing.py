"""For other people's tests: an exported GPT must be the model that it was made from.

    from gpt_export.testing import assert_parity

    def test_the_export_is_the_model():
        assert_parity("artifacts/mine", my_model())

Under pytest the same is a fixture, and its verdicts stand in the summary; see `gpt_export.pytest_plugin`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from gpt_export.artifact.onnx_bytes import read_proto
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ConfigError
from gpt_export.gate.foreign.validate import validate_file
from gpt_export.gate.limits import Limits
from gpt_export.gate.report import ParityReport
from gpt_export.gate.settings import GateSettings
from gpt_export.pipeline.revalidate import revalidate, revalidate_file
from gpt_export.pipeline.strangers import validate_against
from gpt_export.progress import OnStage, ignore
from gpt_export.runtime.signature import CacheShape, LayerCache
from gpt_export.sources.modes import evaluating
from gpt_export.sources.source import Source, source_of_module

SHOWN_FAILURES = 5
"""How many failures a message has in words."""


def assert_parity(
    artifact: str | Path | Artifact,
    model: nn.Module | str | Path | None = None,
    *,
    cases: str | Sequence[str] = "default",
    limits: Limits | None = None,
    context_length: int | None = None,
    config_file: str | Path | None = None,
) -> ParityReport:
    """The parity report on `artifact`, if it passed; otherwise an assertion fails with the report in words.

    Args:
        artifact: an artifact folder, an opened `Artifact`, or an `.onnx` file of any origin.
        model: what it must be: a module from int64 ids (batch, sequence) to logits (a tensor, or an object with
            `logits` as transformers returns it), a checkpoint's path, or any SOURCE of the command line. None is the
            source that the artifact's manifest names, where a name and a seed suffice to make it again.
        cases: `default` of some hundred positions, `full`, or names of cases.
        limits: what is allowed; None is what the artifact was exported with, or the default.
        context_length: the longest sequence for a module and an `.onnx` file; None asks the module's configuration.
        config_file: the book's configuration as JSON, for a checkpoint that does not say its head count.

    Returns:
        The report, `passed`.

    Raises:
        AssertionError: an output, a weight or the graph is not the model's. `report` of the error is the report.
        ArtifactError: the artifact is missing or damaged.
        SourceError: `model` is nothing that can be compared.
    """
    report = compare(
        artifact, model, cases=cases, limits=limits, context_length=context_length, config_file=config_file
    )
    if not report.passed:
        __tracebackhide__ = True  # the test's own line is where pytest should point
        error = ParityAssertionError(in_words(report, str(getattr(artifact, "folder", artifact))))
        error.report = report
        raise error
    return report


def compare(
    artifact: str | Path | Artifact,
    model: nn.Module | str | Path | None = None,
    *,
    cases: str | Sequence[str] = "default",
    texts: Sequence[str] | None = None,
    corpus: str | None = None,
    limits: Limits | None = None,
    context_length: int | None = None,
    config_file: str | Path | None = None,
    roles: Sequence[str] = (),
    on_stage: OnStage = ignore,
    **named: Any,
) -> ParityReport:
    """The parity report on `artifact`, passed or not; arguments and errors are those of `gpt_export.validate`."""
    path = artifact.folder if isinstance(artifact, Artifact) else Path(artifact)
    settings = GateSettings(
        cases=(cases,) if isinstance(cases, str) else tuple(cases),
        texts=None if texts is None else tuple(texts),
        corpus=corpus,
        limits=limits,
    )
    if roles and not path.is_file():
        raise ConfigError(f"roles are for an .onnx file, and {path} says what its inputs are; leave them out")
    if isinstance(model, nn.Module):
        if said := [name for name, value in named.items() if value is not None]:
            raise ConfigError(f"{', '.join(said)} is for a source by name, and this is a module; leave it out")
        with evaluating(model):
            return _against_module(path, model, settings, context_length, tuple(roles), on_stage)
    for name in ("weights", "base"):
        named[name] = None if named.get(name) is None else Path(named[name])
    named |= {
        "against": None if model is None else str(model),
        "config_file": None if config_file is None else Path(config_file),
        "on_stage": on_stage,
    }
    if path.is_file():
        return revalidate_file(path, settings, roles=tuple(roles), **named)
    return revalidate(path, settings, **named)


class ParityAssertionError(AssertionError):
    """An artifact that is not the model; `report` has the figures."""

    report: ParityReport


def in_words(report: ParityReport, what: str) -> str:
    """The report as a test's message: what failed first, where the graph leaves the model, and what was allowed."""
    total = sum(len(results) for results in report.targets.values())
    failed = sum(not result.passed for results in report.targets.values() for result in results)
    if report.passed:
        return f"{what} is the model: {summary(report)}"
    lines = [f"{what} is not the model: {failed} of {total} cases failed"]
    lines += [f"  {failure}" for failure in report.failures[:SHOWN_FAILURES]]
    if len(report.failures) > SHOWN_FAILURES:
        lines.append(f"  and {len(report.failures) - SHOWN_FAILURES} more")
    if report.first_fault:
        lines.append(f"  {report.first_fault.explain()}")
    lines += [f"  note: {note}" for note in report.notes]
    return "\n".join(lines)


def summary(report: ParityReport) -> str:
    """The report in one line, without its subject."""
    results = [result for found in report.targets.values() for result in found]
    positions = sum(result.positions for result in results)
    worst = max((result.worst_ratio for result in results), default=0.0)
    weights = "" if report.weights is None else f", {report.weights.checked} weights equal bit for bit"
    if report.passed:
        return f"{len(results)} cases, {positions} positions, largest difference {worst:.0%} of the limit{weights}"
    fault = report.first_fault
    where = f"; {fault.explain()}" if fault else ""
    return f"{report.failures[0]}{where}"


def _against_module(
    path: Path,
    module: nn.Module,
    settings: GateSettings,
    context_length: int | None,
    roles: tuple[str, ...],
    on_stage: OnStage,
) -> ParityReport:
    if path.suffix == ".onnx":
        source = _source(module, path.stem, None, context_length, _cache_of(path))
        return validate_file(path, source, settings, roles=roles, on_stage=on_stage)
    artifact = Artifact.open(path)
    export, model = artifact.manifest.export, artifact.manifest.model
    source = _source(module, artifact.manifest.name, int(model["vocab_size"]), int(model["context_length"]), None)
    settings = settings.completed(export)
    if source.tokenizer is None:  # which no module brings
        settings = dataclasses.replace(settings, texts=None, corpus=None)
    return validate_against(artifact, source, settings, on_stage=on_stage)


def _source(
    module: nn.Module, name: str, vocab_size: int | None, context_length: int | None, cache: CacheShape | None
) -> Source:
    record = {"kind": "module", "class": type(module).__qualname__}
    source = source_of_module(module, name=name, record=record, vocab_size=vocab_size, context_length=context_length)
    return dataclasses.replace(source, cache=cache)


def _cache_of(path: Path) -> CacheShape | None:
    """The cache of an `.onnx` file, from its inputs of four axes: past keys and values; None without any."""
    inputs = read_proto(path).graph.input
    past = [dims for value in inputs if len(dims := value.type.tensor_type.shape.dim) == 4]
    if not past:
        return None
    return CacheShape(
        tuple(
            LayerCache(n_heads=key[1].dim_value, key_dim=key[3].dim_value, value_dim=value[3].dim_value)
            for key, value in zip(past[::2], past[1::2], strict=True)
        )
    )
