"""Folders of Hugging Face's transformers, read by transformers itself: its own class is reference and skeleton.

Source: `AutoModelForCausalLM` of transformers 5, https://github.com/huggingface/transformers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt_export_models.checkpoints.adapters import CONFIG as ADAPTER_CONFIG
from gpt_export_models.checkpoints.advice import asks_for_code, refuse_configuration
from gpt_export_models.checkpoints.stored import demand_weights
from gpt_export_models.json_files import read_json_object
from gpt_export_models.problems import some
from gpt_export_models.regular_files import check_folder
from gpt_export_models.scratch import scratch_folder
from gpt_export_models.tokenizer_folder import assumed_tokenizer, find_tokenizer
from torch import nn

from gpt_export.errors import CheckpointError, SourceError
from gpt_export.sources.merged import merge_into
from gpt_export.sources.places import blame
from gpt_export.sources.source import Source, source_of_module
from gpt_export.sources.state import loaded as state_loaded

logger = logging.getLogger(__name__)

CONFIG = "config.json"


def has_transformers() -> bool:
    """Whether transformers is installed."""
    return importlib.util.find_spec("transformers") is not None


def is_transformers(path: Path) -> bool:
    """Whether `path` is a folder whose `config.json` names a type of model."""
    where = path / CONFIG
    return path.is_dir() and where.is_file() and isinstance(read_json_object(where).get("model_type"), str)


def transformers_source(folder: Path, *, name: str, adapter: Path | None = None, notes: tuple[str, ...] = ()) -> Source:
    """The source of the decoder in `folder`, its weights mapped where they lie in safetensors, and `adapter` merged.

    Nothing of the folder is run as code. Attention is computed by plain tensor operators ("eager"), which every model
    has and torch.export follows.

    Raises:
        CheckpointError: the folder asks for code of its own or for quantised weights, holds no causal decoder that
            this transformers knows, or not all of its weights.
        SourceError: transformers is not installed.
    """
    values = read_json_object(folder / CONFIG)
    _refuse(folder, values)
    check_folder(folder)
    if not has_transformers():
        raise SourceError(
            f"{folder} is a {values['model_type']} of Hugging Face, which transformers reads, and that is not "
            "installed; pip install 'gpt-export[hf]'"
        )
    demand_weights(folder)
    with _without_adapter(folder) as alone:
        model, version, found = _loaded(alone, values)
    merged = {}
    if adapter is not None:
        merge_into(model, adapter)
        merged = {"adapter": adapter.resolve().name}
    source = source_of_module(
        model,
        name=name,
        record={"kind": "transformers", "model_type": values["model_type"], "name": name} | merged,
        judged_against=f"transformers {version}'s {type(model).__name__}",
        configuration=values,
        notes=(*notes, *found),
    )
    return with_tokenizer(source, folder)


def with_tokenizer(source: Source, folder: Path) -> Source:
    """`source` with the tokenizer whose files lie in `folder`, if there is one."""
    assumed = assumed_tokenizer(source.vocab_size).notes
    found = find_tokenizer(folder, source.vocab_size)
    notes = (*(note for note in source.notes if note not in assumed), *found.notes)
    return replace(source, carried=found.carried, made=found.made, tokenizer=found.tokenizer, notes=notes)


@contextlib.contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """The folder as transformers sees it without the adapter in it, which it would load by itself where PEFT is."""
    if not (folder / ADAPTER_CONFIG).is_file():
        yield folder
        return
    with scratch_folder() as scratch:
        view = scratch / folder.resolve().name
        view.mkdir()
        for inner in folder.resolve().iterdir():
            if inner.name != ADAPTER_CONFIG:
                (view / inner.name).symlink_to(inner)
        yield view


def _refuse(folder: Path, values: Mapping[str, Any]) -> None:
    if asks_for_code(values):
        raise CheckpointError(
            f"{folder} asks for code of its own (auto_map in {CONFIG}), and such code is never run; name your "
            "copy of the class, and this folder as its --weights"
        )
    refuse_configuration(folder, values)


def _loaded(folder: Path, values: Mapping[str, Any]) -> tuple[nn.Module, str, tuple[str, ...]]:
    import transformers

    with _quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            config.use_cache = False  # the cache is the export's
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                dtype="auto",
                output_loading_info=True,
                attn_implementation="eager",
            )
        except Exception as error:  # transformers raises what it likes
            if found := _unwrapped(transformers, folder):
                return found
            raise CheckpointError(
                f"transformers {transformers.__version__} does not read {folder} ({values['model_type']}) as a causal "
                f"decoder: {blame(error)}; check its files, or install another version"
            ) from error
    model, found = loaded
    faults = {kind: sorted(map(str, found.get(f"{kind}_keys") or ())) for kind in ("missing", "mismatched")}
    if any(faults.values()):
        if unwrapped := _unwrapped(transformers, folder):
            return unwrapped
        words = "; ".join(f"{kind} {some(names, limit=40)}" for kind, names in faults.items() if names)
        raise CheckpointError(
            f"{folder} does not hold the weights of {type(model).__name__}: {words}; save or download it again"
        )
    unexpected = sorted(map(str, found.get("unexpected_keys") or ()))
    notes = (f"{type(model).__name__} does not use {some(unexpected)} of the file",) if unexpected else ()
    return model.eval().requires_grad_(False), transformers.__version__, notes


def _unwrapped(transformers: Any, folder: Path) -> tuple[nn.Module, str, tuple[str, ...]] | None:
    """The model whose weights a trainer put into a dict of its own or behind a prefix; None if they are not there."""

    def make() -> nn.Module:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        config.use_cache = False
        made: nn.Module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        return made

    try:
        model, notes = state_loaded(make, folder, seed=0)
    except Exception as error:  # transformers raises what it likes, and what it raised at first says more
        logger.info("nor behind a prefix: %s", error)
        return None
    return model, transformers.__version__, notes


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bars and warnings of transformers: what matters of them is in the loading's report."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
