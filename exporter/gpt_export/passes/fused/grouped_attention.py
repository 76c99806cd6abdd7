"""Attention over a cache, in whatever operators it is written, becomes onnxruntime's GroupQueryAttention.

The operator appends the new keys and values to the past (in place, where both are one buffer), turns them by position,
hides what lies after a query or before its window, and adds `attention_bias` to the scores: padding is hidden by it, so
that left-padded rows stay right. Contract: the documentation of onnxruntime's contrib operators.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from torch import Tensor

from gpt_export.passes.building import CONTRIB, name_outputs
from gpt_export.passes.fused.attention_inputs import AttentionInputs, packed_operands
from gpt_export.passes.fused.attention_reading import Reader, Reading
from gpt_export.passes.fused.attention_sites import NoSiteError, Site, sites
from gpt_export.passes.fused.dataflow import Dataflow
from gpt_export.passes.fused.evaluation import Evaluator, UnknownValueError
from gpt_export.passes.fused.facts import AttentionFacts, attention_facts, set_attention_facts
from gpt_export.passes.fused.probes import Probe
from gpt_export.passes.fused.scores import OtherScoresError

logger = logging.getLogger(__name__)
Array = np.ndarray
_CLOSE = 1e-4


class FuseGroupedAttention(InPlacePass):
    """Rewrites the attention of every layer whose facts the operator has, and leaves `AttentionFacts` with the model.

    Facts are found by running parts of the graph (`attention_reading`). Whatever they are, a layer is rewritten only if
    its operator gives on random numbers what the layer gave: padded, behind a past and without.

    Args:
        weights: the numbers of the weights; only tables, masks and sinks are read.
        context_length: the longest text.
    """

    def __init__(self, weights: Mapping[str, Tensor], context_length: int) -> None:
        super().__init__()
        self._weights = weights
        self._context = context_length

    def call(self, model: ir.Model) -> PassResult:
        graph = model.graph
        flow = Dataflow(graph)
        evaluate = Evaluator(model, self._weights)
        reader = Reader(graph, flow, evaluate, self._context)
        inputs = AttentionInputs(graph, reader)
        found = {layer: site for layer, site in sites(graph, flow).items() if not _is_fused(graph, layer)}
        known = [site for site in found.values() if isinstance(site, Site)]
        try:
            shapes = reader.shapes(known) if known else {}
        except UnknownValueError as error:
            logger.info("attention stays as it is: %s", error)
            return PassResult(model, modified=False)
        facts: list[AttentionFacts] = []
        for layer, site in found.items():
            try:
                if isinstance(site, str):
                    raise NoSiteError(site)
                reading = reader.read(site, shapes)
                _rewrite(graph, reading, inputs, reader, self._context)
                facts.append(_facts(reading))
            except (NoSiteError, OtherScoresError, UnknownValueError) as error:
                logger.info("layer %d keeps its attention in standard operators: %s", layer, error)
                facts.append(AttentionFacts(layer=layer, plain=str(error)))
        if found:
            set_attention_facts(model, sorted([*_kept(model, found), *facts], key=lambda each: each.layer))
        modified = any(each.plain is None for each in facts)
        if modified:
            model.opset_imports.setdefault(CONTRIB, 1)
        return PassResult(model, modified=modified)


def _is_fused(graph: ir.Graph, layer: int) -> bool:
    present = next(value for value in graph.outputs if value.name == f"present.{layer}.key")
    node = present.producer()
    return node is not None and node.op_type == "GroupQueryAttention"


def _kept(model: ir.Model, found: Mapping[int, object]) -> list[AttentionFacts]:
    return [each for each in attention_facts(model) if each.layer not in found]


def _facts(reading: Reading) -> AttentionFacts:
    rotation, scores = reading.rotation, reading.scores
    kind = "not" if rotation is None else "interleaved" if rotation.interleaved else "halves"
    return AttentionFacts(
        layer=reading.site.layer,
        heads=reading.heads,
        kv_heads=reading.kv_heads,
        head_dim=reading.head_dim,
        scale=scores.scale,
        cap=scores.cap,
        window=scores.window,
        turned="in front" if reading.turned_in_front else kind,  # type: ignore[arg-type]
        rotated=rotation.width if rotation else 0,
        bias=scores.bias,
        sinks=scores.sink is not None,
    )


def _rewrite(graph: ir.Graph, reading: Reading, inputs: AttentionInputs, reader: Reader, context: int) -> None:
    """Puts the operator beside what it replaces, compares both, and lets all readers read it.

    Raises:
        NoSiteError: they differ.
    """
    site, scores = reading.site, reading.scores
    name = f"/attention.{site.layer}"
    before, given = inputs.of(reading, name)
    attributes: dict[str, object] = {
        "num_heads": reading.heads,
        "kv_num_heads": reading.kv_heads,
        "scale": scores.scale,
    }
    if scores.window:
        attributes["local_window_size"] = scores.window
    if scores.cap:
        attributes["softcap"] = scores.cap
    node = ir.node("GroupQueryAttention", given, attributes=attributes, domain=CONTRIB, num_outputs=3, name=name)  # type: ignore[arg-type]
    name_outputs(node)
    behind, out = reading.out.form.restored(node.outputs[0], name)
    mixed = site.outs[0].producer()
    assert mixed is not None
    added = [*before, node, *behind]
    graph.insert_before(mixed, added)
    if (error := _difference(reading, [out, *node.outputs[1:]], reader, context)) > _CLOSE:
        for each in reversed(added):
            graph.remove(each, safe=True)
        raise NoSiteError(f"GroupQueryAttention gives other numbers for it, by {error:.2g} of the largest")
    reading.out.value.replace_all_uses_with(out)
    for plain, fused in ((site.present_key, node.outputs[1]), (site.present_value, node.outputs[2])):
        _put_out(graph, plain, fused)


def _put_out(graph: ir.Graph, plain: ir.Value, fused: ir.Value) -> None:
    """`fused` in place of the output `plain`, under its name."""
    fused.type, fused.shape = plain.type, plain.shape
    graph.outputs[list(graph.outputs).index(plain)] = fused
    plain.name, fused.name = f"{plain.name}/plain", plain.name


def _difference(reading: Reading, fused: list[ir.Value], reader: Reader, context: int) -> float:
    """By how much the operator and what it replaces differ where nothing is padding, relative to the largest number."""
    worst = 0.0
    new = min(6, context)
    probes = [Probe(2, 0, new, (0, new // 2)), Probe(1, context - new, new) if context < 64 else Probe(1, 60, 4)]
    probes.append(Probe(2, min(9, context - 1), 1, (0, 2)))
    if reading.scores.window and reading.scores.window < context:
        probes.append(Probe(2, reading.scores.window, 1, (0, 1)))
    for seed, probe in enumerate(probes):
        worst = max(worst, _difference_at(reading, fused, reader, probe, seed))
    return worst


def _difference_at(reading: Reading, fused: list[ir.Value], reader: Reader, probe: Probe, seed: int) -> float:
    rng = np.random.default_rng(seed)
    site = reading.site
    given = reader.inputs(probe)
    for value in (site.past_key, site.past_value):
        given[value] = rng.normal(size=given[value].shape).astype(np.float32)
    flats = []
    for raw in (reading.query, reading.key, reading.new_value):
        flats.append(rng.normal(size=(probe.batch, probe.new, raw.form.width)).astype(np.float32))
        given[raw.value] = raw.form.laid_out(flats[-1])
    if packed := packed_operands(reading):
        given[packed] = np.concatenate(flats, axis=-1)
    plain = reader.evaluate([reading.out.value, site.present_key, site.present_value], given)
    found = reader.evaluate(fused, given)
    real = probe.real
    worst = 0.0
    for index, (one, other) in enumerate(zip(plain, found, strict=True)):
        if index == 0:
            one, other = (reading.out.form.flat(each, probe.batch)[real] for each in (one, other))
        else:
            one, other = (np.moveaxis(each, 2, 1)[probe.mask.astype(bool)] for each in (one, other))
        worst = max(worst, float(np.abs(one - other).max() / max(float(np.abs(one).max()), 1e-6)))
    return worst if np.isfinite(worst) else np.inf
