"""What a lint found: values for JSON, and the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_export.linting.finding import Finding, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """The findings in one file, the worst first."""

    path: Path
    findings: tuple[Finding, ...]
    minimum_onnxruntime: str | None
    """The oldest release that loads the file on a CPU, None if the table does not have it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values of every field."""
        return {
            "path": str(self.path),
            "minimum_onnxruntime": self.minimum_onnxruntime,
            "findings": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    """The findings in every file that was looked at."""

    files: tuple[FileReport, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, file by file."""
        return tuple(finding for file in self.files for finding in file.findings)

    @property
    def counts(self) -> Mapping[Severity, int]:
        """How many there are of each severity."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in Severity}

    @property
    def exit_code(self) -> int:
        """1 when there is an error, otherwise 0."""
        return int(self.counts[Severity.ERROR] > 0)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `files` and `counts`."""
        return {
            "files": [file.to_dict() for file in self.files],
            "counts": {str(severity): count for severity, count in self.counts.items()},
        }
