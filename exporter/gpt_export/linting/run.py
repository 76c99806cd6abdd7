"""Every check on every file that a path names."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto

from gpt_export.artifact.element_sizes import size_bytes
from gpt_export.artifact.manifest import MANIFEST_NAME
from gpt_export.artifact.minimum_release import minimum_release
from gpt_export.artifact.onnx_model import OnnxModel, read_model
from gpt_export.artifact.reading import Artifact
from gpt_export.errors import ArtifactError
from gpt_export.linting.registry import applied
from gpt_export.linting.report import FileReport, LintReport
from gpt_export.linting.rules import CHECKS, check_codes
from gpt_export.linting.settings import LintSettings
from gpt_export.linting.tensors import External, external, inside, unreadable

_MOST_READINGS = 16
"""Of what is there: several names for one tensor are no fault."""
_LEAST_BOUNDLESS = 4 * 2**30


def lint_path(path: Path, settings: LintSettings | None = None) -> LintReport:
    """What is wrong with an `.onnx` file, with each variant of an artifact, or with every `.onnx` file of a folder.

    Raises:
        ArtifactError: there is nothing at `path`, or it is no ONNX model and holds none.
        ConfigError: a code to ignore is not known.
    """
    settings = settings or LintSettings()
    check_codes(sorted(settings.ignore))
    return LintReport(files=tuple(lint_file(file, settings) for file in _files(path)))


def lint_file(path: Path, settings: LintSettings) -> FileReport:
    """What is wrong with one `.onnx` file.

    Raises:
        ArtifactError: it is not there, or not an ONNX model.
    """
    model = read_model(path)
    _refuse_boundless(model)
    findings = [finding for check in CHECKS for finding in applied(check, model, settings)]
    minimum = minimum_release(model)
    return FileReport(
        path=path,
        findings=tuple(sorted(findings, key=lambda finding: (finding.severity.rank, finding.code))),
        minimum_onnxruntime=minimum.version if minimum else None,
    )


def _refuse_boundless(model: OnnxModel) -> None:
    """Refuses a file whose tensors say far more than is there: what is there is read a few times, and no more.

    Raises:
        ArtifactError: they do, by the same bytes again and again.
    """
    tensors = model.initializers | model.constants
    places = {place.location for tensor in tensors.values() if (place := _place(tensor)) is not None}
    found = (inside(model.path, location) for location in places)
    files = [path for path in found if path is not None and not unreadable(path)]
    there = model.path.stat().st_size + sum(path.stat().st_size for path in files)
    said = sum(size_bytes(tensor) or 0 for tensor in tensors.values() if _place(tensor) is not None)
    if said > _MOST_READINGS * there + _LEAST_BOUNDLESS:
        raise ArtifactError(
            f"{model.path} has tensors of {said / 1e9:.1f} GB in files of {there / 1e9:.1f} GB, so that the same bytes "
            "would be read over and over; export it again"
        )


def _place(tensor: TensorProto) -> External | None:
    try:
        return external(tensor)
    except ValueError:
        return None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / MANIFEST_NAME).exists():
        artifact = Artifact.open(path)
        found = [artifact.variant_path(variant) for variant in artifact.manifest.variants]
    else:
        # An export that is being written stages its files in a hidden folder beside its place.
        found = sorted(file for file in path.rglob("*.onnx") if not _is_hidden(file.relative_to(path)))
    if not found:
        raise ArtifactError(f"{path} holds no .onnx file; name an artifact folder or an .onnx file")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
