"""The work of `gpt-export quantize`. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt_export.artifact.reading import Artifact
from gpt_export.cli.next_steps import Asked, next_steps
from gpt_export.cli.options import comparison, names_in, read_text
from gpt_export.cli.publish import refusal_shown
from gpt_export.cli.publish_text import summary
from gpt_export.cli.report_page import write_page
from gpt_export.pipeline.config import ExportConfig, Gate
from gpt_export.pipeline.published_source import published_source
from gpt_export.pipeline.stages import export
from gpt_export.progress import OnStage
from gpt_export.report.page import REPORT_NAME


def requantize(
    artifact: Path,
    target: Path,
    precisions: tuple[Any, ...],
    *,
    kv_caches: str,
    calibration: Path | None,
    force: bool,
    gate: Gate,
    html: Path | None,
    on_stage: OnStage,
    **compared: Any,
) -> tuple[dict[str, Any], str]:
    """Publishes the precisions at `target`; the result in JSON values, and in lines with the next commands to copy."""
    on_stage("read the source")
    opened = Artifact.open(artifact)
    source, model = published_source(opened)
    exported = opened.manifest.export
    config = ExportConfig(
        seed=int(exported["seed"]),
        opset=int(exported["opset"]),
        gate=gate,
        torchscript=False,
        profile="ort",
        precisions=precisions,
        kv_caches=names_in(kv_caches),
        calibration=None if calibration is None else read_text(calibration),
        license=exported.get("license"),
        base_model=exported.get("base_model"),
        **comparison(**compared),
    )
    with refusal_shown(html, source.name):
        made = export(source, config, target, model=model, replace=force, on_stage=on_stage)
    if html:
        write_page(html, (made.folder / REPORT_NAME).read_text(encoding="utf-8"))
    steps = next_steps(target, made.manifest, Asked(source=str(artifact)), source.tokenizer)
    following = "\n".join(f"  {step}" for step in steps)
    values = {"artifact": str(made.folder), "manifest": made.manifest.to_dict()}
    return values, f"{summary(made.manifest, target)}\n\nNext:\n{following}"
