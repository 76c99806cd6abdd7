"""Names of the Hugging Face hub: the snapshot in the local cache, or how to get one. Light: needs no torch.

Source: the layout of the cache, https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from gpt_export_models.regular_files import read_text

from gpt_export.errors import SourceError

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_BARE = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


def cached_snapshot(name: str) -> Path | None:
    """The snapshot of the hub's model `name` in the cache; None if `name` is a path, or no such id.

    Raises:
        SourceError: it is an owner and a name, and the cache has no snapshot of it.
    """
    if Path(name).exists() or not (_ID.fullmatch(name) or _BARE.fullmatch(name)):
        return None
    found = _snapshot(_cache() / f"models--{name.replace('/', '--')}")
    if found is None and "/" in name:
        last = name.rpartition("/")[2]
        raise SourceError(
            f"{name} is not a path, and no model of that name is in the Hugging Face cache ({_cache()}); download "
            "it with "
            f"hf download {name} --local-dir {last}, and pass that folder"
        )
    return found


def _cache() -> Path:
    """Where the cache is, by the variables that huggingface_hub obeys."""
    if stated := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(stated).expanduser()
    home = os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/huggingface"
    return Path(home).expanduser() / "hub"


def _snapshot(folder: Path) -> Path | None:
    """The snapshot that `main` refers to, otherwise the newest."""
    try:
        revision = read_text(folder / "refs" / "main", largest=4096).strip()
    except (OSError, UnicodeDecodeError):
        revision = ""
    if re.fullmatch(r"[\w-]+", revision) and (folder / "snapshots" / revision).is_dir():
        return folder / "snapshots" / revision
    inner = [each for each in (folder / "snapshots").glob("*") if each.is_dir()]
    return max(inner, key=lambda each: each.stat().st_mtime, default=None)
