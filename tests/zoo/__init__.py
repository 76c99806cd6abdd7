"""Decoders as people write them: who they are, what they compute, and what a perfect tool makes of each."""

from tests.zoo import (
    blocks,
    book,
    experts,
    heads,
    latent,
    llama2c,
    nanochat,
    nanogpt,
    outputs,
    positions,
    rotations,
    scores,
    speedrun,
    spellings,
    wrapped,
)
from tests.zoo.animal import Animal, animals, find

__all__ = [
    "Animal",
    "animals",
    "blocks",
    "book",
    "experts",
    "find",
    "heads",
    "latent",
    "llama2c",
    "nanochat",
    "nanogpt",
    "outputs",
    "positions",
    "rotations",
    "scores",
    "speedrun",
    "spellings",
    "wrapped",
]
