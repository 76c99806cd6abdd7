"""The graph of a source, by the road that takes its module."""

from __future__ import annotations

import dataclasses
import logging

import onnx_ir as ir

from gpt_export.errors import ConfigError, ScriptError
from gpt_export.graph.roads import BuiltGraph, build
from gpt_export.graph.script import script, script_cached
from gpt_export.graph.to_onnx import to_onnx
from gpt_export.graph.torchscript import check_saves
from gpt_export.passes import portable_passes, run_passes
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.derived_cache import with_derived_cache
from gpt_export.progress import OnStage, ignore
from gpt_export.runtime.signature import example_sizes
from gpt_export.sources.source import Source

logger = logging.getLogger(__name__)

ROAD_NAMES = {"script": "torch.jit.script", "export": "torch.export"}


def build_graph(source: Source, config: ExportConfig, on_stage: OnStage = ignore) -> ir.Model:
    """The graph of `source_and_graph` alone."""
    return source_and_graph(source, config, on_stage)[1]


def source_and_graph(source: Source, config: ExportConfig, on_stage: OnStage = ignore) -> tuple[Source, ir.Model]:
    """The graph of `source` in standard operators, its weights still inputs; and the source with what that showed.

    The latter are the road that took it, its cache, the context that the cache holds, and notes on each.

    Raises:
        ConfigError, ScriptError, GraphError: as in `take_road`.
    """
    built = take_road(source, config, on_stage)
    source, model = with_road(source, built), built.model
    if source.cache is None and source.cacheable and config.cache:
        on_stage("derive the cache")
        source, model = with_derived_cache(source, model)
    on_stage("passes")
    return source, run_passes(model, portable_passes(source.first_names()))


def take_road(source: Source, config: ExportConfig, on_stage: OnStage = ignore) -> BuiltGraph:
    """The graph of `source` as a road made it, its weights still inputs.

    Raises:
        ConfigError: the road is not one for our own decoder with a cache, which is written to be scripted.
        ScriptError, GraphError: no road that may be taken takes the module; the message has every reason.
    """
    signature, sizes = source.signature(), example_sizes(source.context_length)
    on_stage("graph")
    if source.cache:
        if config.road == "export":
            raise ConfigError(f"{source.name} is a graph with a cache, which is scripted; leave --road export out")
        scripted = script_cached(source.skeleton, source.cache.n_layers)
        built = BuiltGraph(model=to_onnx(scripted, signature, config.opset, sizes, "meta"), road="script")
    else:
        built = build(
            source.skeleton,
            source.reference,
            signature,
            config.opset,
            sizes,
            road=config.road,
            longest=source.context_length,
        )
    return built


def with_road(source: Source, built: BuiltGraph) -> Source:
    """`source` with the road in its record, and a note on why it was not the first one."""
    source = dataclasses.replace(source, record={**source.record, "road": built.road})
    if built.why_not is None:
        return source
    reason = built.why_not.rpartition("; ")[0] or built.why_not  # without what to do about it: nothing need be done
    note = f"the graph was made by {ROAD_NAMES[built.road]}, because {reason}"
    return dataclasses.replace(source, notes=(*source.notes, note))


def scripts(source: Source) -> bool:
    """Whether TorchScript takes the module and can save it, which is tried."""
    try:
        check_saves(script(source.skeleton))
    except ScriptError as error:
        logger.info("no TorchScript: %s", error)
        return False
    return True


def without_script(source: Source, config: ExportConfig) -> Source:
    """`source` with a note where `model.pt` is left out only because the module does not script."""
    if config.torchscript is None and config.onnx and source.torchscript and not scripts(source):
        note = "there is no torchscript/model.pt, because the module does not script"
        return dataclasses.replace(source, torchscript=False, notes=(*source.notes, note))  # tried once is enough
    return source
