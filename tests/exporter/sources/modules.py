"""Small decoders in the forms in which people have them, and some that are no decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.samples import VOCAB, WithEmbedding

CLASSES = 3


class Mixed(WithEmbedding):
    """What the modules below share: each position sees the mean of those before it."""

    def mixed(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        count = torch.arange(1, ids.shape[1] + 1, dtype=torch.float32).unsqueeze(1)
        return torch.tanh(x + torch.cumsum(x, 1) / count)

    def logits(self, ids: Tensor) -> Tensor:
        return self.head(self.mixed(ids))


class WithLoss(Mixed):
    def forward(self, ids: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        logits = self.logits(ids)
        loss: Tensor | None = None
        if targets is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


class HiddenFirst(Mixed):
    """The logits stand second: the first tensor is as wide as the model, not as its vocabulary."""

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.mixed(ids), self.logits(ids)


class InDict(Mixed):
    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        return {"hidden": self.mixed(ids), "logits": self.logits(ids)}


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class InDataclass(Mixed):
    def forward(self, ids: Tensor) -> Output:
        return Output(None, self.logits(ids))


class InList(Mixed):
    def forward(self, ids: Tensor) -> list[Any]:
        return [self.logits(ids), [self.emb(ids)]]


class Flat(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids).flatten(0, 1)


class LastKept(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids)[:, -1:]


class LastAlone(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids)[:, -1]


class Tagger(Mixed):
    """Classes of every position, of which those after it are read too: no decoder, and none is promised."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        return self.head(torch.tanh(x + x.mean(1, keepdim=True)))


class Classifier(Tagger):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.mixed(ids).mean(1))


class OneHot(Mixed):
    """Takes rows out of its table without an embedding layer."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.emb.weight[ids]))


class Leaking(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        x = self.mixed(ids)
        return self.head(x + 0.01 * x.mean(1, keepdim=True))


class MixingRows(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        x = self.mixed(ids)
        return self.head(x + 0.01 * x.mean(0, keepdim=True))


class Drawing(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(self.mixed(ids), 0.5, True))


class NoScores(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        return ids * 2


class Doubled(Mixed):
    """Computes in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.emb(ids))


class Plain(Mixed):
    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids)


assert CLASSES * 2 < VOCAB
