"""What transformers.js reads of config.json beyond Hugging Face's own keys.

Source: `src/utils/model-loader.js` of transformers.js 4.3 (files without an entry have no external data), and
`kv_cache_dtype` of its versions before 4; since then the session itself says the type of its cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from gpt_export.targets.facts import Facts

DTYPES: Mapping[str, str] = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "int4": "q4"}
"""What transformers.js calls the variants; it finds each by the suffix of its file."""


def settings(facts: Facts) -> dict[str, Any]:
    """The value of `transformers.js_config`; empty when every variant is one file with a float32 cache."""
    files = map(facts.files_of, facts.variants)
    external = {PurePosixPath(graph).name: 1 for graph, *data in files if data}  # one chunk, `<file>_data`
    halves = {
        DTYPES[name]: "float16"
        for name, variant in facts.variants.items()
        if variant.get("cache_dtype") == "float16" and name in DTYPES
    }
    found: dict[str, Any] = {}
    if external:
        found["use_external_data_format"] = external
    if halves:
        found["kv_cache_dtype"] = halves
    return found
