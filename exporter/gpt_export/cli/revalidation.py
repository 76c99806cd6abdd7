"""The work of `gpt-export validate`: compare, and tell what was found. Imports torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from gpt_export.artifact.manifest import read_manifest
from gpt_export.cli.options import echo_json
from gpt_export.cli.report_page import write_page
from gpt_export.cli.report_text import print_report
from gpt_export.errors import ConfigError
from gpt_export.gate.report import ParityReport
from gpt_export.gate.settings import GateSettings
from gpt_export.pipeline.comparison import raise_if_failed
from gpt_export.pipeline.revalidate import revalidate, revalidate_file
from gpt_export.progress import OnStage
from gpt_export.report.page import report_html


def is_file(path: Path) -> bool:
    """Whether `path` means a lone `.onnx` file and not an artifact's folder; it need not be there."""
    return path.is_file() or (path.suffix == ".onnx" and not path.is_dir())


def compared(
    artifact: Path, settings: Mapping[str, Any], named: Mapping[str, Any], roles: tuple[str, ...], on_stage: OnStage
) -> ParityReport:
    """The report on an artifact or a file.

    Args:
        settings: of `GateSettings`.
        named: what the user said of the source.
        roles: what the user said of a file's inputs and outputs.

    Raises:
        ConfigError: an artifact's are known.
    """
    on_stage("open the file")
    if roles and not is_file(artifact):
        raise ConfigError(f"--role is for an .onnx file, and {artifact} says what its inputs are; leave it out")
    compare = partial(revalidate_file, roles=roles) if is_file(artifact) else revalidate
    with redirect_stdout(sys.stderr):  # what the user's code prints is no result of ours
        return compare(artifact, GateSettings(**settings), **named, on_stage=on_stage)


def tell(report: ParityReport, artifact: Path, *, html: Path | None, verbose: bool, as_json: bool) -> None:
    """Writes the page, prints the report, and raises where it is a failure.

    Raises:
        ParityError: the artifact is not the model.
    """
    if html:
        manifest = None if is_file(artifact) else read_manifest(artifact)
        write_page(html, report_html(report, manifest, name=artifact.name))
    if not as_json:
        print_report(report, str(artifact), verbose=verbose)
    raise_if_failed(report, f"do not use {artifact}")
    if as_json:
        echo_json(report.to_dict())
