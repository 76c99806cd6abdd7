"""Adapters trained by nobody: PEFT's own, their matrices drawn so that every one of them matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def adapted(model: nn.Module, folder: Path, **settings: Any) -> nn.Module:
    """PEFT's model of `model` with a drawn adapter, in eval mode; the adapter is saved to `folder`."""
    peft = pytest.importorskip("peft", reason="peft is the oracle of adapters: pip install peft")
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(**{"r": 3, "lora_alpha": 7, "task_type": "CAUSAL_LM"} | settings)
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids).logits.float()
