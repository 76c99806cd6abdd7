"""Makes docs/manifest.schema.json, what a manifest is made of, from the schema that gpt-export reads manifests by.

`python -m benches.manifest_schema_doc` rewrites it; with `--check` it only says whether it is up to date.
"""

from __future__ import annotations

import json
from pathlib import Path

from gpt_export.artifact.manifest_schema import MANIFEST_SCHEMA

from benches.page import keep_current

PAGE = Path(__file__).parent.parent / "docs" / "manifest.schema.json"


def render(_page: str = "") -> str:
    """The file."""
    return json.dumps(MANIFEST_SCHEMA, indent=2, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    keep_current(PAGE, render, "python -m benches.manifest_schema_doc", __doc__)
