"""A published float32 artifact as a source: its graph is the reference, its file has the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from gpt_export_models.carried_tokenizer import CarriedTokenizer
from gpt_export_models.tokenizer_files import is_tokenizers
from torch import Tensor, nn

from gpt_export.artifact.onnx_bytes import read_proto
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError
from gpt_export.pipeline.variants import FUSED
from gpt_export.runtime.session import Session
from gpt_export.runtime.signature import CacheShape
from gpt_export.runtime.tokenizing import open_tokenizer
from gpt_export.sources.source import Source
from gpt_export.weights.layout import Layout, set_layout

BASE = "fp32"


class PublishedModel(nn.Module):
    """The float32 graph of an artifact as a module: ids, int64 (batch, sequence), to what the graph says of them."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        self._session = Session.of(artifact, BASE, prepack=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Scores, float32, as the graph's head has them."""
        return torch.from_numpy(self._session.logits(ids.numpy()))


def published_source(artifact: Artifact) -> tuple[Source, ir.Model]:
    """The source that `artifact` is, and its float32 graph with its weights as inputs again.

    Weights keep the names of the parameters that they were exported from. Of parameters that were joined in one
    matrix the first has all of it and the others have no rows, so that joined again they are what they were.

    Raises:
        ArtifactError: the artifact has no float32 graph, is damaged, or its manifest lacks a weight of it.
    """
    manifest = artifact.manifest
    path = artifact.variant_path(BASE)
    artifact.verify()
    read_proto(path)  # which refuses what the next line would choke on
    model = ir.load(path)
    layouts = {name: Layout.from_dict(value) for name, value in manifest.variants[BASE]["weights"].items()}
    weights = _weights(model, layouts, artifact)
    model.meta[FUSED] = manifest.variants[BASE].get("profile") == "ort"
    cache, found = manifest.variants[BASE]["cache"], manifest.model
    judge = found.get("judged_against")
    session = Session.of(artifact, BASE, prepack=False)
    source = Source(
        name=manifest.name,
        record={**manifest.source, "quantized_from": manifest.model_digest},
        vocab_size=int(found["vocab_size"]),
        context_length=int(found["context_length"]),
        judged_against=f"the fp32 graph of {manifest.name}" + (f", which was judged against {judge}" if judge else ""),
        reference=lambda: PublishedModel(artifact),
        skeleton=nn.Identity(),
        weights=weights,
        head=session.head,
        cache=CacheShape.from_dict(cache) if cache else None,
        turns=tuple(found.get("turns", ())),
        torchscript=False,
        published=True,
        tokenizer=open_tokenizer(artifact.folder, manifest),
        carried=_carried(artifact) if found["tokenizer"] == CarriedTokenizer.name else (),
        configuration=found["configuration"],
        notes=tuple(found["notes"]),
    )
    return source, model


def _carried(artifact: Artifact) -> tuple[Path, ...]:
    """The files of the checkpoint's own tokenizer, as far as the artifact has them."""
    return tuple(artifact.folder / name for name in sorted(artifact.manifest.files) if is_tokenizers(name))


def _weights(model: ir.Model, layouts: Mapping[str, Layout], artifact: Artifact) -> dict[str, Tensor]:
    """Turns initializers with a layout into inputs; gives their numbers by the names of their sources."""
    weights: dict[str, Tensor] = {}
    graph = model.graph
    if missing := layouts.keys() - graph.initializers.keys():
        raise ArtifactError(
            f"{artifact.folder} has no weight {min(missing)}, which its manifest names; export it again"
        )
    for name in [name for name in graph.initializers if name in layouts]:  # in the order in which they were written
        value, layout = graph.initializers[name], layouts[name]
        assert value.const_value is not None
        tensor = _mapped(value.const_value.numpy())
        rows = tensor.T if layout.transposed else tensor
        for i, source in enumerate(layout.sources):
            if source in weights and (i or weights[source].shape != rows.shape):
                raise ArtifactError(
                    f"{artifact.folder} has the parameter {source} in two matrices, so its file cannot be taken apart; "
                    "quantise from the checkpoint: gpt-export onnx SOURCE --precision int4"
                )
            weights[source] = rows[:0] if i else rows
        value.const_value = None
        del graph.initializers[name]
        graph.inputs.append(value)
        set_layout(value, layout)
    return weights


def _mapped(array: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file is mapped for reading, and nothing here writes
        return torch.from_numpy(array)
