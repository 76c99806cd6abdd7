"""Which base and which adapter a path, `--adapter` and `--base` mean together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpt_export_models.checkpoints.adapters import CONFIG, base_of, has_adapter
from gpt_export_models.checkpoints.folders import meant_folder
from gpt_export_models.checkpoints.stored import holds_weights
from gpt_export_models.json_files import read_json_object

from gpt_export.errors import CheckpointError, SourceError
from gpt_export.sources.hub import cached_snapshot

NONE = "none"
"""What `--adapter` says to leave away the one beside the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A base, and what is merged into it."""

    base: Path
    adapter: Path | None
    notes: tuple[str, ...]


def choose_adapter(path: Path, adapter: str | Path | None = None, base: Path | None = None) -> Chosen:
    """The base and the adapter that are meant by `path`.

    An adapter that lies beside the weights is part of the model, as transformers has it.

    Args:
        adapter: the folder of another one, or `none`.
        base: the model of the adapter at `path`, which is then an adapter alone.

    Raises:
        SourceError: what was said does not go together.
        CheckpointError: an adapter has no base.
    """
    folder, notes = meant_folder(path)
    if base is not None:
        if adapter is not None:
            raise SourceError(f"--base says that {path} is the adapter; leave --adapter {adapter} out")
        if not has_adapter(folder):
            raise SourceError(f"--base is for an adapter, and {path} holds none (no {CONFIG}); leave it out")
        ground, more = meant_folder(cached_snapshot(str(base)) or base)
        _demand_weights(ground)
        if has_adapter(ground):
            raise SourceError(
                f"{ground} has an adapter of its own beside its weights; merge that first, and pass the result"
            )
        return Chosen(base=ground, adapter=folder, notes=(*notes, *more, _merged(folder)))
    if adapter is not None and str(adapter) != NONE:
        beside, more = meant_folder(Path(adapter))
        _demand_weights(folder)
        return Chosen(base=folder, adapter=beside, notes=(*notes, *more, _merged(beside)))
    if not has_adapter(folder):
        if path.is_file() and has_adapter(path.parent):
            notes += (f"an adapter lies beside {path.name} and was not merged; pass the folder for that",)
        return Chosen(base=folder, adapter=None, notes=notes)
    _demand_weights(folder)
    if adapter is not None:
        return Chosen(base=folder, adapter=None, notes=(*notes, f"the adapter in {folder.name} was left away"))
    note = f"{_merged(folder)}; if the weights have it in them already, leave it away with --adapter none"
    return Chosen(base=folder, adapter=folder, notes=(*notes, note))


def _merged(folder: Path) -> str:
    return f"the adapter in {folder.resolve().name} was merged into the weights"


def _demand_weights(folder: Path) -> None:
    if not folder.is_dir() or holds_weights(folder) or not has_adapter(folder):
        return
    kind = read_json_object(folder / CONFIG).get("peft_type")
    trained_on = base_of(folder)
    whose = f", trained on {trained_on}" if trained_on else ""
    raise CheckpointError(
        f"{folder} holds an adapter alone (peft_type {kind}{whose}); pass the folder of the model that it was "
        "trained on "
        f"as --base: gpt-export onnx {folder} --base FOLDER"
    )
