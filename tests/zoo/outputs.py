"""What comes out other than a tensor of logits, and what may go in beside the ids."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal
from tests.zoo.rotations import Halves
from tests.zoo.trunk import HEADS, WIDTH, Decoder

OUTPUTS = "tuples, lists, dicts, dataclasses"
ARGUMENTS = "optional arguments and caches of their own"
CLASSES = "classification heads"
HEAD = WIDTH // HEADS


def body(**options: Any) -> Decoder:
    return Decoder(lambda _: Halves(), **options)


class InADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = body()

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(input_ids)}


class Hidden(nn.Module):
    """A dict that has the hidden states first, and None for a loss that nobody asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.model = body()

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor | None]:
        hidden = self.model.embed(input_ids)
        for block in self.model.blocks:
            hidden = block(hidden)
        logits = self.model.head(self.model.norm(hidden))
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"hidden": hidden, "loss": loss, "logits": logits}


@dataclass
class CausalOutput:
    logits: Tensor
    loss: Tensor | None = None


class InADataclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = body()

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> CausalOutput:
        return CausalOutput(logits=self.model(input_ids))


class Named(NamedTuple):
    loss: Tensor | None
    logits: Tensor


class InANamedTuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = body()

    def forward(self, ids: Tensor) -> Named:
        return Named(loss=None, logits=self.model(ids))


class InAList(nn.Module):
    """[logits, one tensor of hidden states a layer]."""

    def __init__(self) -> None:
        super().__init__()
        self.model = body()

    def forward(self, ids: Tensor) -> list[Tensor]:
        x = self.model.embed(ids)
        states = []
        for block in self.model.blocks:
            x = block(x)
            states.append(x)
        return [self.model.head(self.model.norm(x)), *states]


class ManyTokens(nn.Module):
    """A head for each of the next three tokens, stacked behind the logits of the first as (B, T, V), (B, 2, T, V)."""

    def __init__(self) -> None:
        super().__init__()
        self.model = body()
        self.further = nn.ModuleList([nn.Linear(VOCAB, VOCAB) for _ in range(2)])

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(ids)
        return logits, torch.stack([head(logits) for head in self.further], dim=1)


class KeyValueAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, HEADS, HEAD).transpose(1, 2) for part in self.qkv(x).split(c, dim=-1))
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        total = k.size(2)
        seen = torch.ones(t, total, dtype=torch.bool, device=x.device).tril(total - t)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.o(y.transpose(1, 2).reshape(b, t, c)), (k, v)


class WithCaches(nn.Module):
    """(logits, [(k, v) a layer]): a cache of its own, an optional list that it is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.ModuleList([KeyValueAttention() for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(3)])
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(
        self, ids: Tensor, past: list[tuple[Tensor, Tensor]] | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        start = 0 if past is None else past[0][0].size(2)
        x = self.tok(ids) + self.pos(torch.arange(start, start + ids.size(1), device=ids.device))
        caches = []
        for i, layer in enumerate(self.layers):
            y, cache = layer(self.norms[i](x), None if past is None else past[i])
            caches.append(cache)
            x = x + y
        return self.head(self.norms[-1](x)), caches


class ManyArguments(WithCaches):
    """targets, mask, past, use_cache, and a dict by keyword: all at their defaults."""

    def forward(
        self, ids, targets=None, mask=None, position_ids=None, past=None, use_cache=False, *, return_dict=False, **rest
    ):
        logits, caches = super().forward(ids, past)
        if mask is not None:
            logits = logits.masked_fill(mask[..., None] == 0, 0.0)
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        if return_dict:
            return {"logits": logits, "loss": loss, "past": caches if use_cache else None}
        return (logits, caches) if use_cache else logits


class MaskOfOnes(nn.Module):
    """An attention mask that is made of ones when none is given, and the positions counted from it."""

    def __init__(self) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.qkv, self.o, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, VOCAB)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        b, t = input_ids.shape
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        x = self.tok(input_ids) + self.pos(positions)
        q, k, v = (part.view(b, t, HEADS, HEAD).transpose(1, 2) for part in self.qkv(x).split(WIDTH, dim=-1))
        future = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        banned = future[None, None] | (attention_mask[:, None, None, :] == 0)
        scores = (q @ k.transpose(2, 3) / HEAD**0.5).masked_fill(banned, torch.finfo(x.dtype).min)
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, WIDTH))
        return self.head(F.gelu(x))


class Tagger(nn.Module):
    """Five classes for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.model = body()
        self.model.head = nn.Linear(WIDTH, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids)


class Judge(Tagger):
    """Five classes for the text, by its last token, or by the mean of all."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, ids: Tensor) -> Tensor:
        by_token = self.model(ids)
        return by_token.mean(dim=1) if self.mean else by_token[:, -1]


@animal(OUTPUTS)
def dict_of_logits() -> nn.Module:
    return InADict()


@animal(OUTPUTS)
def dict_with_hidden_and_none() -> nn.Module:
    return Hidden()


@animal(OUTPUTS)
def dataclass_of_logits() -> nn.Module:
    return InADataclass()


@animal(OUTPUTS)
def named_tuple_loss_first() -> nn.Module:
    return InANamedTuple()


@animal(OUTPUTS)
def list_with_states() -> nn.Module:
    return InAList()


@animal(OUTPUTS)
def several_token_heads() -> nn.Module:
    return ManyTokens()


@animal(ARGUMENTS)
def logits_and_caches() -> nn.Module:
    return WithCaches()


@animal(ARGUMENTS)
def many_arguments() -> nn.Module:
    return ManyArguments()


@animal(ARGUMENTS)
def mask_of_ones() -> nn.Module:
    return MaskOfOnes()


@animal(CLASSES, output="classes", classes=5, cached=False, because="classes")
def token_classes() -> nn.Module:
    return Tagger()


@animal(CLASSES, output="pooled", classes=5, cached=False, because="classes")
def text_classes_by_last() -> nn.Module:
    return Judge(mean=False)


@animal(CLASSES, output="pooled", classes=5, cached=False, because="classes")
def text_classes_by_mean() -> nn.Module:
    return Judge(mean=True)
