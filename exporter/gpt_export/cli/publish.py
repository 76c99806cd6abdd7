"""What the exporting commands share: read the source, export it, tell the result. Imports torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gpt_export.artifact.manifest import Manifest
from gpt_export.cli.errors import RunOptions
from gpt_export.cli.next_steps import Asked, next_steps
from gpt_export.cli.options import ARTIFACTS, comparison, names_in, read_text
from gpt_export.cli.publish_text import summary
from gpt_export.cli.report_page import refuse_inside, write_page
from gpt_export.errors import ConfigError, ParityError
from gpt_export.gate.report import ParityReport
from gpt_export.graph.opsets import DEFAULT_OPSET
from gpt_export.graph.road_names import Road
from gpt_export.pipeline.config import ExportConfig, Gate, Profile
from gpt_export.pipeline.stages import export
from gpt_export.progress import OnStage
from gpt_export.report.page import REPORT_NAME, report_html
from gpt_export.sources.names import read_source


def publish(
    source: str,
    *,
    output: Path | None,
    seed: int,
    force: bool,
    config_file: Path | None,
    heads: int | None,
    weights: Path | None,
    adapter: str | None,
    base: Path | None,
    lora_alpha: float | None,
    cached: bool = True,
    suffix: str = "",
    html: Path | None = None,
    on_stage: OnStage,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """Exports `source` as the options say; the result in JSON values, and in lines with the next commands to copy."""
    said: dict[str, Any] = {
        "config_file": config_file,
        "heads": heads,
        "weights": weights,
        "adapter": adapter,
        "base": base,
        "lora_alpha": lora_alpha,
    }
    config = _config(seed=seed, cached=cached, **options)
    if html and config.gate == "off":
        raise ConfigError("--html needs a comparison to show; leave --gate off out")
    # What the user's code prints is no result of ours.
    with contextlib.redirect_stdout(sys.stderr):
        on_stage("read the source")
        found = read_source(source, seed=seed, cached=cached, **said)
        target = output or ARTIFACTS / f"{found.name}{suffix}"
        click.get_current_context().ensure_object(RunOptions).watch(target)
        if html:
            refuse_inside(html, target)
        with refusal_shown(html, found.name):
            artifact = export(found, config, target, replace=force, on_stage=on_stage)
    if html:
        write_page(html, (artifact.folder / REPORT_NAME).read_text(encoding="utf-8"))
    values = {"artifact": str(artifact.folder), "manifest": artifact.manifest.to_dict()}
    steps = next_steps(output or target, artifact.manifest, Asked(source=source, **said), found.tokenizer)
    following = "\n".join(f"  {step}" for step in steps)
    return values, f"{summary(artifact.manifest, output or target)}\n\nNext:\n{following}"


def _config(
    *,
    seed: int,
    cached: bool,
    road: Road = "auto",
    onnx: bool = True,
    opset: int = DEFAULT_OPSET,
    gate: Gate = "enforce",
    torchscript: bool | None = None,
    profile: Profile | None = None,
    precisions: str = "fp32",
    kv_caches: str = "fp32",
    calibration: Path | None = None,
    single_file: bool = False,
    license: str | None = None,
    base_model: str | None = None,
    **compared: Any,
) -> ExportConfig:
    """The settings that the options are."""
    return ExportConfig(
        seed=seed,
        onnx=onnx,
        opset=opset,
        gate=gate,
        torchscript=torchscript,
        profile=profile,
        road=road,
        cache=cached,
        precisions=names_in(precisions),
        kv_caches=names_in(kv_caches),
        calibration=None if calibration is None else read_text(calibration),
        single_file=single_file,
        license=license,
        base_model=base_model,
        **comparison(**compared),
    )


@contextlib.contextmanager
def refusal_shown(html: Path | None, name: str) -> Iterator[None]:
    """Writes the page of a comparison that fails inside, for which nothing is published; the error goes on."""
    try:
        yield
    except ParityError as error:
        if html and isinstance(error.report, ParityReport):
            manifest = error.manifest if isinstance(error.manifest, Manifest) else None
            write_page(html, report_html(error.report, manifest, name=name))
        raise
