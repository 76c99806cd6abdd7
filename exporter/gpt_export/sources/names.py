"""What SOURCE means on the command line: a known name, or `package.module:factory`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gpt_export_models.config import GPT_CONFIG_124M, GPTConfig
from gpt_export_models.dummy import DummyGPTModel
from torch import nn

from gpt_export.errors import SourceError
from gpt_export.sources.gpt import GPT2_SIZES, checkpoint_source, seeded_gpt
from gpt_export.sources.source import Source, run_once, source_of_module

DUMMY = "dummy-124m"
DEFAULT_SEED = 123
ASSUMED_CONTEXT = 1024

_CONTEXT_KEYS = ("context_length", "block_size", "n_positions", "max_position_embeddings", "n_ctx")


def read_source(spec: str, *, seed: int = DEFAULT_SEED, config_file: Path | None = None, cached: bool = True) -> Source:
    """The source that `spec` names.

    Args:
        spec: a name of `known_names`, the path of a checkpoint, or `package.module:factory` for a function, class or
            module object of the user's; modules are looked for in the current folder too.
        seed: what torch's generator is seeded with before weights are drawn.
        config_file: the book's configuration as JSON, for a checkpoint that does not say its head count.
        cached: whether the graph of a real GPT has a key-value cache.

    Raises:
        SourceError: the name is unknown, cannot be imported, or gives no module that fits.
    """
    if spec == DUMMY:
        return _dummy_124m(seed)
    if spec in GPT2_SIZES:
        return seeded_gpt(spec, seed, cached=cached)
    if Path(spec).exists():
        return checkpoint_source(Path(spec), config_file=config_file, cached=cached)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", spec):
        return _imported(spec, seed)
    raise SourceError(
        f"{spec!r} is neither a known source nor a path; known are {', '.join(known_names())}, "
        "or name a factory as package.module:factory"
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
        vocab_size=config.vocab_size,
        context_length=config.context_length,
        configuration=config.to_dict(),
    )


def _imported(spec: str, seed: int) -> Source:
    module = _call_factory(spec, seed).eval()
    vocab_size = int(run_once(module).shape[-1])
    context_length, notes = context_length_of(module)
    return source_of_module(
        module,
        name=spec.replace(":", ".").rpartition(".")[2].replace("_", "-").lower(),
        record={"kind": "import", "factory": spec, "seed": seed},
        vocab_size=vocab_size,
        context_length=context_length,
        notes=notes,
    )


def _call_factory(spec: str, seed: int) -> nn.Module:
    path, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(path)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"{spec} cannot be imported: {error}; check the name, or the folder you are in") from error
    if not isinstance(found, nn.Module):
        torch.manual_seed(seed)
        try:
            found = found()
        except Exception as error:  # the user's code
            raise SourceError(
                f"{spec} cannot be called without arguments: {type(error).__name__}: {error}; name a factory that can"
            ) from error
    if not isinstance(found, nn.Module):
        raise SourceError(f"{spec} gives a {type(found).__name__}, not a torch.nn.Module; name a factory of modules")
    return found


def context_length_of(module: nn.Module) -> tuple[int, tuple[str, ...]]:
    """The context that the module states in its configuration, otherwise the longest sequence it runs on."""
    for holder in (module, *(getattr(module, name, None) for name in ("config", "cfg"))):
        for key in _CONTEXT_KEYS:
            value = holder.get(key) if isinstance(holder, Mapping) else getattr(holder, key, None)
            if isinstance(value, int) and value > 0:
                return value, ()
    found = _longest_run(module)
    how = "the longest it runs on" if found < ASSUMED_CONTEXT else "the longest that was tried"
    return found, (f"context length {found} is {how}; give the module a context_length to state another",)


def _longest_run(module: nn.Module) -> int:
    runs, fails = 1, ASSUMED_CONTEXT + 1
    length = ASSUMED_CONTEXT
    while runs + 1 < fails:
        try:
            with torch.no_grad():
                module(torch.zeros((1, length), dtype=torch.int64))
            runs = length
        except (IndexError, RuntimeError, ValueError, AssertionError):
            fails = length
        length = (runs + fails) // 2
    return runs
