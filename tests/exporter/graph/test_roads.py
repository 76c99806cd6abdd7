"""Which road is taken, and what is said of the other."""

from __future__ import annotations

import pytest
import torch
from gpt_export.errors import GraphError, ScriptError
from gpt_export.graph.road_names import Road
from gpt_export.graph.roads import BuiltGraph, build
from gpt_export.runtime.signature import Head, example_sizes, uncached
from gpt_export_models.blank import without_weights
from torch import Tensor, nn

from tests import samples


class NoScript(samples.WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        double = lambda x: x + x  # noqa: E731
        return self.head(double(self.emb(ids)))


class Neither(samples.WithEmbedding):
    def forward(self, ids: Tensor) -> Tensor:
        double = lambda x: x + x  # noqa: E731
        if ids.sum() > 3:
            return self.head(self.emb(ids))
        return self.head(double(self.emb(ids)))


def built(module: nn.Module, road: Road) -> BuiltGraph:
    module = module.eval()
    sizes = example_sizes(samples.CONTEXT)
    signature = uncached(Head(width=samples.VOCAB))
    return build(without_weights(module), lambda: module, signature, 18, sizes, road=road, longest=samples.CONTEXT)


def test_a_module_that_scripts_goes_by_script() -> None:
    graph = built(samples.Branching(), "auto")
    assert (graph.road, graph.why_not) == ("script", None)
    assert "If" in {node.op_type for node in graph.model.graph}


def test_a_module_that_does_not_script_goes_by_export_and_the_reason_is_kept() -> None:
    graph = built(NoScript(), "auto")
    assert graph.road == "export"
    assert graph.why_not is not None
    assert "NoScript does not script: Lambda aren't supported" in graph.why_not
    assert "test_roads.py, line " in graph.why_not
    assert "\n" not in graph.why_not


def test_the_road_that_is_asked_for_is_taken() -> None:
    assert built(samples.Plain(), "export").road == "export"
    with pytest.raises(ScriptError):
        built(NoScript(), "script")


def test_when_both_roads_fail_the_error_has_both_reasons_with_lines() -> None:
    with pytest.raises(GraphError) as caught:
        built(Neither(), "auto")
    message = str(caught.value)
    by_script, by_export = message.split("; by torch.export: ")
    assert by_script.startswith("by script: Neither does not script: Lambda")
    assert "depends on the values of a tensor" in by_export
    assert message.count("test_roads.py, line ") == 2
    assert "\n" not in message


@pytest.mark.parametrize("road", ["script", "export"])
def test_a_module_with_a_loose_tensor_goes_either_road_with_its_weights(road: Road) -> None:
    assert built(samples.Loose(), road).road == road


def test_the_modules_weights_are_left_alone() -> None:
    module = samples.tiny_gpt()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    built(module, "export")
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
