"""Factories that are not as the command line wants them."""

import random

import numpy as np
import torch
from torch import nn

from tests.zoo.animal import animal
from tests.zoo.rotations import Halves
from tests.zoo.trunk import LAYERS, Decoder

GOOD = "factories that print, seed, or train"
BAD = "factories that fail"


@animal(GOOD)
def prints() -> nn.Module:
    model = Decoder(lambda _: Halves())
    print(f"number of parameters: {sum(p.numel() for p in model.parameters()) / 1e6:.2f}M")  # noqa: T201
    return model


@animal(GOOD)
def seeds() -> nn.Module:
    """Every generator is seeded; a tool must not pass that on to its user."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return Decoder(lambda _: Halves())


@animal(GOOD)
def in_training() -> nn.Module:
    """It comes in training mode, with dropout that would draw."""
    model = Decoder(lambda _: Halves(), lambda _: nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5)))
    model.requires_grad_(True)
    return model.train()


@animal(GOOD)
def with_defaults(layers: int = LAYERS, *, width: int = 32) -> nn.Module:
    return Decoder(lambda _: Halves(), layers=layers, width=width)


@animal(BAD, builds=False, exports=False, cached=False, because="argument")
def needs_arguments(layers: int) -> nn.Module:
    return Decoder(lambda _: Halves(), layers=layers)


@animal(BAD, builds=False, exports=False, cached=False, because="no such run")
def raises() -> nn.Module:
    raise FileNotFoundError("runs/42/ckpt.pt: no such run")


@animal(BAD, builds=False, exports=False, cached=False, because="cuda")
def moves_to_cuda() -> nn.Module:
    return Decoder(lambda _: Halves()).to("cuda")


@animal(BAD, builds=False, exports=False, cached=False, because="str")
def gives_text() -> str:
    return "gpt2"


@animal(BAD, builds=False, exports=False, cached=False, because="exit")
def exits() -> nn.Module:
    raise SystemExit(0)


@animal(BAD, builds=False, exports=False, cached=False, because="ordereddict")
def gives_weights() -> dict[str, torch.Tensor]:
    return Decoder(lambda _: Halves()).state_dict()
