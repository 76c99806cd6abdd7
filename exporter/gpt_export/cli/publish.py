"""What the exporting commands share: read the source, export it, tell the result. Imports torch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.reading import Artifact
from gpt_export.cli.display import progress
from gpt_export.cli.options import ARTIFACTS, comparison, echo_result, names_in, read_text
from gpt_export.cli.report_page import refuse_inside, write_page
from gpt_export.errors import ConfigError, ParityError
from gpt_export.gate.report import ParityReport
from gpt_export.graph.opsets import DEFAULT_OPSET
from gpt_export.graph.road_names import Road
from gpt_export.pipeline.config import ExportConfig, Gate, Profile
from gpt_export.pipeline.stages import export
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
    road: Road = "auto",
    cached: bool = True,
    suffix: str = "",
    onnx: bool = True,
    opset: int = DEFAULT_OPSET,
    gate: Gate = "enforce",
    torchscript: bool | None = None,
    profile: Profile | None = None,
    precisions: str = "fp32",
    calibration: Path | None = None,
    single_file: bool = False,
    html: Path | None = None,
    **compared: Any,
) -> None:
    """Exports `source` as the options say, and echoes the result."""
    config = ExportConfig(
        seed=seed,
        onnx=onnx,
        opset=opset,
        gate=gate,
        torchscript=torchscript,
        profile=profile,
        road=road,
        cache=cached,
        precisions=names_in(precisions),
        calibration=None if calibration is None else read_text(calibration),
        single_file=single_file,
        **comparison(**compared),
    )
    if html and gate == "off":
        raise ConfigError("--html needs a comparison to show; leave --gate off out")
    # What the user's code prints is no result of ours.
    with progress() as on_stage, contextlib.redirect_stdout(sys.stderr):
        on_stage("read the source")
        found = read_source(
            source,
            seed=seed,
            config_file=config_file,
            heads=heads,
            weights=weights,
            adapter=adapter,
            base=base,
            lora_alpha=lora_alpha,
            cached=cached,
        )
        target = output or ARTIFACTS / f"{found.name}{suffix}"
        if html:
            refuse_inside(html, target)
        with _refusal_shown(html, found.name):
            artifact = export(found, config, target, replace=force, on_stage=on_stage)
    if html:
        write_page(html, (artifact.folder / REPORT_NAME).read_text(encoding="utf-8"))
    echo_result(
        {"artifact": str(artifact.folder), "manifest": artifact.manifest.to_dict()}, summary(artifact, output or target)
    )


@contextlib.contextmanager
def _refusal_shown(html: Path | None, name: str) -> Iterator[None]:
    """Writes the page of a comparison that fails inside, for which nothing is published; the error goes on."""
    try:
        yield
    except ParityError as error:
        if html and isinstance(error.report, ParityReport):
            manifest = error.manifest if isinstance(error.manifest, Manifest) else None
            write_page(html, report_html(error.report, manifest, name=name))
        raise


def summary(artifact: Artifact, shown: Path) -> str:
    """The artifact in a few lines for a person, with the next commands to copy."""
    manifest = artifact.manifest
    parity = manifest.parity
    verdict = "NOT compared" if parity is None else "" if parity["passed"] else "with FAILED parity"
    lines = [f"{f'Published {verdict}'.strip()}: {shown}"]
    lines += [
        f"  {path:<24} {entry['size_bytes'] / 1e6:>9.1f} MB"
        for path, entry in manifest.files.items()
        if path.startswith(("onnx/", "torchscript/"))
    ]
    lines += _parity_lines(parity) if parity else [f"  note: {note}" for note in manifest.model["notes"]]
    lines += ["", "Next:", f"  gpt-export validate {shown}", f"  gpt-export inspect {shown}"]
    if manifest.variants:
        tokenizer = manifest.model["tokenizer"]
        prompt = '"Every effort moves you"' if tokenizer else '--ids "0"'
        lines.append(f"  gpt-export generate {shown} {prompt}")
        ids = [[6109, 3626]] if tokenizer == "gpt2" else [[0]]
        lines.append(
            f'  python -c "from gpt_export.runtime import Session; '
            f"print(Session.open('{shown}').logits({ids}).shape)\""
        )
    return "\n".join(lines)


def _target_line(target: str, figures: Mapping[str, Any]) -> str:
    compared = f"  {target}: {figures['cases']} cases, {figures['positions']} positions"
    top1 = f"top-1 agrees on {figures['top1_agreement']:.0%}"
    if figures["bounded"]:
        share = f"{figures['worst_ratio']:.0%} of what float32 may cost"
        return f"{compared}; largest difference {figures['max_abs']:.2g}, {share}; {top1}"
    change = figures["perplexity_change"]
    perplexity = f", perplexity {'not judged: no --text-file' if change is None else f'{change:+.2%}'}"
    return f"{compared}; worst mean KL {figures['kl_mean']:.2g} nats{perplexity}; {top1}"


def _parity_lines(parity: Mapping[str, Any]) -> list[str]:
    lines = [_target_line(target, figures) for target, figures in parity["targets"].items()]
    if weights := parity["weights"]:
        equal = weights["checked"] - len(weights["mismatches"])
        lines.append(f"  weights: {equal} of {weights['checked']} equal bit for bit")
    if judge := parity.get("judged_against"):
        lines.append(f"  judged against {judge}")
    lines += [f"  FAILED {failure}" for failure in parity["failures"]]
    return lines + [f"  note: {note}" for note in parity["notes"]]
