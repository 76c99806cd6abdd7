"""What the exporting commands share: read the source, export it, tell the result. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.artifact import Artifact
from exporter.cli.display import progress
from exporter.cli.options import ARTIFACTS, echo_result
from exporter.config import ExportConfig
from exporter.pipeline import export
from exporter.source_names import read_source


def publish(
    source: str,
    *,
    output: Path | None,
    seed: int,
    force: bool,
    texts: tuple[str, ...],
    suffix: str = "",
    **settings: Any,
) -> None:
    """Exports `source` as the options say, and echoes the result."""
    config = ExportConfig(seed=seed, texts=texts or None, **settings)
    with progress() as on_stage:
        on_stage("read the source")
        found = read_source(source, seed=seed)
        target = output or ARTIFACTS / f"{found.name}{suffix}"
        artifact = export(found, config, target, replace=force, on_stage=on_stage)
    echo_result(
        {"artifact": str(artifact.folder), "manifest": artifact.manifest.to_dict()}, summary(artifact, output or target)
    )


def summary(artifact: Artifact, shown: Path) -> str:
    """The artifact in a few lines for a person, with the next commands to copy."""
    manifest = artifact.manifest
    parity = manifest.parity or {}
    lines = [f"{'Published' if parity['passed'] else 'Published with FAILED parity'}: {shown}"]
    lines += [
        f"  {path:<24} {entry['size_bytes'] / 1e6:>9.1f} MB"
        for path, entry in manifest.files.items()
        if path.startswith(("onnx/", "torchscript/"))
    ]
    for target, figures in parity["targets"].items():
        lines.append(
            f"  {target}: {figures['cases']} cases, {figures['positions']} positions; largest difference "
            f"{figures['max_abs']:.2g}, {figures['worst_ratio']:.0%} of what float32 may cost; "
            f"top-1 agrees on {figures['top1_agreement']:.0%}"
        )
    if weights := parity["weights"]:
        lines.append(
            f"  weights: {weights['checked'] - len(weights['mismatches'])} of {weights['checked']} equal bit for bit"
        )
    lines += [f"  FAILED {failure}" for failure in parity["failures"]]
    lines += [f"  note: {note}" for note in parity["notes"]]
    lines += ["", "Next:", f"  gpt-export validate {shown}", f"  gpt-export inspect {shown}"]
    if manifest.variants:
        ids = [[6109, 3626]] if manifest.model["tokenizer"] == "gpt2" else [[0]]
        lines.append(
            f"  python -c \"from exporter.runtime import Session; print(Session.open('{shown}').logits({ids}).shape)\""
        )
    return "\n".join(lines)
