"""What the shell completes: names of sources beside paths, and the variants of the artifact that was typed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from click import Context, Parameter
from click.shell_completion import CompletionItem
from gpt_export_models.regular_files import OBJECT_BYTES, read_text

from gpt_export.artifact.variant_names import ORDER, VARIANTS

SOURCES = ("dummy-124m", "gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1558m")
"""As `sources.names.known_names` has them, which takes torch to import; a test holds the two together."""
MANIFEST = "manifest.json"


def complete_source(_context: Context, _parameter: Parameter, typed: str) -> list[CompletionItem]:
    """Known names that begin so, and the shell's own completion of paths."""
    return [CompletionItem(name) for name in SOURCES if name.startswith(typed)] + [CompletionItem(typed, type="file")]


def complete_variant(context: Context, _parameter: Parameter, typed: str) -> list[CompletionItem]:
    """Variants that the artifact on the command line has; all there can be where none is named yet."""
    # An option that still lacks its value keeps click from reading what stands before it, so the line itself is asked.
    words = os.environ.get("COMP_WORDS", "").split()
    named = context.params.get("artifact") or next((word for word in words if (Path(word) / MANIFEST).is_file()), None)
    return [CompletionItem(name) for name in _variants(named) if name.startswith(typed)]


def complete_precisions(_context: Context, _parameter: Parameter, typed: str) -> list[CompletionItem]:
    """One more name behind those that are there, with commas between."""
    before, comma, last = typed.rpartition(",")
    taken = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}") for name in VARIANTS if name.startswith(last) and name not in taken
    ]


def _variants(artifact: Any) -> tuple[str, ...]:
    """Read from the manifest as it is: a shell that waits for a check of its digest is no help."""
    try:
        found = json.loads(read_text(Path(artifact) / MANIFEST, largest=OBJECT_BYTES))["variants"]
        return tuple(name for name in ORDER if name in found)
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ORDER
