"""A small GPT over bytes, trained in a few seconds on a language that is drawn by rule.

Random weights say little of a precision: their logits are noise, and nothing is lost by losing some of it. These
weights have learnt something, and a text of the language has a perplexity that can rise.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch
from gpt_export_models.config import GPTConfig
from gpt_export_models.gpt import GPTModel
from torch import Tensor
from torch.nn import functional

from tests.byte_gpt import CONFIG as BOOK_KEYS
from tests.byte_gpt import byte_tokenizer

CONFIG = GPTConfig(
    vocab_size=257,
    context_length=64,
    emb_dim=64,
    n_heads=4,
    n_layers=2,
    drop_rate=0.0,
    qkv_bias=True,
    tied_head=True,
)
WORDS = 60
NEXT = 3
"""Words that may follow a word."""
ODD = 0.05
"""Of letters, the share that is any other one: so that the model is not sure of what it has never seen."""
STEPS = 300
BATCH = 8
NOISE = 0.1
"""Of a matrix's spread, what is added to it in every step: weights that have learnt to bear that can be rounded."""


def language(words: int, seed: int) -> str:
    """A text of so many words: each is drawn from those that may follow the one before it, by a table that is fixed."""
    table = np.random.default_rng(1)
    lexicon = [
        "".join(table.choice(list("abcdefghijklmnopqrstuvwxyz"), size=table.integers(2, 8))) for _ in range(WORDS)
    ]
    followers = table.integers(0, WORDS, (WORDS, NEXT))
    drawn, at, text = np.random.default_rng([2, seed]), 0, []
    for _ in range(words):
        at = followers[at, drawn.choice(NEXT, p=(0.6, 0.3, 0.1))]
        text.append(lexicon[at] + (".\n" if drawn.random() < 0.1 else ""))
    letters = np.array(list(" ".join(text)))
    odd = drawn.random(letters.size) < ODD
    letters[odd] = [chr(code) for code in drawn.integers(32, 127, odd.sum())]
    return "".join(letters)


TRAINING, CALIBRATION, HELD_OUT = language(20_000, 0), language(3_000, 1), language(600, 2)
TEXTS = (language(8, 3), language(5, 4))
"""What it is asked in place of the book's prompts, which it has never seen."""


@functools.cache
def trained_gpt() -> GPTModel:
    """The model behind training, the same in every process on the same machine. One thread is the fastest here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained()
    finally:
        torch.set_num_threads(threads)


def _trained() -> GPTModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = GPTModel(CONFIG)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(sum(name.encode())))
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    ids = torch.tensor(list(TRAINING.encode()))
    drawn = torch.Generator().manual_seed(4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=STEPS)
    length = CONFIG.context_length
    for _ in range(STEPS):
        starts = torch.randint(0, len(ids) - length - 1, (BATCH,), generator=drawn)
        window = torch.stack([ids[start : start + length + 1] for start in starts.tolist()])
        noise = [NOISE * matrix.std() * torch.randn(matrix.shape, generator=drawn) for matrix in matrices]
        _shift(matrices, noise, 1)
        loss = functional.cross_entropy(
            model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten(), label_smoothing=0.05
        )
        optimizer.zero_grad()
        loss.backward()
        _shift(matrices, noise, -1)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def _shift(parameters: list[Tensor], by: list[Tensor], sign: int) -> None:
    for parameter, amount in zip(parameters, by, strict=True):
        parameter.data.add_(amount, alpha=sign)


def save_trained_gpt(folder: Path) -> Path:
    """Writes the checkpoint, its configuration and tokenizer to `folder`; gives the checkpoint's path."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(trained_gpt().state_dict(), folder / "model.pth")
    settings = {name: getattr(CONFIG, name) for name in BOOK_KEYS}
    (folder / "book.json").write_text(json.dumps(settings), encoding="utf-8")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder / "model.pth"
