"""Modules that no decoder's artifact can be made of: each must end in one sentence, with nothing published."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import VOCAB, animal
from tests.zoo.rotations import Halves
from tests.zoo.spread import spread
from tests.zoo.trunk import HEADS, WIDTH, Decoder, SwiGLU

NOT_CAUSAL = "not causal"
NOT_BY_ROW = "mixes the rows of a batch"
NOT_THE_SAME = "draws at random"
NOT_A_DECODER = "no decoder at all"
SHARED_SCALES = {"causal": False, "by_prefix": False, "independent_rows": False}
"""Dynamic quantisation takes one scale for all that a product reads, of every row and position."""


class Everywhere(nn.Module):
    """Attention without a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, HEADS, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, c))


class Ahead(nn.Module):
    """A mask that is off by one: each token sees the next."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2) / WIDTH**0.5
        seen = torch.ones_like(scores[0]).tril(diagonal=1).bool()
        return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ self.v(x)


class WholeText(nn.Module):
    """A norm over the text and not the width."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(dim=1, keepdim=True)) / (x.std(dim=1, keepdim=True, unbiased=False) + 1e-5)


class OverBatch(nn.Module):
    """Each row less what all rows have in common."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.5 * x.mean(dim=0, keepdim=True)


class AlwaysTraining(nn.Module):
    """A batch norm that never uses its running statistics: those of all tokens at hand, of every row."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(0, 1), keepdim=True)
        variance = (x - mean).square().mean(dim=(0, 1), keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-5) * self.weight + self.bias


class Dropping(nn.Module):
    """Dropout that forgot to ask whether anybody trains."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class Picture(nn.Module):
    """A small classifier of images: it cannot take ids."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).mean(dim=(2, 3)))


class Word(nn.Module):
    """Its forward gives text."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder(lambda _: Halves())

    def forward(self, ids: Tensor) -> str:
        return " ".join(str(int(row)) for row in self.model(ids)[:, -1].argmax(-1))


class Loss(nn.Module):
    """Its forward gives a loss, and nothing else ever."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder(lambda _: Halves())

    def forward(self, ids: Tensor) -> Tensor:
        return F.cross_entropy(self.model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


class Whole(nn.Module):
    """A front that reads the text by a matrix of the whole context: any other length fails."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder(lambda _: Halves())
        self.mix = nn.Linear(64, 64)

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.model(ids)
        return logits + self.mix(logits.transpose(1, 2)).transpose(1, 2)


class TwoTexts(nn.Module):
    """An encoder's text is a second argument, without a default."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder(lambda _: Halves())

    def forward(self, ids: Tensor, context: Tensor) -> Tensor:
        return self.model(ids) + context.mean()


@animal(NOT_CAUSAL, causal=False, by_prefix=False, exports=False, cached=False, because="causal")
def bidirectional() -> nn.Module:
    return Decoder(lambda _: Everywhere())


@animal(NOT_CAUSAL, causal=False, by_prefix=False, exports=False, cached=False, because="causal")
def bidirectional_in_one_layer() -> nn.Module:
    return Decoder(lambda i: Everywhere() if i else Halves())


@animal(NOT_CAUSAL, causal=False, by_prefix=False, exports=False, cached=False, because="causal")
def mask_off_by_one() -> nn.Module:
    return Decoder(lambda _: Ahead())


@animal(NOT_CAUSAL, causal=False, by_prefix=False, exports=False, cached=False, because="causal")
def norm_over_text() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: nn.Sequential(WholeText(), SwiGLU()))


@animal(NOT_BY_ROW, independent_rows=False, exports=False, cached=False, because="batch")
def mean_over_batch() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: nn.Sequential(OverBatch(), SwiGLU()))


@animal(
    NOT_BY_ROW, independent_rows=False, causal=False, by_prefix=False, exports=False, cached=False, because="causal"
)
def batch_norm_in_training() -> nn.Module:
    return Decoder(lambda _: Halves(), norm=AlwaysTraining)


@animal(
    NOT_THE_SAME,
    deterministic=False,
    causal=False,
    by_prefix=False,
    independent_rows=False,
    exports=False,
    cached=False,
    because="random",
)
def dropout_in_eval() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: nn.Sequential(SwiGLU(), Dropping()))


@animal(
    NOT_THE_SAME,
    deterministic=False,
    causal=False,
    by_prefix=False,
    independent_rows=False,
    exports=False,
    cached=False,
    because="random",
)
def noise_in_eval() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: nn.Sequential(Noisy(), SwiGLU()))


@animal(NOT_A_DECODER, builds=False, exports=False, cached=False, because="ids")
def image_classifier() -> nn.Module:
    return Picture()


@animal(NOT_A_DECODER, builds=False, exports=False, cached=False, because="str")
def returns_text() -> nn.Module:
    return Word()


@animal(NOT_A_DECODER, builds=False, exports=False, cached=False, because="shape")
def returns_a_loss() -> nn.Module:
    return Loss()


@animal(NOT_A_DECODER, builds=False, exports=False, cached=False, because="shapes")
def one_length_alone() -> nn.Module:
    return Whole()


@animal(NOT_A_DECODER, builds=False, exports=False, cached=False, because="context")
def second_argument() -> nn.Module:
    return TwoTexts()


@animal(NOT_A_DECODER, **SHARED_SCALES, exports=False, cached=False, because="quantised")
def dynamically_quantised() -> nn.Module:
    from torch.ao.quantization import quantize_dynamic  # it warns when it is imported, and nobody else needs it

    return quantize_dynamic(spread(Decoder(lambda _: Halves())), {nn.Linear}, dtype=torch.qint8)


@animal(NOT_A_DECODER, builds=False, exports=False, cached=False, because="ids")
def takes_floats() -> nn.Module:
    """Embeddings come from outside; what comes in is (B, T, 16) of floats."""
    return nn.Sequential(nn.Linear(16, WIDTH), nn.ReLU(), nn.Linear(WIDTH, VOCAB))
