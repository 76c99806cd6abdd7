"""Causal language models that mix positions otherwise than by attention: they export, and have no cache of keys."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal
from tests.zoo.rotations import Halves
from tests.zoo.trunk import WIDTH, Decoder

KIND = "recurrences and convolutions over time"


class Recurrent(nn.Module):
    """nn.GRU, nn.LSTM or nn.RNN over the whole text."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.rnn = kind(WIDTH, WIDTH, num_layers=2, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.rnn(self.embed(ids))
        return self.head(states)


class Convolution(nn.Module):
    """A causal convolution, gated: padded on the left, cut on the right."""

    def __init__(self, kernel: int = 4) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, kernel, groups=WIDTH, padding=kernel - 1)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.into(x).chunk(2, dim=-1)
        x = self.conv(x.transpose(1, 2))[..., : x.size(1)].transpose(1, 2)
        return self.out(x * F.silu(gate))


class LongConvolution(nn.Module):
    """A filter as long as the text, as in Hyena, by a matrix of its differences."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("decay", torch.exp(-0.1 * torch.arange(CONTEXT))[:, None])

    def forward(self, x: Tensor) -> Tensor:
        at = torch.arange(x.size(1), device=x.device)
        lag = at[:, None] - at[None, :]
        kernel = (self.filter * self.decay)[lag.clamp(min=0)] * (lag >= 0)[..., None]
        return self.out(torch.einsum("tsc,bsc->btc", kernel, x))


class TimeMix(nn.Module):
    """RWKV in small: a shifted token, a weighted sum that decays, in a loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.decay, self.bonus = nn.Parameter(torch.zeros(WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.mix = nn.Parameter(torch.full((WIDTH,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(x, (0, 0, 1, -1))
        mixed = x * self.mix + before * (1 - self.mix)
        k, v, r = self.k(mixed).clamp(max=10.0).exp(), self.v(mixed), torch.sigmoid(self.r(mixed))
        top = torch.zeros_like(x[:, 0])
        bottom = torch.zeros_like(top) + 1e-6
        keep = torch.exp(-torch.exp(self.decay))
        outputs = []
        for t in range(x.size(1)):
            now = k[:, t] * torch.exp(self.bonus)
            outputs.append((top + now * v[:, t]) / (bottom + now))
            top, bottom = keep * top + k[:, t] * v[:, t], keep * bottom + k[:, t]
        return self.o(r * torch.stack(outputs, dim=1))


class Scan(nn.Module):
    """Mamba in small: a selective state that is scanned, in a loop over time."""

    def __init__(self, states: int = 4) -> None:
        super().__init__()
        self.step, self.b, self.c = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, states), nn.Linear(WIDTH, states)
        self.log_a = nn.Parameter(torch.zeros(WIDTH, states))
        self.skip, self.out = nn.Parameter(torch.ones(WIDTH)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        step = F.softplus(self.step(x))
        decay = torch.exp(-step[..., None] * self.log_a.exp())
        enter = (step * x)[..., None] * self.b(x)[:, :, None, :]
        state = torch.zeros_like(enter[:, 0])
        seen = []
        for t in range(x.size(1)):
            state = decay[:, t] * state + enter[:, t]
            seen.append((state * self.c(x)[:, t, None, :]).sum(-1))
        return self.out(torch.stack(seen, dim=1) + self.skip * x)


class Shift(nn.Module):
    """Half of the channels come from the token before."""

    def forward(self, x: Tensor) -> Tensor:
        here, before = x.chunk(2, dim=-1)
        return torch.cat((here, F.pad(before, (0, 0, 1, -1))), dim=-1)


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift, self.attn = Shift(), Halves()

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.shift(x))


class Bigram(nn.Module):
    """Each token's embedding and that of the one before it, mixed in front of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder(lambda _: Halves())
        self.pair = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model.embed(ids)
        before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
        x = self.pair(torch.cat((x, before), dim=-1))
        for block in self.model.blocks:
            x = block(x)
        return self.model.head(self.model.norm(x))


class Means(nn.Module):
    """The mean of all that came before, by a cumulative sum."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        counts = torch.arange(1, x.size(1) + 1, device=x.device, dtype=x.dtype)[:, None]
        return self.o(self.v(x).cumsum(dim=1) / counts)


class Averages(nn.Module):
    """The same by a lower triangle of weights, each row one over its length: a product over time without a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.tril(torch.ones(x.size(1), x.size(1), device=x.device, dtype=x.dtype))
        return self.o((weights / weights.sum(dim=1, keepdim=True)) @ self.v(x))


class Linear(nn.Module):
    """Linear attention: a running sum of outer products, by an einsum that masks."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1
        sums = torch.einsum("btk,btv->btkv", k, self.v(x)).cumsum(dim=1)
        total = (q * k.cumsum(dim=1)).sum(-1, keepdim=True)
        return self.o(torch.einsum("btk,btkv->btv", q, sums) / total)


@animal(KIND, cached=False, because="gru")
def gru() -> nn.Module:
    return Recurrent(nn.GRU)


@animal(KIND, cached=False, because="lstm")
def lstm() -> nn.Module:
    return Recurrent(nn.LSTM)


@animal(KIND, cached=False, because="conv")
def causal_convolution() -> nn.Module:
    return Decoder(lambda _: Convolution())


@animal(KIND, cached=False, because="conv")
def convolution_and_attention() -> nn.Module:
    return Decoder(lambda i: Halves() if i else Convolution())


@animal(KIND, cached=False, because="position")
def long_convolution() -> nn.Module:
    return Decoder(lambda _: LongConvolution())


@animal(KIND, cached=False, because="loop")
def rwkv_loop() -> nn.Module:
    """Only a road that keeps loops exports it at more than one length."""
    return Decoder(lambda _: TimeMix())


@animal(KIND, cached=False, because="loop")
def mamba_loop() -> nn.Module:
    return Decoder(lambda _: Scan())


@animal(KIND, cached=False, because="position")
def token_shift() -> nn.Module:
    return Decoder(lambda _: Shifted())


@animal(KIND, cached=False, because="position")
def bigram_embeddings() -> nn.Module:
    return Bigram()


@animal(KIND, cached=False, because="cumsum")
def cumulative_mean() -> nn.Module:
    return Decoder(lambda _: Means())


@animal(KIND, cached=False, because="position")
def triangular_mean() -> nn.Module:
    return Decoder(lambda _: Averages())


@animal(KIND, cached=False, because="cumsum")
def linear_attention() -> nn.Module:
    return Decoder(lambda _: Linear())
