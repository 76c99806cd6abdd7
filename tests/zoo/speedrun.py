"""A GPT in the manner of the speed runs of modded-nanogpt: value embeddings, skips as in a U-net, windows by block."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import CONTEXT, VOCAB, animal

KIND = "speed-run GPTs"
WIDTH, HEADS, HEAD = 32, 2, 16


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class Rotary(nn.Module):
    """Half of the frequencies turn, the other half stand still."""

    def __init__(self) -> None:
        super().__init__()
        turning = (1 / 1024) ** torch.linspace(0, 1, steps=HEAD // 4, dtype=torch.float32)
        frequencies = torch.cat([turning, turning.new_zeros(HEAD // 4)])
        angles = torch.outer(torch.arange(CONTEXT, dtype=torch.float32), frequencies)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        cos, sin = self.cos[None, : x.size(-3), None, :], self.sin[None, : x.size(-3), None, :]
        one, two = x.float().chunk(2, dim=-1)
        return torch.cat((one * cos + two * sin, two * cos - one * sin), 3).type_as(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.empty(3, HEADS * HEAD, WIDTH))
        self.lambdas = nn.Parameter(torch.tensor([0.5, 0.5]))
        self.rotary = Rotary()
        self.c_proj = nn.Linear(HEADS * HEAD, WIDTH, bias=False)

    def forward(self, x: Tensor, value_embedding: Tensor | None, mask: Tensor) -> Tensor:
        B, T = x.size(0), x.size(1)
        q, k, v = F.linear(x, self.qkv.flatten(end_dim=1)).view(B, T, 3 * HEADS, HEAD).chunk(3, dim=-2)
        q, k = self.rotary(norm(q)), self.rotary(norm(k))
        v = self.lambdas[0] * v
        if value_embedding is not None:
            v = v + self.lambdas[1] * value_embedding.view_as(v)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=0.12
        )
        return self.c_proj(y.transpose(1, 2).reshape(B, T, HEADS * HEAD))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.attn = Attention() if attends else None
        self.mlp = MLP()
        self.lambdas = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor, value_embedding: Tensor | None, first: Tensor, mask: Tensor) -> Tensor:
        x = self.lambdas[0] * x + self.lambdas[1] * first
        if self.attn is not None:
            x = x + self.attn(norm(x), value_embedding, mask)
        return x + self.mlp(norm(x))


class SpeedRun(nn.Module):
    """Four layers, the third of which does not attend; blocks of eight tokens, of which short windows see two."""

    def __init__(self, block: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.value_embeds = nn.ModuleList([nn.Embedding(VOCAB, WIDTH) for _ in range(2)])
        self.blocks = nn.ModuleList([Block(i != 2) for i in range(4)])
        self.skip_weights = nn.Parameter(torch.ones(2))
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.block = block

    def masks(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        at = torch.arange(length, device=device)
        causal = at[:, None] >= at[None, :]
        near = (at // self.block)[:, None] - (at // self.block)[None, :] < 2
        return causal, causal & near

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        long, short = self.masks(ids.size(1), ids.device)
        values = [embed(ids) for embed in self.value_embeds]
        values_by_layer = [values[0], values[1], None, values[0]]
        x = first = norm(self.embed(ids))
        skips = []
        for i, block in enumerate(self.blocks):
            if i >= 2:
                x = x + self.skip_weights[i - 2] * skips.pop()
            x = block(x, values_by_layer[i], first, long if i == 0 else short)
            if i < 2:
                skips.append(x)
        logits = self.lm_head(norm(x)).float()
        logits = 30 * torch.sigmoid(logits / 7.5)
        if targets is not None:
            return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        return logits


class WindowedSpeedRun(SpeedRun):
    """The later kind: a window that slides token by token."""

    def masks(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        at = torch.arange(length, device=device)
        causal = at[:, None] >= at[None, :]
        return causal, causal & (at[:, None] - at[None, :] < 2 * self.block)


@animal(KIND)
def speedrun_block_windows() -> nn.Module:
    return SpeedRun()


@animal(KIND)
def speedrun_sliding_windows() -> nn.Module:
    return WindowedSpeedRun()
