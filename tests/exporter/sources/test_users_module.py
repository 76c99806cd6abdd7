"""What is given is left as it was: its weights, its parts, and what it computes."""

from __future__ import annotations

import threading
from pathlib import Path

import gpt_export
import numpy as np
import pytest
import torch
from gpt_export.runtime import Session
from gpt_export.sources.modes import as_it_came
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tests import samples

IDS = samples.random_ids(2, 5)


class LowRank(nn.Module):
    """A parametrization of one tensor, which torch writes into that tensor where it is removed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(width, 2)), nn.Parameter(torch.randn(2, width))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.a @ self.b


class Mixed(samples.WithEmbedding):
    """A running sum, so that there is a sequence to speak of."""

    def __init__(self) -> None:
        super().__init__()
        self.block_size = 64
        width = self.emb.embedding_dim
        self.inner = nn.Linear(width, width, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.inner(self.emb(ids)).cumsum(1))


def test_a_parametrized_module_is_exported_twice_with_what_it_computed_at_first(tmp_path: Path) -> None:
    module = samples.seeded(Mixed()).eval()
    parametrize.register_parametrization(module.inner, "weight", LowRank(module.inner.in_features))
    before = samples.eager_logits(module, IDS)
    for name in ("first", "second"):
        artifact = gpt_export.export(module, tmp_path / name)
        np.testing.assert_allclose(Session.open(artifact.folder).logits(IDS), before, atol=1e-4)
        assert (samples.eager_logits(module, IDS) == before).all()
    assert parametrize.is_parametrized(module.inner)


def test_a_module_that_holds_what_cannot_be_copied_is_exported(tmp_path: Path) -> None:
    module = samples.seeded(Mixed()).eval()
    module.lock = threading.Lock()  # type: ignore[assignment]
    artifact = gpt_export.export(module, tmp_path / "a")
    np.testing.assert_allclose(Session.open(artifact.folder).logits(IDS), samples.eager_logits(module, IDS), atol=1e-4)


def test_weights_of_eight_bits_are_refused_as_quantised(tmp_path: Path) -> None:
    module = samples.seeded(Mixed()).eval()
    module.inner.weight = nn.Parameter(module.inner.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(gpt_export.errors.SourceError, match="quantised already"):
        gpt_export.export(module, tmp_path / "a")


class Noting(Mixed):
    """Notes in itself what it was run on, in the ways that people do."""

    def __init__(self) -> None:
        super().__init__()
        self.block_size = 24
        self.last_length = 0
        self.seen: list[Tensor] = [torch.zeros(1)]
        self.tables: dict[int, Tensor] = {}
        self.table: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        if length != self.last_length:
            self.last_length = length
            self.steps = torch.arange(length)
            self.table = torch.full((length, 1), 0.5)
        self.seen[0] = torch.ones(1)
        assert self.table is not None
        self.tables[0] = self.table
        return super().forward(ids) + self.table


def test_what_a_module_notes_of_its_runs_is_taken_back(tmp_path: Path) -> None:
    module = samples.seeded(Noting()).eval()
    own = module.seen[0]
    for name in ("first", "second"):
        artifact = gpt_export.export(module, tmp_path / name)
        assert module.last_length == 0
        assert module.seen == [own]
        assert module.tables == {}
        assert module.table is None
        assert not hasattr(module, "steps")
        for length in (1, 7, 24):
            ids = samples.random_ids(2, length)
            found = Session.open(artifact.folder).logits(ids)
            np.testing.assert_allclose(found, samples.eager_logits(samples.seeded(Noting()).eval(), ids), atol=1e-4)


def test_buffers_that_a_run_registers_are_taken_back() -> None:
    class Registering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", None, persistent=False)

        def forward(self, ids: Tensor) -> Tensor:
            self.register_buffer("mask", torch.ones(ids.shape[1]), persistent=False)
            self.register_buffer("another", torch.ones(1))
            return ids

    module = nn.Sequential(Registering(), nn.Linear(2, 2))
    weight = module[1].weight
    with as_it_came(module):
        module[0](torch.zeros(1, 5))
        assert module[0].mask.shape == (5,)
    assert dict(module[0].named_buffers()) == {}
    assert module[0].mask is None
    assert module[1].weight is weight
