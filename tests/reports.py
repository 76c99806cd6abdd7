"""Parity reports made up for the page: passing or failing, long, and with texts that HTML could stumble over."""

from __future__ import annotations

from typing import Any

import numpy as np
from gpt_export.artifact.manifest import Manifest
from gpt_export.gate.limits import LIMITS
from gpt_export.gate.report import CaseResult, Deviation, ParityReport, WeightsResult

NASTY = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' & &amp; &lt;",
    " two  spaces ",
    "\n\r\t",
    "\x00\x1b[31m\x7f\x85",
    "\ufffd",
    "\ud83d",
    "\u202eright to left\u2066",
    "\u0301",
    "\u200b\ufeff",
    "",
    "{{ 7 * 7 }}{% raw %}",
    "北風 👩‍🚀",
)
PARTS = ("norm", "attention", "mlp")


def case_result(name: str, sequence: int, *, over: float = 0.2, **fields: Any) -> CaseResult:
    """A case whose worst position, a seventh along, has `over` times its limit."""
    errors = np.random.default_rng([sequence, len(name)]).uniform(0.3, 0.9, sequence) * over * 1e-4
    worst = sequence // 7
    errors[worst] = over * 1e-4
    values: dict[str, Any] = {
        "batch": 1,
        "sequence": sequence,
        "positions": sequence,
        "scale": 5.0,
        "limit": 1e-4,
        "max_abs": over * 1e-4,
        "worst_ratio": over,
        "worst_index": (0, worst, 7),
        "sqnr_db": 131.5,
        "error_by_position": tuple(float(f"{error:.2g}") for error in errors),
    }
    return CaseResult(name=name, **values | fields)


def deviations(n_layers: int = 3, fault_at: int | None = None) -> tuple[Deviation, ...]:
    """The embedding, three parts of each layer, and the head; over the limit from `fault_at` on."""
    places = [(None, "embedding"), *((layer, part) for layer in range(n_layers) for part in PARTS), (None, "head")]
    return tuple(
        Deviation(
            layer=layer,
            part=part,
            module=f"{part}.{layer} output",
            operator="MatMul",
            tensor=f'/block <{layer}>/"{part}"',
            shape=(1, 4, 8),
            max_abs=1e-6,
            limit=1e-5,
            ratio=0.0 if i == 0 else 0.1 if fault_at is None or i < fault_at else 40.0,
            worst_index=(0, 1, 2),
            expected=0.5,
            found=0.6,
            cause=f"{part} weight is <transposed>" if i == fault_at else "",
        )
        for i, (layer, part) in enumerate(places)
    )


def opened(texts: tuple[str | None, ...], *, case: str = "text", differs: bool = False) -> dict[str, Any]:
    """A case whose tokens are `texts`, each followed by the same five; at position 2 two of them may change places."""
    top = [[i, texts[i % len(texts)], round(0.4 / (i + 1), 4)] for i in range(5)]
    other = [top[1], top[0], *top[2:]] if differs else top
    return {
        "target": "onnx",
        "case": case,
        "reason": "real <token> sequences",
        "row": 0,
        "tokens": [
            {
                "position": i,
                "id": 100 + i,
                "text": text,
                "error": 1e-5,
                "reference": top,
                "candidate": other if i == 2 else top,
            }
            for i, text in enumerate(texts)
        ],
    }


def parity_report(*, over: float = 0.2, long: int = 0, fault_at: int | None = None, **fields: Any) -> ParityReport:
    """A report of two targets: `over` times the limit in the text case, and `long` positions more in the grid."""
    cases = (
        case_result("text", 20, over=over, reference_perplexity=24690.0, candidate_perplexity=24690.0),
        case_result("cache-steps", 17, note="stands for <more>"),
        case_result("ids-repeated", 17),
        *([case_result(f"grid-1x{long}", long)] if long else []),
    )
    values: dict[str, Any] = {
        "targets": {"onnx": cases, "torchscript": cases[:1]},
        "weights": WeightsResult(checked=10, size_bytes=4000, mismatches=()),
        "noise": 1.7e-6,
        "limits": LIMITS["fp32"],
        "notes": ("a note with <b>tags</b>",),
        "layers": deviations(fault_at=fault_at),
        "layers_case": "text",
        "opened": opened(NASTY, differs=over > 1),
    }
    return ParityReport(**values | fields)


def manifest(name: str = "tiny", **fields: Any) -> Manifest:
    """A manifest of two files, the page and itself."""
    values: dict[str, Any] = {
        "source": {"kind": "seeded", "name": name, "seed": 123},
        "export": {"opset": 18, "seed": 123, "gate": "enforce"},
        "model": {"vocab_size": 50257, "context_length": 1024, "tokenizer": "gpt2", "configuration": {}, "notes": []},
        "variants": {},
        "libraries": {"gpt-export": "0.1.0", "onnxruntime": "1.32.0", "torch": "2.13.0"},
        "parity": None,
        "files": {
            "onnx/model.onnx": {"sha256": "a" * 64, "size_bytes": 109_521},
            "parity.json": {"sha256": "b" * 64, "size_bytes": 1234},
            "report.html": {"sha256": "c" * 64, "size_bytes": 1},
        },
    }
    return Manifest(name=name, **values | fields)
