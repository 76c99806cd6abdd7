"""Tables that are alike in every row at the lengths that are tried first, and not beyond: they are read by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpt_export.graph.roads import build
from gpt_export.passes.cache import derive_cache
from gpt_export.runtime.signature import example_sizes
from gpt_export.sources.source import source_of_module
from torch import Tensor, nn

from tests import samples
from tests.exporter.passes.cache.feeding import Derived, logits

CONTEXT = 64


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(samples.VOCAB, 16), nn.Embedding(CONTEXT, 16)
        self.qkv, self.head = nn.Linear(16, 48), nn.Linear(16, samples.VOCAB)

    def query(self, q: Tensor) -> Tensor:
        return q

    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = self.query(q) @ k.transpose(1, 2) / 4
        later = torch.ones(ids.size(1), ids.size(1), dtype=torch.bool, device=ids.device).triu(1)
        return self.head(x + scores.masked_fill(later, float("-inf")).softmax(-1) @ v)


class ScaledFarOut(Attends):
    """Queries are scaled from the thirtieth token on, as those of Llama 4 are from the eight thousandth."""

    def query(self, q: Tensor) -> Tensor:
        places = torch.arange(q.size(1), device=q.device).float()
        return q * (torch.log1p(torch.floor((places + 1) / 30)) * 2 + 1)[:, None]


class NoLessThanTwenty(Attends):
    """A table of positions that is as long as the text, and no shorter than twenty."""

    def embed(self, ids: Tensor) -> Tensor:
        n = max(ids.size(1), 20)
        return self.table(ids) + self.places(torch.arange(n, device=ids.device)[: ids.size(1)])


@pytest.mark.parametrize("kind", [ScaledFarOut, NoLessThanTwenty])
def test_what_changes_far_out_changes_in_the_cached_graph(kind: type[Attends]) -> None:
    source = source_of_module(samples.seeded(kind()).eval(), name="far", record={}, context_length=CONTEXT)
    plain = build(source.skeleton, source.reference, source.signature(), 18, example_sizes(CONTEXT)).model
    of = Derived(source, derive_cache(plain))
    ids = of.ids(2, 50)
    for pieces in ([50], [28, 1, 1, 1, 19]):
        np.testing.assert_allclose(logits(of, ids, pieces), of.eager(ids), atol=1e-4)
