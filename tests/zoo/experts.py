"""Mixtures of experts as people write them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.animal import animal
from tests.zoo.rotations import Halves
from tests.zoo.trunk import WIDTH, Decoder, SwiGLU

KIND = "mixtures of experts"
HIDDEN, EXPERTS, CHOSEN = 24, 4, 2


class Loop(nn.Module):
    """A loop over the experts, each with the rows that chose it: `where`, then `index_add_`."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = nn.ModuleList([SwiGLU(WIDTH, HIDDEN) for _ in range(EXPERTS)])
        self.chosen = CHOSEN

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = torch.topk(self.router(flat).softmax(-1), self.chosen)
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == i)
            y.index_add_(0, rows, expert(flat[rows]) * weights[rows, slot, None])
        return y.view_as(x)


class Skipping(Loop):
    """The same, and an expert that nobody chose is skipped, which depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = torch.topk(self.router(flat), self.chosen)
        weights = weights.softmax(-1)
        y = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            mask = (chosen == i).any(dim=-1)
            if mask.any():
                share = (weights * (chosen == i)).sum(-1)[mask]
                y[mask] += share[:, None] * expert(flat[mask])
        return y.view_as(x)


class Assigned(Loop):
    """Rows by a mask of tokens, taken and assigned without asking whether there are any."""

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = torch.topk(self.router(x).softmax(-1), self.chosen)
        y = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            hit = chosen == i
            mask = hit.any(dim=-1)  # (batch, sequence)
            share = (weights * hit).sum(-1)
            y[mask] = y[mask] + share[mask].unsqueeze(-1) * expert(x[mask])
        return y


class ByMask(Loop):
    """A mask (experts, chosen, tokens) made by one_hot, and `where` on each expert's, as transformers 4 had Mixtral."""

    def forward(self, x: Tensor) -> Tensor:
        batch, sequence, width = x.shape
        flat = x.view(-1, width)
        weights, chosen = torch.topk(F.softmax(self.router(flat), dim=1), self.chosen, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        y = torch.zeros((batch * sequence, width), dtype=x.dtype, device=x.device)
        hits = F.one_hot(chosen, num_classes=EXPERTS).permute(2, 1, 0)
        for i, expert in enumerate(self.experts):
            slot, rows = torch.where(hits[i] > 0)
            current = flat[None, rows].reshape(-1, width)
            y.index_add_(0, rows, expert(current) * weights[rows, slot, None])
        return y.reshape(batch, sequence, width)


class FirstChoice(Loop):
    """One expert a token, its rows found by `nonzero` and put into the result with `index_copy`."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        share, chosen = self.router(flat).softmax(-1).max(dim=-1)
        y = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            rows = (chosen == i).nonzero().squeeze(-1)
            y = y.index_copy(0, rows, expert(flat.index_select(0, rows)) * share.index_select(0, rows)[:, None])
        return y.view_as(x)


class Dense(nn.Module):
    """Every expert for every token, mixed by a softmax over all: nothing is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.experts = nn.ModuleList([SwiGLU(WIDTH, HIDDEN) for _ in range(EXPERTS)])

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(dim=-1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return (weights.unsqueeze(-1) * outputs).sum(dim=-2)


class Masked(Dense):
    """Every expert for every token, with the shares of those that were not chosen set to zero; one shared expert."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = SwiGLU(WIDTH, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        lowest = logits.topk(CHOSEN, dim=-1).values[..., -1:]
        weights = logits.masked_fill(logits < lowest, float("-inf")).softmax(dim=-1)
        y = self.shared(x)
        for i, expert in enumerate(self.experts):
            y = y + weights[..., i : i + 1] * expert(x)
        return y


class Stacked(nn.Module):
    """The experts' weights in one tensor each; those that a token chose are gathered for it and multiplied in batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.w1, self.w3 = (nn.Parameter(torch.empty(EXPERTS, HIDDEN, WIDTH)) for _ in range(2))
        self.w2 = nn.Parameter(torch.empty(EXPERTS, WIDTH, HIDDEN))
        self.register_buffer("balance", torch.linspace(-0.1, 0.1, EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        scores = self.gate(flat).sigmoid()
        chosen = torch.topk(scores + self.balance, CHOSEN, dim=-1, sorted=False).indices
        weights = scores.gather(1, chosen)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        hidden = F.silu(torch.einsum("nd,nkhd->nkh", flat, self.w1[chosen]))
        hidden = hidden * torch.einsum("nd,nkhd->nkh", flat, self.w3[chosen])
        y = torch.einsum("nkh,nkdh->nkd", hidden, self.w2[chosen])
        return (y * weights[..., None]).sum(dim=1).view_as(x)


class Batched(Stacked):
    """One batched product over all experts, and a one-hot mask that keeps the chosen."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(1, -1, WIDTH)
        weights, chosen = self.gate(flat[0]).softmax(-1).topk(CHOSEN, dim=-1)
        shares = (F.one_hot(chosen, EXPERTS).to(x.dtype) * weights[..., None]).sum(dim=1)
        hidden = F.silu(flat @ self.w1.transpose(1, 2)) * (flat @ self.w3.transpose(1, 2))
        y = hidden @ self.w2.transpose(1, 2)
        return (y * shares.t()[..., None]).sum(dim=0).view_as(x)


class TopOne(nn.Module):
    """A switch: one expert a token, scaled by its own probability."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.empty(EXPERTS, WIDTH, HIDDEN))
        self.down = nn.Parameter(torch.empty(EXPERTS, HIDDEN, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        share, which = self.switch(x).softmax(dim=-1).max(dim=-1)
        hidden = F.relu(torch.matmul(x.unsqueeze(-2), self.up[which]))
        return share.unsqueeze(-1) * torch.matmul(hidden, self.down[which]).squeeze(-2)


@animal(KIND)
def moe_loop() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Loop())


@animal(KIND)
def moe_skipping() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Skipping())


@animal(KIND)
def moe_assigned() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Assigned())


@animal(KIND)
def moe_by_mask() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: ByMask())


@animal(KIND)
def moe_first_choice() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: FirstChoice())


@animal(KIND)
def moe_dense() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Dense())


@animal(KIND)
def moe_masked_and_shared() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda i: Masked() if i else SwiGLU())


@animal(KIND)
def moe_gathered_weights() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Stacked())


@animal(KIND)
def moe_batched() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: Batched())


@animal(KIND)
def moe_switch() -> nn.Module:
    return Decoder(lambda _: Halves(), lambda _: TopOne())
