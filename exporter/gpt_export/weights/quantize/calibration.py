"""A text through the model, layer by layer, each layer rounded for what it reads behind the rounded ones before it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from gpt_export_models.gpt import GPTDecoder
from gpt_export_models.tokenizer import Tokenizer
from torch import Tensor, nn

from gpt_export.errors import ConfigError
from gpt_export.weights.quantize.gptq import rounded_for_inputs
from gpt_export.weights.quantize.schemes import PrecisionPlan, Scheme
from gpt_export.weights.quantize.weights import Codes

logger = logging.getLogger(__name__)

MOST_TOKENS = 32_768
LEAST_TOKENS = 1024
_WINDOWS_AT_ONCE = 4
_LOOKUP_WEIGHT = 0.05
"""Of a tied embedding's second moment, the share that stands for the lookup, which reads every column alike."""


def calibrate(
    decoder: nn.Module, plan: PrecisionPlan, windows: Tensor, first_names: Mapping[str, str]
) -> dict[tuple[str, ...], Codes]:
    """Codes and scales of every matrix of `decoder`, by the names of its sources, rounded for what it reads.

    Args:
        decoder: a `GPTDecoder` in eval mode; its blocks are let go one by one.
        windows: token ids of a text, see `calibration_windows`.
        first_names: by weight, the first name of its tensor, which tied weights share.
    """
    with torch.no_grad():
        return dict(_rounded(cast(GPTDecoder, decoder), plan, windows, first_names))


def calibration_windows(name: str, tokenizer: Tokenizer | None, context_length: int, text: str) -> Tensor:
    """Token ids, int64 (windows, context), spread evenly over the text.

    Raises:
        ConfigError: the model called `name` has no tokenizer, or the text gives less than `LEAST_TOKENS` tokens.
    """
    if tokenizer is None:
        raise ConfigError(f"{name} has no tokenizer, so no text can calibrate it; leave --calibration out")
    ids = tokenizer.encode(text)
    if len(ids) < LEAST_TOKENS:
        raise ConfigError(
            f"the calibration text has {len(ids)} tokens, at least {LEAST_TOKENS} are needed to say anything of the "
            "layers' inputs; pass a longer one"
        )
    length = min(context_length, len(ids))
    count = len(ids) // length
    rows = torch.tensor(ids[: count * length]).view(count, length)
    most = max(1, MOST_TOKENS // length)
    return rows if count <= most else rows[torch.linspace(0, count - 1, most).long()]


def _rounded(
    decoder: GPTDecoder, plan: PrecisionPlan, windows: Tensor, first_names: Mapping[str, str]
) -> Iterator[tuple[tuple[str, ...], Codes]]:
    positions = torch.arange(windows.shape[1]).unsqueeze(0)
    batches = torch.split(windows, _WINDOWS_AT_ONCE)
    hidden = [decoder.embed(ids, positions) for ids in batches]
    bias = decoder.attention_bias(torch.ones_like(windows[:1]), windows.shape[1], hidden[0])
    past = hidden[0].new_zeros((1, decoder.n_heads, 0, decoder.head_dim))
    for index, block in enumerate(decoder.trf_blocks):

        def run(x: Tensor, block: Any = block) -> Tensor:
            out: Tensor = block(x, bias, past.expand(len(x), -1, -1, -1), past.expand(len(x), -1, -1, -1))[0]
            return out

        attention, feed_forward = cast(Any, block).att, cast(Any, block).ff.layers
        groups: tuple[Sequence[nn.Linear], ...] = (
            (attention.W_query, attention.W_key, attention.W_value),
            (attention.out_proj,),
            (feed_forward[0],),
            (feed_forward[2],),
        )
        for layers in groups:
            moment = _second_moment(layers[0], run, hidden)
            names = tuple(f"trf_blocks.{index}.{_name_of(block, layer)}.weight" for layer in layers)
            yield names, _round_in_place(layers, moment, plan.body(layers[0].in_features))
        hidden = [run(x) for x in hidden]
        decoder.trf_blocks[index] = nn.Identity()  # its rounded copy is not needed any more
        logger.info("rounded block %d of %d", index + 1, len(decoder.trf_blocks))
    width = decoder.out_head.in_features
    moment = sum((_gram(decoder.final_norm(x)) for x in hidden), torch.zeros(width, width))
    name = first_names.get("out_head.weight", "out_head.weight")
    if name != "out_head.weight":
        moment += _LOOKUP_WEIGHT / (1 - _LOOKUP_WEIGHT) * moment.diagonal().mean() * torch.eye(width)
    yield (name,), rounded_for_inputs(decoder.out_head.weight, moment, plan.head(width))


def _name_of(block: nn.Module, layer: nn.Module) -> str:
    return next(str(name) for name, module in block.named_modules() if module is layer)


class _ReadError(Exception):
    """Ends a pass through a block where its layer's input is known: what lies behind is not needed yet."""


def _second_moment(layer: nn.Linear, run: Any, hidden: Sequence[Tensor]) -> Tensor:
    """X^T X of what `layer` reads, float32 (K, K)."""
    moment = torch.zeros(layer.in_features, layer.in_features)

    def add(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moment.add_(_gram(inputs[0]))
        raise _ReadError

    handle = layer.register_forward_pre_hook(add)
    try:
        for x in hidden:
            with contextlib.suppress(_ReadError):
                run(x)
    finally:
        handle.remove()
    return moment


def _gram(x: Tensor) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    return rows.T @ rows


def _round_in_place(layers: Sequence[nn.Linear], moment: Tensor, scheme: Scheme) -> Codes:
    """The codes of layers that read one tensor, side by side; the layers go on with the rounded weights."""
    matrix = torch.cat([layer.weight for layer in layers])
    codes, scales = rounded_for_inputs(matrix, moment, scheme)
    restored = (codes * scales.unsqueeze(-1)).reshape(len(matrix), -1)[:, : matrix.shape[1]]
    for layer, part in zip(layers, torch.split(restored, [layer.out_features for layer in layers]), strict=True):
        layer.weight = nn.Parameter(part.clone(), requires_grad=False)
    return codes, scales
