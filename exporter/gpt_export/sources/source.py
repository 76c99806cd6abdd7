"""A source: the eager reference that is believed, the module that is scripted, and the weights. Kept apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt_export_models.tokenizer import Tokenizer
from gpt_export_models.tokenizer_folder import assumed_tokenizer
from torch import Tensor, nn

from gpt_export.errors import SourceError
from gpt_export.runtime.signature import CacheDType, CacheShape, Head, Signature, cached, uncached
from gpt_export.sources.adapted import adapt
from gpt_export.sources.context import context_length_of
from gpt_export.weights.mapped import let_go


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Everything an export needs to know of a model."""

    name: str
    """The artifact's name, unless the user chooses another folder."""
    record: Mapping[str, Any]
    """What the manifest says of the origin, in JSON values."""
    vocab_size: int
    """How many ids there are."""
    context_length: int
    judged_against: str
    """What the reference is, in words: the artifact is as good as this is the model that the user means."""
    reference: Callable[[], nn.Module]
    """Makes, or hands out, the eager module in eval mode: int64 (batch, sequence) to float32 scores as `head` says."""
    skeleton: nn.Module
    """The module that is scripted for the graph, on the meta device."""
    weights: Mapping[str, Tensor]
    """Parameters and buffers by the names that the skeleton gives them."""
    head: Head | None = None
    """What the graph says of its ids; None is logits of the whole vocabulary at every position."""
    cache: CacheShape | None = None
    """The key-value cache of the graph; None for a graph from ids to logits."""
    turns: tuple[int, ...] = ()
    """Lengths at which a cached graph does something new, such as its window; the gate steps across them."""
    cacheable: bool = True
    """Whether a graph without a cache may be given one, where the settings of the export ask for it."""
    torchscript: bool = True
    """Whether `model.pt` is written unless the user says otherwise."""
    alike_layers: bool = False
    """Whether all layers of the reference are the same code and differ in their weights alone, as it is known of our
    own definition; what a module of the user's does in layer 5 alone, only layer 5 can show."""
    published: bool = False
    """Whether the reference is the graph of an artifact and no module of PyTorch's."""
    tokenizer: Tokenizer | None
    """The tokenizer that fits the vocabulary, None for a model of ids alone."""
    carried: tuple[Path, ...] = ()
    """Files of the tokenizer that the artifact gets as they are."""
    made: Mapping[str, bytes] = field(default_factory=dict)
    """Files of the tokenizer that were made of those, by name; they come in place of carried ones."""
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
        return cached(self.answers.width, self.cache, cache_dtype) if self.cache else uncached(self.answers)

    @property
    def graph_head(self) -> Head:
        """What the graph says of its ids: `answers`, or with a cache the scores of every position."""
        return replace(self.answers, positions="all") if self.cache else self.answers

    @property
    def answers(self) -> Head:
        """`head`, or what it stands for."""
        return self.head or Head(width=self.vocab_size)

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
    context_length: int | None = None,
    vocab_size: int | None = None,
    judged_against: str | None = None,
    configuration: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """The source whose reference, graph and weights are all `module`, which must be in eval mode.

    Args:
        context_length: the longest sequence; None asks the module, see `context_length_of`.
        vocab_size: how many ids there are; None is the rows of the table that the module looks them up in.
        judged_against: what to call the module; its class if left out.

    Raises:
        SourceError: the module does not map int64 (batch, sequence) to scores, or to others than `vocab_size`.
    """
    adapted = adapt(module, longest=context_length)
    if vocab_size not in (None, adapted.rows, adapted.head.width):
        raise SourceError(
            f"{type(module).__name__} takes {adapted.rows} ids and gives {adapted.head.width} scores, neither of them "
            f"the vocab_size {vocab_size}; pass the right one, or leave it out"
        )
    ids = adapted.rows if vocab_size is None else vocab_size
    if context_length is None:
        context_length, assumed = context_length_of(adapted.reference(), ids)
        notes += assumed
    usual = assumed_tokenizer(ids)
    return Source(
        name=name,
        record=record,
        judged_against=judged_against or f"your module {type(module).__qualname__}",
        vocab_size=ids,
        context_length=context_length,
        reference=adapted.reference,
        skeleton=adapted.skeleton,
        weights=adapted.weights,
        head=adapted.head,
        torchscript=not adapted.rounds,
        tokenizer=usual.tokenizer,
        configuration=configuration or {},
        notes=(*notes, *adapted.notes, *usual.notes),
    )
