"""A source: the eager reference that is believed, the module that is scripted, and the weights. Kept apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpt_export_models.blank import without_weights
from gpt_export_models.tokenizer import GPT2_VOCAB_SIZE, Gpt2Tokenizer, Tokenizer
from torch import Tensor, nn

from gpt_export.errors import SourceError
from gpt_export.runtime.signature import CacheDType, CacheShape, Signature, cached, uncached
from gpt_export.weights.mapped import let_go

NANOGPT_VOCAB_SIZE = 50304
"""GPT-2's vocabulary padded to a multiple of 64, as nanoGPT trains it; the tokens are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Everything an export needs to know of a model."""

    name: str
    """The artifact's name, unless the user chooses another folder."""
    record: Mapping[str, Any]
    """What the manifest says of the origin, in JSON values."""
    vocab_size: int
    context_length: int
    reference: Callable[[], nn.Module]
    """Makes, or hands out, the eager module in eval mode: int64 (batch, sequence) to float32 logits."""
    skeleton: nn.Module
    """The module that is scripted for the graph, on the meta device."""
    weights: Mapping[str, Tensor]
    """Parameters and buffers by the names that the skeleton gives them."""
    cache: CacheShape | None = None
    """The key-value cache of the graph; None for a graph from ids to logits."""
    torchscript: bool = True
    """Whether `model.pt` is written unless the user says otherwise."""
    tokenizer: Tokenizer | None
    """The tokenizer that fits the vocabulary, None for a model of ids alone."""
    carried: tuple[Path, ...] = ()
    """Files of the tokenizer that the artifact gets as they are."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """The model's own configuration in JSON values, where it has one."""
    notes: tuple[str, ...] = ()
    """What was assumed, in words for the user."""

    @property
    def describe_token(self) -> Callable[[int], str] | None:
        """The text of a token id, None without a tokenizer; ids that the tokenizer does not know are empty."""
        tokenizer = self.tokenizer
        return None if tokenizer is None else lambda token: tokenizer.decode([token])

    def signature(self, cache_dtype: CacheDType = "float32") -> Signature:
        """Inputs and outputs of the graph, whose cache, if it has one, holds `cache_dtype`."""
        return cached(self.vocab_size, self.cache, cache_dtype) if self.cache else uncached(self.vocab_size)

    def let_go(self) -> None:
        """Takes the pages of mapped weights out of memory; the next read maps them again."""
        let_go(self.weights.values())

    def first_names(self) -> dict[str, str]:
        """For each weight, the first name that its tensor has; names of tied weights share one."""
        first: dict[tuple[object, ...], str] = {}
        names = {}
        for name, tensor in self.weights.items():
            key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,)
            names[name] = first.setdefault(key, name)
        return names


def source_of_module(
    module: nn.Module,
    *,
    name: str,
    record: Mapping[str, Any],
    vocab_size: int,
    context_length: int,
    configuration: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """The source whose reference, script and weights are all `module`, which must be in eval mode.

    Raises:
        SourceError: the module does not map int64 (batch, sequence) to float32 (batch, sequence, vocabulary).
    """
    check_module(module, vocab_size)
    tokenizer = usual_tokenizer(vocab_size)
    return Source(
        name=name,
        record=record,
        vocab_size=vocab_size,
        context_length=context_length,
        reference=lambda: module,
        skeleton=without_weights(module),
        weights={
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        },
        tokenizer=tokenizer,
        configuration=configuration or {},
        notes=notes if tokenizer else (*notes, ids_alone(vocab_size)),
    )


def check_module(module: nn.Module, vocab_size: int) -> None:
    """Runs `module` on one token and looks at what comes back.

    Raises:
        SourceError: it is not a module, fails, or returns something other than float32 logits.
    """
    logits = run_once(module)
    if tuple(logits.shape) != (1, 1, vocab_size):
        raise SourceError(
            f"{type(module).__name__} returns shape {list(logits.shape)} for one token, not [1, 1, {vocab_size}]; "
            "pass the vocab_size of its last axis"
        )


def run_once(module: nn.Module) -> Tensor:
    """What `module` returns for the ids [[0]].

    Raises:
        SourceError: it is not a module, fails, or does not return a float32 tensor of three axes.
    """
    if not isinstance(module, nn.Module):
        raise SourceError(f"{module!r} is a {type(module).__name__}, not a torch.nn.Module; pass a module")
    name = type(module).__name__
    try:
        with torch.no_grad():
            logits = module(torch.zeros((1, 1), dtype=torch.int64))
    except Exception as error:  # the user's code
        raise SourceError(
            f"{name} fails on the ids [[0]] with {type(error).__name__}: {error}; "
            "its forward must take one int64 tensor (batch, sequence)"
        ) from error
    if not isinstance(logits, Tensor) or logits.dtype != torch.float32 or logits.ndim != 3:
        what = f"{logits.dtype} of {logits.ndim} axes" if isinstance(logits, Tensor) else type(logits).__name__
        raise SourceError(f"{name} returns {what}, not float32 logits (batch, sequence, vocabulary); wrap it to do so")
    return logits


def usual_tokenizer(vocab_size: int) -> Tokenizer | None:
    """GPT-2's tokenizer for a vocabulary of its size, padded or not; None for any other."""
    return Gpt2Tokenizer() if vocab_size in (GPT2_VOCAB_SIZE, NANOGPT_VOCAB_SIZE) else None


def ids_alone(vocab_size: int) -> str:
    """The note on a source without a tokenizer."""
    return f"there is no tokenizer for this vocabulary of {vocab_size}; the artifact is for ids alone"
