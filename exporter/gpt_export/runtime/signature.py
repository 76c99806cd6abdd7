"""The names, element types and dims that callers of a graph may rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

DType = Literal["int64", "float32", "float16", "int8"]
CacheDType = Literal["float32", "float16", "int8"]
Dim = int | str

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
POSITION_IDS = "position_ids"
LOGITS = "logits"
CLASSES = "classes"
NUM_LOGITS_TO_KEEP = "num_logits_to_keep"
DECODER_NAMES = (INPUT_IDS, ATTENTION_MASK, POSITION_IDS, LOGITS, NUM_LOGITS_TO_KEEP, "past_key_values.", "present.")
"""What the names of a decoder's inputs and outputs begin with."""
"""An initializer that a caller may override: of how many last positions logits are computed; 0 is all of them."""
BATCH = "batch_size"
SEQUENCE = "sequence_length"
PAST = "past_sequence_length"
TOTAL = f"{PAST} + {SEQUENCE}"
"""Consumers evaluate dim names as expressions of one another, so this name is part of the contract."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output; a dim is an int when static, a name when dynamic."""

    name: str
    dtype: DType
    dims: tuple[Dim, ...]

    def dynamic_axes(self) -> dict[int, str]:
        """Axis number to name, for the axes that vary."""
        return {axis: dim for axis, dim in enumerate(self.dims) if isinstance(dim, str)}

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The dims with those that vary taken from `sizes`."""
        return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in self.dims)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `name`, `dtype`, `dims`."""
        return {"name": self.name, "dtype": self.dtype, "dims": list(self.dims)}


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a graph, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a graph says of its ids: scores of next tokens or of classes, how many, and for which positions."""

    of: Literal["tokens", "classes"] = "tokens"
    positions: Literal["all", "last", "none"] = "all"
    """`all` scores every position, `last` the last one alone, `none` the row as a whole."""
    width: int
    """How many scores there are at once: the vocabulary, or the number of classes."""

    def spec(self) -> TensorSpec:
        """The output: `logits` or `classes`, float32; (batch, sequence, width), (batch, 1, width) or (batch, width)."""
        places: Mapping[str, tuple[Dim, ...]] = {"all": (SEQUENCE,), "last": (1,), "none": ()}
        name = LOGITS if self.of == "tokens" else CLASSES
        return TensorSpec(name, "float32", (BATCH, *places[self.positions], self.width))

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return {"of": self.of, "positions": self.positions, "width": self.width}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """One pair of a cache: keys (batch, `n_heads`, past, `key_dim`) and values (batch, `n_heads`, past, `value_dim`).

    The heads are those of keys and values: where several query heads share a pair, they are fewer than the layer's.
    """

    n_heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What a key-value cache is made of: one pair for each layer that attends; they need not be alike."""

    layers: tuple[LayerCache, ...]

    @classmethod
    def alike(cls, *, n_layers: int, n_heads: int, head_dim: int) -> CacheShape:
        """The cache of layers with one number of heads and one width."""
        return cls((LayerCache(n_heads=n_heads, key_dim=head_dim, value_dim=head_dim),) * n_layers)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CacheShape:
        """The shape that `to_dict` gave."""
        if "layers" in values:
            return cls(tuple(LayerCache(**layer) for layer in values["layers"]))
        return cls.alike(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `n_layers`, `n_heads` and `head_dim` where all pairs are alike, else `layers`, one by one."""
        first = self.layers[0]
        if set(self.layers) == {first} and first.key_dim == first.value_dim:
            return {"n_layers": self.n_layers, "n_heads": first.n_heads, "head_dim": first.key_dim}
        return {"layers": [asdict(layer) for layer in self.layers]}

    @property
    def n_layers(self) -> int:
        """How many pairs of keys and values there are."""
        return len(self.layers)

    def empty_shapes(self, batch: int) -> dict[str, tuple[int, int, int, int]]:
        """For each of `past_names`, the shape of a past of no token: (batch, heads, 0, width)."""
        shapes = [(batch, layer.n_heads, 0, dim) for layer in self.layers for dim in (layer.key_dim, layer.value_dim)]
        return dict(zip(self.past_names(), shapes, strict=True))

    def past_names(self) -> list[str]:
        """Names of the inputs that hold the past, in order."""
        return [f"past_key_values.{layer}.{kind}" for layer in range(self.n_layers) for kind in ("key", "value")]

    def present_names(self) -> list[str]:
        """Names of the outputs that hold the present, in the order of `past_names`."""
        return [f"present.{layer}.{kind}" for layer in range(self.n_layers) for kind in ("key", "value")]


def cached(vocab_size: int, cache: CacheShape, cache_dtype: CacheDType = "float32") -> Signature:
    """Ids, mask, positions and the past of every layer, to logits and the present of every layer."""
    sides = [(heads, dim) for _, heads, _, dim in cache.empty_shapes(0).values()]
    past = zip(cache.past_names(), sides, strict=True)
    present = zip(cache.present_names(), sides, strict=True)
    return Signature(
        inputs=(
            TensorSpec(INPUT_IDS, "int64", (BATCH, SEQUENCE)),
            TensorSpec(ATTENTION_MASK, "int64", (BATCH, TOTAL)),
            TensorSpec(POSITION_IDS, "int64", (BATCH, SEQUENCE)),
            *(TensorSpec(name, cache_dtype, (BATCH, heads, PAST, dim)) for name, (heads, dim) in past),
        ),
        outputs=(
            TensorSpec(LOGITS, "float32", (BATCH, SEQUENCE, vocab_size)),
            *(TensorSpec(name, cache_dtype, (BATCH, heads, TOTAL, dim)) for name, (heads, dim) in present),
        ),
    )


def uncached(head: Head) -> Signature:
    """`input_ids` (batch, sequence) to what the head says, `logits` (batch, sequence, vocabulary) for most."""
    return Signature(inputs=(TensorSpec(INPUT_IDS, "int64", (BATCH, SEQUENCE)),), outputs=(head.spec(),))


def example_sizes(context_length: int) -> dict[str, int]:
    """Small sizes for the dims that vary, consistent with each other and the context, no two alike if it allows."""
    sequence = min(3, context_length)
    past = min(5, context_length - sequence)
    return {BATCH: 2, SEQUENCE: sequence, PAST: past, TOTAL: past + sequence}
