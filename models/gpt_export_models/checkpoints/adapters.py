"""Adapters of Hugging Face's PEFT: what their files ask for, or a refusal by name of what is not implemented.

Source: `LoraConfig`, `save_pretrained` and `merge` of peft 0.21, https://github.com/huggingface/peft; Hu et al., 2021
(LoRA), Kalajdzievski, 2023 (rank-stabilised), Liu et al., 2024 (DoRA).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt_export_models.checkpoints.pickles import read_pickle
from gpt_export_models.checkpoints.safetensors_files import read_safetensors
from gpt_export_models.errors import CheckpointError
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some
from gpt_export_models.regular_files import open_file

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
_TYPE = "LORA"
_READ = frozenset(
    (
        "peft_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "alpha_pattern",
        "rank_pattern",
        "trainable_token_indices",
    )
)
_OF_TRAINING = frozenset(
    (
        *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
        *("bias", "lora_bias", "fan_in_fan_out", "lora_dropout", "init_lora_weights", "ensure_weight_tying"),
        *("base_model_name_or_path", "revision", "task_type", "auto_mapping", "inference_mode", "peft_version"),
        *("runtime_config", "eva_config", "velora_config", "lora_ga_config", "megatron_core", "qalora_group_size"),
        *("enable_lora", "merge_weights", "low_cpu_mem_usage"),
    )
)
"""Settings that the names and shapes of the tensors say again, or that matter while training alone."""
_PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva", "lora_ga")
"""Values of init_lora_weights that leave the base as it is; the others (PiSSA, OLoRA, ...) move weights out of it."""
_LONGEST_PATTERN = 200

_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB]|lora_magnitude_vector|token_adapter\.trainable_tokens_delta)"
    r"(?:\.default)?(?:\.(?P<kind>weight|bias))?"
)


@dataclass(slots=True, kw_only=True)
class LowRank:
    """A product that is added to one matrix: `scaling` * B A, and the norms of its rows if it is DoRA."""

    a: Tensor | None = None
    """(rank, in)"""
    b: Tensor | None = None
    """(out, rank)"""
    bias: Tensor | None = None
    """(out,), added to the layer's bias after scaling."""
    magnitude: Tensor | None = None
    """(out,) of a layer, (in,) of an embedding."""
    scaling: float = 1.0
    embedding: bool = False
    """Whether the matrix is a table of rows, which holds the product transposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What an adapter changes in its base, by the names of the base's modules and parameters."""

    folder: Path
    file: Path
    products: Mapping[str, LowRank]
    """By module."""
    replaced: Mapping[str, Tensor]
    """By parameter, what stands in its place."""
    rows: Mapping[str, tuple[tuple[int, ...], Tensor]] = field(default_factory=dict)
    """By module, rows of its table that were trained, and what stands in their place."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What it was read from."""
        return (self.file, self.folder / CONFIG)


def has_adapter(folder: Path) -> bool:
    """Whether an adapter of PEFT lies in the folder."""
    return folder.is_dir() and (folder / CONFIG).is_file()


def base_of(folder: Path) -> str | None:
    """The name of the model that the adapter in `folder` was trained on, if it says it."""
    name = read_json_object(folder / CONFIG).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def read_adapter(folder: Path) -> Adapter:
    """The adapter in `folder`, its tensors mapped.

    Raises:
        CheckpointError: a file is missing or damaged, or the adapter is of a kind that is not implemented.
    """
    if not has_adapter(folder):
        raise CheckpointError(f"{folder} holds no adapter, there is no {CONFIG}; pass the folder that PEFT saved it to")
    config = read_json_object(folder / CONFIG)
    _refuse(folder, config)
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder} holds no weights of an adapter; it needs one of {', '.join(FILES)}")
    read = read_safetensors(file) if file.suffix == ".safetensors" else read_pickle(file, mapped=_is_zip(file))
    if not isinstance(read, Mapping) or not all(isinstance(value, Tensor) for value in read.values()):
        raise CheckpointError(f"{file} holds no dict of tensors; save the adapter again with save_pretrained")
    return _sorted_out(folder, file, config, {str(name): tensor for name, tensor in read.items()})


def _is_zip(file: Path) -> bool:
    with open_file(file) as stream:
        return stream.read(2) == b"PK"


