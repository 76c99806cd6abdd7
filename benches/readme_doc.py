"""Puts what `make export` prints into the README.

`python -m benches.readme_doc` exports the 124M skeleton to a folder that is removed again, and rewrites the sample.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gpt_export.artifact.manifest import Manifest, read_manifest
from gpt_export.cli.publish_text import summary

PAGE = Path(__file__).parent.parent / "README.md"
SHOWN = Path("artifacts/dummy-124m")
"""Where `make export` puts it."""
_BLOCK = re.compile(r"(?<=<!-- begin sample -->\n)(.*?)(?=<!-- end sample -->)", re.DOTALL)


def sample(manifest: Manifest) -> str:
    """What the export of `manifest` tells at its end, as an indented block."""
    lines = summary(manifest, SHOWN).splitlines()
    return "\n" + "\n".join(f"    {line}".rstrip() for line in lines) + "\n\n"


def sample_of(page: str) -> str:
    """The block that the page has."""
    found = _BLOCK.search(page)
    assert found is not None, "the README has no sample"
    return found[0]


def main() -> None:
    """Exports and rewrites."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gpt_export", "onnx", "--output", f"{folder}/{SHOWN.name}"]
        subprocess.run(command, check=True, capture_output=True)
        block = sample(read_manifest(Path(folder) / SHOWN.name))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_BLOCK.sub(lambda _: block, page), encoding="utf-8")


if __name__ == "__main__":
    main()
