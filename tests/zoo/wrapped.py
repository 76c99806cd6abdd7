"""Modules inside wrappers, in half precision, or with weights that are computed from others."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.zoo.animal import VOCAB, animal
from tests.zoo.nanogpt import GPT, Config
from tests.zoo.rotations import Complex, Halves
from tests.zoo.trunk import WIDTH, Decoder

WRAPPERS = "torch.compile and DataParallel"
HALVES = "bfloat16 and float16"
WEIGHTS = "tied, weight-normed and LoRA weights"


class Symmetric(nn.Module):
    """A parametrization of one's own: the weight is what is stored, scaled to the length that is given."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / weight.norm(dim=0, keepdim=True).clamp(min=1e-6) * 0.9


class LowRank(nn.Module):
    """A frozen linear layer, and an update of low rank beside it."""

    def __init__(self, base: nn.Linear, rank: int = 4, alpha: float = 8.0) -> None:
        super().__init__()
        self.base = base
        self.base.weight.requires_grad_(False)
        self.lora_a, self.lora_b = nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features)
        self.dropout, self.scaling = nn.Dropout(0.05), alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.lora_b(self.lora_a(self.dropout(x))) * self.scaling


class Weightless(Decoder):
    """The head is the embedding, by a product with its weight; there is no head module at all."""

    def __init__(self) -> None:
        super().__init__(lambda _: Halves())
        del self.head

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T


class ByProperty(Weightless):
    """The head's weight is a property that looks up the embedding's."""

    @property
    def output_weight(self) -> Tensor:
        return self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return nn.functional.linear(self.norm(x), self.output_weight)


class Factored(nn.Module):
    """Embeddings of a narrow width that is projected up, and down again in front of the tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(VOCAB, 16)
        self.up, self.down = nn.Linear(16, WIDTH, bias=False), nn.Linear(WIDTH, 16, bias=False)
        self.inner = Decoder(lambda _: Halves())

    def forward(self, ids: Tensor) -> Tensor:
        x = self.up(self.tok(ids))
        for block in self.inner.blocks:
            x = block(x)
        return nn.functional.linear(self.down(self.inner.norm(x)), self.tok.weight)


class Mixed(Decoder):
    """Weights in bfloat16; norms and logits computed in float32, as many write it."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.float()).to(self.head.weight.dtype)).float()


@animal(WRAPPERS)
def compiled() -> nn.Module:
    return torch.compile(Decoder(lambda _: Halves()))


@animal(WRAPPERS, output="last")
def compiled_nanogpt() -> nn.Module:
    return torch.compile(GPT(Config(n_layer=1)))


@animal(WRAPPERS)
def data_parallel() -> nn.Module:
    return nn.DataParallel(Decoder(lambda _: Halves()))


@animal(WRAPPERS)
def compiled_blocks() -> nn.Module:
    """Each block by itself compiled, in place, which leaves no wrapper."""
    model = Decoder(lambda _: Halves())
    for block in model.blocks:
        block.compile()
    return model


@animal(HALVES)
def bfloat16() -> nn.Module:
    return Decoder(lambda _: Halves()).to(torch.bfloat16)


@animal(HALVES)
def float16() -> nn.Module:
    return Decoder(lambda _: Halves()).half()


@animal(HALVES)
def bfloat16_casts() -> nn.Module:
    return Mixed(lambda _: Halves()).bfloat16()


@animal(HALVES)
def bfloat16_beside_complex() -> nn.Module:
    """A complex table must come through the widening with both its halves."""
    model = Decoder(lambda _: Complex())
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    return model


@animal(WEIGHTS)
def tied_by_product() -> nn.Module:
    return Weightless()


@animal(WEIGHTS)
def tied_by_property() -> nn.Module:
    return ByProperty()


@animal(WEIGHTS)
def tied_and_factored() -> nn.Module:
    return Factored()


@animal(WEIGHTS)
def weight_norm() -> nn.Module:
    model = Decoder(lambda _: Halves())
    parametrizations.weight_norm(model.head)
    for block in model.blocks:
        parametrizations.weight_norm(block.feed.up)
    return model


@animal(WEIGHTS)
def weight_norm_by_hook() -> nn.Module:
    """The old way, that computes the weight in front of every call."""
    model = Decoder(lambda _: Halves())
    model.head = torch.nn.utils.weight_norm(model.head)
    return model


@animal(WEIGHTS)
def own_parametrization() -> nn.Module:
    model = Decoder(lambda _: Halves())
    parametrize.register_parametrization(model.blocks[0].mixer.q, "weight", Symmetric())
    return model


@animal(WEIGHTS)
def lora() -> nn.Module:
    model = Decoder(lambda _: Halves())
    for block in model.blocks:
        block.mixer.q, block.mixer.v = LowRank(block.mixer.q), LowRank(block.mixer.v)
    return model
