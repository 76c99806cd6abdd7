"""What SOURCE means on the command line: a known name, or `package.module:factory`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpt_export_models.checkpoints.advice import refuse_configuration
from gpt_export_models.config import GPT_CONFIG_124M, GPTConfig
from gpt_export_models.dummy import DummyGPTModel
from gpt_export_models.errors import UnimplementedError
from gpt_export_models.json_files import read_json_object
from torch import nn

from gpt_export.artifact.manifest import has_manifest
from gpt_export.errors import SourceError
from gpt_export.sources.adapter_choice import Chosen, choose_adapter
from gpt_export.sources.factories import made_once, maker_of
from gpt_export.sources.gpt import GPT2_SIZES, artifact_name, checkpoint_source, seeded_gpt
from gpt_export.sources.hub import cached_snapshot
from gpt_export.sources.merged import merge_into
from gpt_export.sources.source import Source, source_of_module
from gpt_export.sources.state import loaded
from gpt_export.sources.transformers_folder import (
    CONFIG,
    has_transformers,
    is_transformers,
    transformers_source,
    with_tokenizer,
)

DUMMY = "dummy-124m"
OURS = "gpt2"
"""The type of model whose folders our own decoder reads."""
DEFAULT_SEED = 123
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def read_source(
    spec: str,
    *,
    seed: int = DEFAULT_SEED,
    config_file: Path | None = None,
    heads: int | None = None,
    weights: Path | None = None,
    adapter: str | Path | None = None,
    base: Path | None = None,
    lora_alpha: float | None = None,
    cached: bool = True,
) -> Source:
    """The source that `spec` names.

    Args:
        spec: a name of `known_names`, the path of a checkpoint, or `package.module:factory` for a function, class or
            module object of the user's; modules are looked for in the current folder too.
        seed: what torch's generator is seeded with before weights are drawn.
        config_file: JSON with what a factory takes, or the book's configuration for a checkpoint that does not say
            its head count.
        heads: the head count of such a checkpoint.
        weights: a checkpoint whose tensors are loaded into the module of a factory.
        adapter: a folder of PEFT's that is merged into the weights; `none` leaves away the one beside them.
        base: the model of the adapter that `spec` is.
        lora_alpha: the scaling of low-rank layers in a state dict of the book's.
        cached: whether the graph of a real GPT has a key-value cache.

    Raises:
        SourceError: the name is unknown, cannot be imported, or gives no module that fits.
    """
    snapshot = None if spec in known_names() else cached_snapshot(spec)
    is_path = snapshot is not None or Path(spec).exists()
    is_factory = not is_path and _FACTORY.fullmatch(spec) is not None
    if weights is not None and not is_factory:
        raise SourceError(f"--weights are for a class of your own (package.module:factory), and {spec} is none")
    if heads is not None and not is_path:
        raise SourceError(f"--heads is for a checkpoint that does not say it, and {spec} is none")
    given = (("--adapter", adapter), ("--base", base), ("--lora-alpha", lora_alpha))
    if (said := [flag for flag, value in given if value is not None]) and not is_path and weights is None:
        raise SourceError(f"{', '.join(said)} is for a checkpoint, and {spec} is none; leave it out")
    if spec == DUMMY:
        return _dummy_124m(seed)
    if spec in GPT2_SIZES:
        return seeded_gpt(spec, seed, cached=cached)
    if is_path and has_manifest(Path(spec)):
        raise SourceError(
            f"{spec} is an artifact already; gpt-export quantize makes smaller files of it, and gpt-export validate "
            "compares it with its source"
        )
    if is_path:
        chosen = choose_adapter(snapshot or Path(spec), adapter, base)
        name = artifact_name(Path(spec)) if snapshot is None else spec.rpartition("/")[2]
        return _at_path(name, chosen, config_file=config_file, heads=heads, lora_alpha=lora_alpha, cached=cached)
    if is_factory:
        return _imported(spec, seed, config_file, weights, adapter)
    raise SourceError(
        f"{spec!r} is neither a known source nor a path; known are {', '.join(known_names())}, "
        "or name a factory as package.module:factory"
    )


def source_of(
    named: nn.Module | str | Path,
    *,
    name: str | None = None,
    context_length: int | None = None,
    vocab_size: int | None = None,
    **said: Any,
) -> Source:
    """The source of a module in eval mode, or what `read_source` makes of a name or a path.

    Args:
        name: the artifact's name in place of the source's own.
        context_length, vocab_size: of a module, see `source_of_module`.
        said: what `read_source` takes beside the name; of no use for a module.

    Raises:
        SourceError, CheckpointError: as there; or what was said is not for this kind of source.
    """
    if isinstance(named, str | Path):
        if given := [key for key, value in (("vocab_size", vocab_size),) if value is not None]:
            raise SourceError(f"{', '.join(given)} is for a module, and {named} says it itself; leave it out")
        source = read_source(str(named), **said)
        if context_length is not None and context_length > source.context_length:
            raise SourceError(
                f"{named} has a context of {source.context_length}, less than {context_length}; leave it out"
            )
        source = replace(source, context_length=context_length or source.context_length)
        return replace(source, name=name or source.name)
    if given := [
        key for key in ("config_file", "heads", "weights", "adapter", "base", "lora_alpha") if said.get(key) is not None
    ]:
        raise SourceError(f"{', '.join(given)} is for a source by name, and this is a module; leave it out")
    return source_of_module(
        named,
        name=name or type(named).__name__.lower(),
        record={"kind": "module", "class": type(named).__qualname__},
        vocab_size=vocab_size,
        context_length=context_length,
    )


def known_names() -> tuple[str, ...]:
    """Sources that a name and a seed determine, so that they can be made again from a manifest."""
    return (DUMMY, *GPT2_SIZES)


def _dummy_124m(seed: int) -> Source:
    torch.manual_seed(seed)
    module = DummyGPTModel(GPT_CONFIG_124M).eval()
    config = GPTConfig.from_dict(GPT_CONFIG_124M)
    return source_of_module(
        module,
        name=DUMMY,
        record={"kind": "seeded", "name": DUMMY, "seed": seed},
        judged_against="the shape-checking skeleton of the book's 124M model",
        vocab_size=config.vocab_size,
        context_length=config.context_length,
        configuration=config.to_dict(),
    )


def _at_path(
    name: str,
    chosen: Chosen,
    *,
    config_file: Path | None,
    heads: int | None,
    lora_alpha: float | None,
    cached: bool,
) -> Source:
    """Our own GPT where we have read a family's code, transformers' model where it is the one who knows."""
    folder = chosen.base
    plain = config_file is None and heads is None and is_transformers(folder)
    if is_transformers(folder):
        refuse_configuration(folder, read_json_object(folder / CONFIG))
    if plain and read_json_object(folder / CONFIG)["model_type"] != OURS:
        return transformers_source(folder, name=name, adapter=chosen.adapter, notes=chosen.notes)
    try:
        return checkpoint_source(
            folder,
            name=name,
            config_file=config_file,
            heads=heads,
            adapter=chosen.adapter,
            lora_alpha=lora_alpha,
            cached=cached,
            notes=chosen.notes,
        )
    except UnimplementedError:
        if not plain or not has_transformers():
            raise
        return transformers_source(folder, name=name, adapter=chosen.adapter, notes=chosen.notes)


def _imported(
    spec: str, seed: int, config_file: Path | None, weights: Path | None, adapter: str | Path | None
) -> Source:
    make = maker_of(spec, config_file)
    notes: tuple[str, ...] = ()
    if weights is None:
        module = made_once(make, seed)
    else:
        chosen = choose_adapter(weights, adapter)
        module, notes = loaded(make, chosen.base, seed)
        notes += chosen.notes
        if chosen.adapter is not None:
            merge_into(module, chosen.adapter)
    source = source_of_module(
        module,
        name=spec.replace(":", ".").rpartition(".")[2].replace("_", "-").lower(),
        record={"kind": "import", "factory": spec, "seed": seed}
        | ({} if weights is None else {"weights": weights.name}),
        judged_against=f"your module {spec}" + ("" if weights is None else f" with the weights of {weights.name}"),
        notes=notes,
    )
    if weights is None:
        return source
    return with_tokenizer(source, chosen.base if chosen.base.is_dir() else chosen.base.parent)
