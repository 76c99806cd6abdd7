"""Decoders as people write them: who they are, what they compute, and what a perfect tool makes of each."""

from tests.zoo import book, heads, llama2c, nanochat, nanogpt, positions, rotations, scores, speedrun
from tests.zoo.animal import Animal, animals, find

__all__ = [
    "Animal",
    "animals",
    "book",
    "find",
    "heads",
    "llama2c",
    "nanochat",
    "nanogpt",
    "positions",
    "rotations",
    "scores",
    "speedrun",
]
