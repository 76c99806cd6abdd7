"""Which folder is meant: a trainer's last checkpoint, the snapshot in a cache."""

from __future__ import annotations

import re
from pathlib import Path

from gpt_export_models.checkpoints.adapters import CONFIG
from gpt_export_models.checkpoints.stored import USUAL_NAMES, holds_weights, weights_in
from gpt_export_models.problems import some

_STEP = re.compile(r"checkpoint-([0-9]{1,12})")


def meant_folder(path: Path) -> tuple[Path, tuple[str, ...]]:
    """`path`, or what it is a wrapping of, and a note that says so.

    A folder of Hugging Face's Trainer without weights of its own means its last `checkpoint-N` that holds any; one of a
    Hugging Face cache (`models--owner--name`) means its snapshot.
    """
    if not path.is_dir() or (path / CONFIG).is_file() or any((path / name).is_file() for name in USUAL_NAMES):
        return path, ()
    snapshots = sorted((path / "snapshots").glob("*")) if (path / "snapshots").is_dir() else []
    if snapshots:
        newest = max(snapshots, key=lambda folder: folder.stat().st_mtime)
        return newest, (f"the snapshot {newest.name} of the cache was taken",)
    steps = {
        int(found[1]): inner for inner in path.iterdir() if inner.is_dir() and (found := _STEP.fullmatch(inner.name))
    }
    if not steps or weights_in(path):
        return path, ()
    whole = [step for step, inner in steps.items() if holds_weights(inner) or (inner / CONFIG).is_file()]
    last = steps[max(whole or steps)]
    others = [steps[step].name for step in sorted(steps) if steps[step] != last]
    notes = [f"of the trainer's folder {last.name} was taken" + (f", not {', '.join(others[:8])}" if others else "")]
    if hollow := [steps[step].name for step in sorted(steps) if whole and step > max(whole)]:
        notes.append(f"{some(hollow)} of the trainer's folder came later and holds no weights")
    return last, tuple(notes)
