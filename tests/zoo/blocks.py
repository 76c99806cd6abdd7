"""Blocks that are put together otherwise: parallel, sandwiched, post-norm, scaled, gated; and what feeds forward."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal
from tests.zoo.rotations import Halves, Interleaved
from tests.zoo.trunk import HEADS, WIDTH, Decoder, SwiGLU

KIND = "parallel, sandwiched and scaled blocks"
FEEDS = "feed-forward layers and norms"


class OnePlus(nn.Module):
    """An RMS norm whose stored weight is what is added to one, computed in float32, as in Gemma."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return (wide * (1.0 + self.weight.float())).type_as(x)


class RootNorm(nn.Module):
    """x / |x| times the root of the width, and a gain."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * x.size(-1) ** 0.5 * self.g


class OwnLayerNorm(nn.Module):
    """Mean and variance written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(variance + 1e-5) + self.shift


class FusedGeGLU(nn.Module):
    """Gate and value from one product, halved afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.wi, self.wo = nn.Linear(WIDTH, 128), nn.Linear(64, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.wi(x).chunk(2, dim=-1)
        return self.wo(value * F.gelu(gate, approximate="tanh"))


class Plain(nn.Module):
    """Up, something, down."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 64), activation, nn.Linear(64, WIDTH), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Parallel(nn.Module):
    """x + attention(n(x)) + mlp(n(x)): one norm for both as GPT-J has it, or one each as NeoX does."""

    def __init__(self, mixer: nn.Module, norms: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(norms)])
        self.mixer, self.feed = mixer, Plain(nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.norms[0](x)) + self.feed(self.norms[-1](x))


class FusedParallel(nn.Module):
    """All that reads the norm in one product, all that writes to the stream in another, as PaLM."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        self.into = nn.Linear(WIDTH, 3 * WIDTH + 128, bias=False)
        self.out = nn.Linear(WIDTH + 64, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v, feed = self.into(self.norm(x)).split((c, c, c, 128), dim=-1)
        q, k, v = (part.view(b, t, HEADS, -1).transpose(1, 2) for part in (q, k, v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c)
        gate, up = feed.chunk(2, dim=-1)
        return x + self.out(torch.cat((seen, F.silu(gate) * up), dim=-1))


class Sandwich(nn.Module):
    """Norms in front of each part and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.pre_attn, self.post_attn, self.pre_mlp, self.post_mlp = (OnePlus(WIDTH) for _ in range(4))
        self.attn, self.mlp = Halves(), FusedGeGLU()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.post_attn(self.attn(self.pre_attn(x)))
        return x + self.post_mlp(self.mlp(self.pre_mlp(x)))


class After(nn.Module):
    """Norms behind the sum, as the first transformers had them, or behind each part alone, as OLMo 2."""

    def __init__(self, behind_sum: bool) -> None:
        super().__init__()
        self.attn, self.mlp = Interleaved(), SwiGLU()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.behind_sum = behind_sum

    def forward(self, x: Tensor) -> Tensor:
        if self.behind_sum:
            x = self.norm1(x + self.attn(x))
            return self.norm2(x + self.mlp(x))
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.mlp(x))


class Scaled(nn.Module):
    """Each part's share in the stream is a number (Granite, DeepNet) or a vector (LayerScale)."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = Halves(), SwiGLU()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.gamma = nn.Parameter(0.5 * torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.22 * self.attn(self.norm1(x))
        return x + self.gamma * self.mlp(self.norm2(x))


class Stack(nn.Module):
    """Blocks in a Sequential between an embedding that is scaled and logits that are."""

    def __init__(self, blocks: list[nn.Module], embed_scale: float = 1.0, logit_scale: float = 1.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)
        self.embed_scale, self.logit_scale = embed_scale, logit_scale

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(ids) * self.embed_scale))) * self.logit_scale


class Idle(nn.Module):
    """A layer that does not attend."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(WIDTH), SwiGLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Lambdas(nn.Module):
    """Every layer reads a learned mix of all that came before it (DenseFormer), from a growing list."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList([Scaled() for _ in range(3)])
        self.mix = nn.ParameterList([nn.Parameter(torch.full((i + 2,), 0.3)) for i in range(3)])
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.size(1), device=ids.device))
        before = [x]
        for block, mix in zip(self.blocks, self.mix, strict=True):
            before.append(block(x))
            x = (torch.stack(before, dim=-1) * mix).sum(dim=-1)
        return self.head(F.layer_norm(x, (WIDTH,)))


class Looped(nn.Module):
    """One block run three times (a universal transformer), told by an embedding which time it is."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.times = nn.Embedding(VOCAB, WIDTH), nn.Embedding(3, WIDTH)
        self.block = Sandwich()
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for turn in range(3):
            x = self.block(x + self.times.weight[turn])
        return self.head(x)


@animal(KIND)
def neox_parallel() -> nn.Module:
    return Stack([Parallel(Halves(), norms=2) for _ in range(2)])


@animal(KIND)
def gptj_parallel() -> nn.Module:
    return Stack([Parallel(Interleaved(), norms=1) for _ in range(2)])


@animal(KIND)
def palm_fused_parallel() -> nn.Module:
    """Positions come from the causal mask alone."""
    return Stack([FusedParallel() for _ in range(2)])


@animal(KIND)
def sandwich_norms() -> nn.Module:
    return Stack([Sandwich() for _ in range(2)], embed_scale=math.sqrt(WIDTH))


@animal(KIND)
def post_norm() -> nn.Module:
    return Stack([After(behind_sum=True) for _ in range(2)])


@animal(KIND)
def norm_behind_parts() -> nn.Module:
    return Stack([After(behind_sum=False) for _ in range(2)])


@animal(KIND)
def scaled_residuals_and_logits() -> nn.Module:
    return Stack([Scaled() for _ in range(2)], embed_scale=3.0, logit_scale=0.4)


@animal(KIND)
def layers_without_attention() -> nn.Module:
    return Stack([Idle(), Sandwich(), Idle(), Sandwich(), Idle()])


@animal(KIND)
def dense_connections() -> nn.Module:
    return Lambdas()


@animal(KIND)
def looped_block() -> nn.Module:
    return Looped()


@animal(FEEDS)
def geglu_and_one_plus_norm() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: FusedGeGLU(), norm=OnePlus)


@animal(FEEDS)
def relu_and_own_norm() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Plain(nn.ReLU()), norm=OwnLayerNorm)


@animal(FEEDS)
def quick_gelu_and_root_norm() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Plain(QuickGELU()), norm=RootNorm)


@animal(FEEDS)
def mish_and_layer_norm() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Plain(nn.Mish()), norm=nn.LayerNorm)
