"""Names in scripted graphs, whatever the process compiled before: in any order, twice, and in threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import onnx
import onnx_ir as ir
import pytest
import torch
from gpt_export.graph.road_names import TakenRoad
from gpt_export.graph.roads import build
from gpt_export.runtime.signature import Head, example_sizes, uncached
from gpt_export_models.blank import without_weights
from torch import Tensor, nn

from tests import samples


class Inner(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(width, width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class Lists(nn.Module):
    """Lists of unlike kinds, one in another's parts."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.table = nn.Embedding(samples.VOCAB, width)
        self.blocks = nn.ModuleList([Inner(width), Inner(width)])
        self.ends = nn.ModuleList([nn.LayerNorm(width)])
        self.head = nn.Linear(width, samples.VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = x + block(x).cumsum(1)
        return self.head(x)


class Bare(nn.Module):
    """The same parts without lists."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(samples.VOCAB, width), Inner(width)
        self.head = nn.Linear(width, samples.VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.inner(self.table(ids)).cumsum(1))


MODULES: dict[str, Callable[[], nn.Module]] = {"lists": Lists, "wide": lambda: Lists(12), "bare": Bare}


def graph_of(name: str, road: TakenRoad = "script") -> bytes:
    module = samples.seeded(MODULES[name]()).eval()
    signature = uncached(Head(width=samples.VOCAB))
    built = build(without_weights(module), lambda: module, signature, 18, example_sizes(samples.CONTEXT), road=road)
    return ir.to_proto(built.model).SerializeToString()


@pytest.fixture(scope="module")
def alone() -> dict[str, bytes]:
    return {name: graph_of(name) for name in MODULES}


def orders() -> Iterator[tuple[str, ...]]:
    yield from itertools.permutations(MODULES)
    yield ("lists", "lists", "bare", "lists")


@pytest.mark.parametrize("order", list(orders()), ids=" ".join)
def test_a_graph_is_the_same_bytes_after_any_others(order: tuple[str, ...], alone: dict[str, bytes]) -> None:
    for name in order:
        assert graph_of(name) == alone[name]


def test_a_graph_is_the_same_bytes_after_its_module_was_scripted_by_its_user(alone: dict[str, bytes]) -> None:
    for make in MODULES.values():
        torch.jit.script(make())
    assert {name: graph_of(name) for name in MODULES} == alone


def test_graphs_that_are_made_in_threads_are_the_same_bytes(alone: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(3) as pool:
        for name, made in zip([*MODULES] * 2, pool.map(graph_of, [*MODULES] * 2), strict=True):
            assert made == alone[name]


def test_by_the_other_road_it_is_the_same_bytes_twice() -> None:
    first = {name: graph_of(name, "export") for name in MODULES}
    assert {name: graph_of(name, "export") for name in reversed(MODULES)} == first


def test_parts_of_lists_have_the_path_of_the_module(alone: dict[str, bytes]) -> None:
    names = " ".join(node.name for node in onnx.load_from_string(alone["lists"]).graph.node)
    assert "/blocks.0/steps.0/" in names
    assert "/blocks.1/steps.1/" in names
    assert " /0/" not in names


def test_what_was_scripted_before_is_left_as_it_was() -> None:
    module = samples.seeded(Lists()).eval()
    mine = torch.jit.script(module)
    ids = samples.random_ids(2, 5)
    before = samples.eager_logits(mine, ids)
    graph_of("lists")
    assert (samples.eager_logits(mine, ids) == before).all()
