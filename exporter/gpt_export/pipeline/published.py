"""An export with its page in a file of its own, as callers from Python have it."""

from __future__ import annotations

from pathlib import Path

from gpt_export.artifact.manifest import Manifest
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ConfigError, OutputError, ParityError
from gpt_export.gate.report import ParityReport
from gpt_export.pipeline.config import ExportConfig
from gpt_export.pipeline.stages import export
from gpt_export.progress import OnStage, ignore
from gpt_export.report.page import REPORT_NAME, report_html
from gpt_export.sources.source import Source


def publish(
    source: Source,
    config: ExportConfig,
    output: Path,
    *,
    replace: bool = False,
    html: Path | None = None,
    on_stage: OnStage = ignore,
) -> Artifact:
    """The artifact that `export` publishes; its page is written to `html` as well, also when the comparison fails.

    Raises:
        ConfigError: a page is asked for that there will not be, or that would lie in the artifact.
        OutputError: the page cannot be written.
        GptExportError: as in `export`.
    """
    if html is not None:
        if config.gate == "off":
            raise ConfigError("html needs a comparison to show; leave gate off out")
        if output.resolve() in html.resolve().parents:
            raise ConfigError(f"{html} lies in the artifact {output}; choose another place for html")
    try:
        artifact = export(source, config, output, replace=replace, on_stage=on_stage)
    except ParityError as error:
        if html is not None and isinstance(error.report, ParityReport):
            manifest = error.manifest if isinstance(error.manifest, Manifest) else None
            _write(html, report_html(error.report, manifest, name=source.name))
        raise
    if html is not None:
        _write(html, (artifact.folder / REPORT_NAME).read_text(encoding="utf-8"))
    return artifact


def _write(path: Path, page: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the report cannot be written to {path}: {error.strerror or error}") from error