def _refuse(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses settings that change the numbers and are not implemented; those of later versions of PEFT among them."""
    if (kind := config.get("peft_type")) != _TYPE:
        raise CheckpointError(
            f"{folder} holds an adapter with peft_type {kind!r}, which is not implemented (only {_TYPE} is); merge it "
            "first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER), if PEFT can merge it, "
            "or leave it away with --adapter none"
        )
    wrong = [
        f"{name} {value!r}"
        for name, value in config.items()
        if name not in _READ | _OF_TRAINING and value not in (None, False, 0, "", [], {})
    ]
    start = config.get("init_lora_weights")
    if not isinstance(start, bool | str | None) or start not in _PLAIN_STARTS:
        wrong.append(f"init_lora_weights {start!r}, which changes the base")
    if wrong:
        raise CheckpointError(
            f"{folder} holds a {_TYPE} adapter with what is not implemented: {some(wrong)}; merge it first with PEFT's "
            "merge_and_unload, or leave it away with --adapter none"
        )


def _sorted_out(folder: Path, file: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Adapter:
    products: dict[str, LowRank] = {}
    replaced: dict[str, Tensor] = {}
    rows: dict[str, tuple[tuple[int, ...], Tensor]] = {}
    for stored, tensor in tensors.items():
        name = stored.removeprefix("base_model.model.")
        found = _PART.fullmatch(name)
        if found is None:
            if "lora_" in name or "." not in name:
                raise CheckpointError(
                    f"{file} holds {some([stored])}, which is not implemented; merge it with PEFT first"
                )
            plain = name.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")
            replaced[plain.replace(".original_module.", ".")] = tensor
        elif found["part"].startswith("token_adapter"):
            rows[found["module"]] = (_indices(folder, config, found["module"], len(tensor)), tensor)
        else:
            product = products.setdefault(found["module"], LowRank(embedding="embedding" in found["part"]))
            _put(product, found["part"], found["kind"], tensor)
    for module, product in products.items():
        _check(file, module, product)
        product.scaling = _scaling(folder, config, module, product)
    if not products and not replaced and not rows:
        raise CheckpointError(f"{file} is an adapter without tensors; save it again with save_pretrained")
    if absent := [
        module for module, product in products.items() if config.get("use_dora") and product.magnitude is None
    ]:
        raise CheckpointError(
            f"{file} is a DoRA adapter (use_dora) without the magnitudes of {some(absent)}; save it again"
        )
    return Adapter(folder=folder, file=file, products=products, replaced=replaced, rows=rows)


def _put(product: LowRank, part: str, kind: str | None, tensor: Tensor) -> None:
    if part == "lora_magnitude_vector":
        product.magnitude = tensor
    elif kind == "bias":
        product.bias = tensor
    elif part.endswith("A"):
        product.a = tensor
    else:
        product.b = tensor


def _check(file: Path, module: str, product: LowRank) -> None:
    a, b = product.a, product.b
    if a is None or b is None:
        raise CheckpointError(f"{file} has only half of the adapter of {some([module])}; save the adapter again")
    if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
        raise CheckpointError(
            f"{file} has matrices {list(a.shape)} and {list(b.shape)} for {some([module])}, which do not make a "
            "product of low rank; only adapters of Linear, Conv1D and Embedding are read"
        )
    if not all(part.is_floating_point() for part in (a, b, product.bias, product.magnitude) if part is not None):
        raise CheckpointError(f"{file} has numbers for {some([module])} that are no floats; save the adapter again")


def _scaling(folder: Path, config: Mapping[str, Any], module: str, product: LowRank) -> float:
    """Alpha over the rank, or over its root where the adapter is rank-stabilised."""
    assert product.a is not None
    alpha = _for_module(folder, config, "alpha_pattern", module, config.get("lora_alpha"))
    stated = _for_module(folder, config, "rank_pattern", module, config.get("r"))
    rank = product.a.shape[0]
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise CheckpointError(
            f"{folder / CONFIG} has no lora_alpha that is a number; put the file there that PEFT wrote"
        )
    if stated != rank:
        raise CheckpointError(
            f"{folder / CONFIG} says rank {stated!r} for {some([module])}, its matrices have {rank}; the two files are "
            "not of one adapter"
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _for_module(folder: Path, config: Mapping[str, Any], name: str, module: str, usual: Any) -> Any:
    """The setting of a module: that of the first pattern that fits the end of its name, or the usual one."""
    patterns = config.get(name) or {}
    if not isinstance(patterns, Mapping):
        raise CheckpointError(f"{folder / CONFIG} has a {name} that is no object; put the file there that PEFT wrote")
    for pattern, value in patterns.items():
        if len(pattern) > _LONGEST_PATTERN or re.search(r"[*+?}]\)?[*+{]|\)[*+{]", pattern):
            raise CheckpointError(
                f"{folder / CONFIG} has a {name} with {some([repr(pattern)])}, too involved to be tried; name the "
                "modules"
            )
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise CheckpointError(
                f"{folder / CONFIG} has a {name} with {some([repr(pattern)])}, no regular expression ({error}); "
                "correct it"
            ) from error
    return usual


def _indices(folder: Path, config: Mapping[str, Any], module: str, count: int) -> tuple[int, ...]:
    said = config.get("trainable_token_indices")
    if isinstance(said, Mapping):
        said = next((value for name, value in said.items() if f".{module}".endswith(f".{name}")), None)
    if not isinstance(said, list) or len(said) != count or not all(isinstance(i, int) and i >= 0 for i in said):
        raise CheckpointError(
            f"{folder / CONFIG} has no trainable_token_indices for the {count} rows of {some([module])}; the two files "
            "are not of one adapter"
        )
    return tuple(said)


def names_of(adapter: Adapter) -> Iterator[str]:
    """The parameters that the adapter changes."""
    for module, product in adapter.products.items():
        yield f"{module}.weight"
        if product.bias is not None:
            yield f"{module}.bias"
    yield from (f"{module}.weight" for module in adapter.rows)
    yield from adapter.replaced
